"""Which GPU a node's frames lie on."""

from __future__ import annotations

import logging
from typing import Any

from streamer import gpu
from streamer.errors import DeviceError, NodeError
from streamer.gpu.device import Device
from streamer.nodebase import Node


def device_for(node: Node[Any], ordinal: int | None, log: logging.Logger) -> Device | None:
    """The device for frames of a node that has been given a GPU, and takes frames there.

    Its stream of this thread is current for CuPy and torch afterwards, so that what the node does
    in `open` is ordered before its first picture.

    Returns:
        The device; None where the node works on frames in host memory.

    Raises:
        NodeError: the GPU cannot be used, and the node takes frames nowhere else.
    """
    if ordinal is None or "cuda" not in node.memory:
        return None
    try:
        device = gpu.device(ordinal)
        device.stream()
    except DeviceError as error:
        if "host" not in node.memory:
            raise NodeError(f"takes frames on a GPU only: {error}") from error
        log.warning("frames stay in host memory: %s", error)
        return None
    return device
