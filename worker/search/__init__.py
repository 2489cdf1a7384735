"""The full text of what is stored: an index that follows the queue at a distance."""
