"""Colour and size of pictures on a GPU: kernels of CUDA C, and what launches them.

The kernels (`kernels.cu`) are compiled by CuPy when they are first needed. On a simulated GPU the
very same source runs, compiled for the CPU by g++ (`twin`).
Nothing here copies between host and device, and nothing waits for the device.
"""
