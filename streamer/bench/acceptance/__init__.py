"""What the GPU parts must reach, and a run that measures it: see `scripts/gpu_acceptance`."""
