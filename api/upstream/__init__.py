"""Model providers: how a turn is asked and what real servers answer."""
