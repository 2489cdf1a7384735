"""What api and worker share: the entry that crosses the queue, the connections, the settings they have in common."""
