"""`streamer doctor` says whether processes can share a GPU's memory, having tried it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from streamer.doctor import sharing
from streamer.doctor.finding import Finding, Status
from streamer.gpu import probe, simulated


def about_cuda() -> list[Finding]:
    return [finding for finding in sharing.look() if "CUDA" in finding.name]


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_nothing_is_said_of_it() -> None:
    assert about_cuda() == []


def test_what_a_second_process_could_do_is_told(
    simulated_gpu: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(probe, "_answers", {})
    (found,) = about_cuda()
    assert (found.status, found.detail) == (Status.OK, "a second process's memory is read")
    monkeypatch.setattr(probe, "_answers", {})
    simulated.change(simulated_gpu, opening="invalid device context")
    (found,) = about_cuda()
    assert found.status is Status.WARN
    assert "invalid device context" in found.detail
    assert "--pid" in found.advice
