"""How much memory is left."""

from __future__ import annotations

from pathlib import Path

import torch


def available_bytes(device: torch.device) -> int:
    """Bytes that a device can still give: of a GPU's memory, or of this machine's."""
    if device.type == "cuda":
        free: int = torch.cuda.mem_get_info(device)[0]
        return free
    for line in Path("/proc/meminfo").read_text(encoding="ascii").splitlines():
        key, _, value = line.partition(":")
        if key == "MemAvailable":
            return int(value.split()[0]) * 1024
    raise OSError("/proc/meminfo does not say how much memory is available")
