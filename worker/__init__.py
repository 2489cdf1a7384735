"""Moves the queue into PostgreSQL."""
