"""SDXS's recipe (arXiv 2403.16627): from a teacher of many steps to a student of one.

The losses are small pure functions; the stages put them together. Nothing in here is imported
when a model runs.
"""
