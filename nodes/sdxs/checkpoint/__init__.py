"""Published SDXS checkpoints: loading, one step on torch, and what is known of each.

`engine` is `OneStep` for checkpoints, over `network` (U-Net, ControlNets, decoder), `schedule` (the
coefficients of the step) and `text` (prompts). `parts` builds the networks from a `source`: a
folder, the hub's cache, or `layouts` with random weights. `catalogue` is what to tell people.
"""
