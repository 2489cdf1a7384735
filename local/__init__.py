"""Runs the whole service on one machine, beside an embedded Valkey and PostgreSQL."""
