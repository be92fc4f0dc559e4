"""The whole recipe in full, from a teacher in diffusers' layout: SD 1, SD 2, SDXL, Vega."""
