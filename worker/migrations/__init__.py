"""Which migrations a database has."""
