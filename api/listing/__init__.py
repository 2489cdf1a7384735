"""Lists of a tenant's conversations: PostgreSQL's, corrected by what Redis has beyond it."""
