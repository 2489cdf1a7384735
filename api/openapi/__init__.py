"""This service's own OpenAPI document: what every endpoint takes and gives, every event and every error.

A new endpoint is added to `endpoints.py` or beside it, a new object to `objects.py`, a new event to `response.py`,
a new error code to `failures.py`; the bodies that clients send describe themselves (`bodies.py`). Tests compare all of
it with what the service does.
"""
