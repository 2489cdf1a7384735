"""What shows many things at once: the list of a tenant's conversations, and the export of a whole one."""
