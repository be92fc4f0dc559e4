"""What the model must reach on a GPU, and how that is measured; see `docs/performance.md`.

Importing this package, or its `goals`, loads nothing heavy.
"""
