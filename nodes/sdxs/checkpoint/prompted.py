"""A prompt as the networks take it: its embedding, and what follows from it for each size."""

from __future__ import annotations

import threading
from collections import OrderedDict
from typing import Final

import torch

from nodes.sdxs.checkpoint.network import Condition, Network
from nodes.sdxs.checkpoint.text import Embedding

KEPT_SIZES: Final = 4
"""Sizes whose conditions stay in memory; the one unused for longest goes first."""


class Prompted:
    """What a prompt comes to; never changed, for several threads.

    Args:
        embedding: Of the prompt.

    Attributes:
        embedding: See above.
    """

    def __init__(self, embedding: Embedding) -> None:
        self.embedding = embedding
        self._lock = threading.Lock()
        self._conditions: OrderedDict[tuple[int, int], Condition] = OrderedDict()

    @torch.inference_mode()
    def condition(self, network: Network, width: int, height: int) -> Condition:
        """The condition for pictures of a size in pixels; the same object each time."""
        key = (width, height)
        with self._lock:
            if key not in self._conditions:
                self._conditions[key] = network.condition(
                    self.embedding, width=width, height=height
                )
                while len(self._conditions) > KEPT_SIZES:
                    self._conditions.popitem(last=False)
            self._conditions.move_to_end(key)
            return self._conditions[key]
