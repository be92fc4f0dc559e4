"""Free disk where recordings and models go."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from streamer.doctor.finding import Finding, Status

_LITTLE: Final = 2 << 30
_NONE: Final = 64 << 20


def look() -> Iterator[Finding]:
    """The current folder, the folder for temporary files, and the one for downloaded models."""
    cache = Path(os.environ.get("HF_HOME") or Path.home() / ".cache" / "huggingface")
    yield _free("recordings", Path.cwd())
    yield _free("temporary files", Path(tempfile.gettempdir()))
    yield _free("models", cache)


def _free(name: str, folder: Path) -> Finding:
    there = next(path for path in (folder, *folder.parents) if path.exists())
    free = shutil.disk_usage(there).free
    status = Status.FAIL if free < _NONE else Status.WARN if free < _LITTLE else Status.OK
    return Finding(
        area="Disk",
        name=name,
        status=status,
        detail=f"{free / (1 << 30):.1f} GiB free at {folder}",
        advice="" if status is Status.OK else "free some, or use another disk",
    )
