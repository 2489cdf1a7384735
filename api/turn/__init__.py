"""One turn, step by step; the only place that knows the order of the steps."""
