"""Graph files: reading, checking and planning."""
