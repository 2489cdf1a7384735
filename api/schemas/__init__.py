"""Bodies in OpenAI's names: what the edge accepts."""
