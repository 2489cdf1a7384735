"""Faults of Redis itself."""
