"""The order of streams where one thread paints what others have and want."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from nodes.sdxs.jobs import Job


def before(jobs: Sequence[Job], device: torch.device) -> None:
    """Orders this thread's stream behind those on which the jobs' pictures were made."""
    if device.type == "cuda":
        here = torch.cuda.current_stream(device)
        for stream in _others(jobs, here):
            here.wait_stream(stream)


def after(jobs: Sequence[Job], device: torch.device) -> None:
    """Orders the jobs' streams behind this thread's; what was made for them is theirs now."""
    if device.type != "cuda":
        return
    here = torch.cuda.current_stream(device)
    for stream in _others(jobs, here):
        stream.wait_stream(here)
    for job in jobs:
        if job.stream is not None and job.stream != here:
            for made in (job.latents, job.finite):
                if isinstance(made, Tensor):
                    # Its memory is of this stream, and must not be used again before that one.
                    made.record_stream(job.stream)


def _others(jobs: Sequence[Job], here: torch.cuda.Stream) -> list[torch.cuda.Stream]:
    found: list[torch.cuda.Stream] = []
    for job in jobs:
        if job.stream is not None and job.stream != here and job.stream not in found:
            found.append(job.stream)
    return found
