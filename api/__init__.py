"""The HTTP service: one turn of a chat, and everything that a client may ask about it."""
