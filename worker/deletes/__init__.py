"""Deletes that came through the queue, and the tombstones that keep late entries out."""
