"""Running a plan: the supervisor, its workers, and what they report."""
