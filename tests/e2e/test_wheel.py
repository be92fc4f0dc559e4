"""The wheel, installed in an empty virtual environment away from the checkout."""

from __future__ import annotations

import os
import subprocess
import sys
import venv
from pathlib import Path

from e2e_support import ROOT, frames_of


def test_the_wheel_runs_without_the_checkout(tmp_path: Path) -> None:
    # Out of the way of this interpreter's packages, and pinned like the project's own set-up.
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    environment["PIP_CONSTRAINT"] = str(ROOT / "constraints.txt")
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check"]
    wheels = tmp_path / "wheels"
    _call([*pip, "wheel", "--no-deps", "--wheel-dir", wheels, ROOT], environment)
    (wheel,) = wheels.glob("sdxs_streamer-*.whl")
    venv.create(tmp_path / "empty", with_pip=True)
    python = tmp_path / "empty/bin/python"
    # Bytecode of all of torch, most of which nothing asks for, would take half of the time.
    _call([python, "-m", "pip", "install", "--quiet", "--no-compile", wheel], environment)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    streamer = tmp_path / "empty/bin/streamer"
    _call([streamer, "style", "demo:", "out.mp4", "--frames", 24], environment, cwd=elsewhere)
    assert len(frames_of(elsewhere / "out.mp4")) == 24
    where = _call([python, "-c", "import nodes; print(nodes.__file__)"], environment, cwd=elsewhere)
    assert where.startswith(str(tmp_path))


def _call(command: list[object], environment: dict[str, str], cwd: Path | None = None) -> str:
    done = subprocess.run(
        [str(word) for word in command],
        env=environment,
        cwd=cwd,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout
