"""The networks through torch.compile, whose results are kept for the next start."""

from __future__ import annotations

import copy
import os
import tempfile
from pathlib import Path
from typing import Any, Final

import torch

from nodes.sdxs.checkpoint.network import Network

_CACHE: Final = "TORCHINDUCTOR_CACHE_DIR"


def cache_folder() -> Path:
    """Where compiled code is kept: `TORCHINDUCTOR_CACHE_DIR`, or else in the user's cache.

    torch's own is in the folder for temporary files, which is emptied when the machine starts.
    """
    given = Path(os.environ.get(_CACHE, ""))
    # torch writes its own choice into the environment where there is none.
    chosen = given.name.startswith("torchinductor_") and given.parent == Path(tempfile.gettempdir())
    if given.name and not chosen:
        return given
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "streamer" / "inductor"


def compiled(network: Network, *, backend: str = "inductor") -> Network:
    """The same network, on the same weights, whose parts are compiled when they first run.

    One size is compiled after another, each for itself: sizes are few, and fixed ones run faster.
    Without torch's own CUDA graphs: the whole picture is captured as one.

    Args:
        network: Stays as it is.
        backend: Of torch.compile.
    """
    os.environ[_CACHE] = str(cache_folder())
    fast = copy.copy(network)
    for part in ("residuals", "predict", "decode"):
        whole: Any = torch.compile(getattr(network, part), dynamic=False, backend=backend)
        setattr(fast, part, whole)
    return fast
