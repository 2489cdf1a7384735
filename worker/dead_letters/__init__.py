"""Entries that PostgreSQL refuses for what they hold: kept whole, for a person to look at and to queue again."""
