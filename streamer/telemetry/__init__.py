"""Counting frames and timing them, in memory that outlives the processes that count."""
