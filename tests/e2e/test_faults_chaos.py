"""A slim part of `scripts/chaos`: what must hold after a fault; times are for that script alone."""

from __future__ import annotations

import subprocess
import sys

import chaos_faults_outside
import chaos_faults_runs
import pytest
from chaos_faults import FAULTS
from chaos_rig import LackingError
from e2e_support import ROOT

assert chaos_faults_runs
assert chaos_faults_outside

SLIM = (
    "sigsegv-crop",
    "node-keeps-lock",
    "everything-killed",
    "supervisor-killed-worker-stopped",
    "no-descriptors",
    "sighup",
    "camera-killed",
)


@pytest.mark.parametrize("name", SLIM)
def test_a_fault_is_survived(name: str) -> None:
    try:
        outcome = FAULTS[name].make()
    except LackingError as error:
        pytest.skip(str(error))
    assert outcome.checked


def test_the_script_lists_its_faults() -> None:
    done = subprocess.run(
        [sys.executable, ROOT / "scripts/chaos", "--list"],
        capture_output=True,
        text=True,
        check=True,
    )
    listed = [line.split()[0] for line in done.stdout.splitlines()]
    assert listed == list(FAULTS)
    assert len(listed) >= 25


def test_the_script_refuses_a_fault_that_it_does_not_know() -> None:
    done = subprocess.run(
        [sys.executable, ROOT / "scripts/chaos", "--only", "nosuch"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert "no fault is named nosuch" in done.stderr
