"""Benchmarks: what the link and the pipeline cost, against what they replace, in one run."""
