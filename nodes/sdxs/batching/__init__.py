"""Several videos through one loaded model: its weights once in memory, its passes shared.

`share` gives each of several nodes of a process an engine of its own whose settings are its own
and whose weights are everybody's; `Passes` decides whose pictures are painted when, and together
with which others.
"""

from nodes.sdxs.batching.passes import Member, Passes, summary
from nodes.sdxs.batching.sharing import Shelf, share

__all__ = ["Member", "Passes", "Shelf", "share", "summary"]
