"""The built-in nodes."""
