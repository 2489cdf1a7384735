"""What this code calls itself in metrics and traces; pyproject.toml says the same."""

VERSION = "0.1.0"
