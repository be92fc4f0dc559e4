"""`python -m streamer.bench.acceptance [--fake]`: tests first, then the goals, then one table."""

from __future__ import annotations

import argparse
import importlib.util
import os
import platform
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Final

from streamer import gpu
from streamer.errors import DeviceError

_ROOT: Final = Path(__file__).parents[3]
_BUDGET: Final = 530.0
"""seconds that all of it may take: under nine minutes"""
_TESTS: Final = 300.0
"""seconds of those for tests"""
_MODULES: Final = {
    "numpy": "numpy",
    "zmq": "pyzmq",
    "msgpack": "msgpack",
    "pydantic": "pydantic",
    "yaml": "pyyaml",
    "typer": "typer",
    "rich": "rich",
    "av": "av",
    "torch": "torch",
    "pytest": "pytest",
    "hypothesis": "hypothesis",
}


def main() -> int:
    """The exit status: 0 if nothing failed or was missed, 1 if something was, 2 if it cannot run.

    Goals whose code does not exist yet do not count as missed; the table names them.
    """
    words = argparse.ArgumentParser(prog="scripts/gpu_acceptance")
    words.add_argument("--fake", action="store_true", help="run what can run on a simulated GPU")
    fake: bool = words.parse_args().fake
    began = time.monotonic()
    if missing := _missing(fake=fake):
        print("gpu_acceptance cannot run here; missing:", file=sys.stderr)
        for line in missing:
            print(f"  - {line}", file=sys.stderr)
        return 2
    with tempfile.TemporaryDirectory(prefix="streamer-gpu-") as folder:
        if fake:
            from streamer.gpu import simulated

            os.environ[gpu.SIMULATED] = str(simulated.make(folder))
        device = gpu.device(0)
        print(f"GPU      {device.name} {device.uuid}")
        print(f"where    {platform.node()}, Python {platform.python_version()}, {_versions()}")
        print(f"when     {datetime.now(UTC):%Y-%m-%d %H:%M} UTC, commit {_commit()}\n", flush=True)
        passed, said = _run_tests(fake=fake)
        rows = _goals(fake=fake, until=began + _BUDGET)
    print(f"\ntests    {said}")
    _table(rows)
    print(f"\ntook {time.monotonic() - began:.0f} s")
    bad = [row for row in rows if row[2] in ("missed", "failed")]
    return 1 if bad or not passed else 0


def _missing(*, fake: bool) -> list[str]:
    found = [
        f"Python package {package}: pip install {package}, or --wheels DIR with its wheel"
        for module, package in _MODULES.items()
        if importlib.util.find_spec(module) is None
    ]
    if fake:
        return found
    if importlib.util.find_spec("cupy") is None:
        found.append(
            "Python package CuPy: pip install cupy-cuda13x (or cupy-cuda12x), or --wheels DIR"
        )
        if not Path("/dev/nvidiactl").exists():
            found.append("no GPU: there is no /dev/nvidiactl (NVIDIA driver, or --gpus all)")
        return found
    try:
        gpu.device(0)
    except DeviceError as error:
        found.append(f"no GPU: {error}")
    return found


def _run_tests(*, fake: bool) -> tuple[bool, str]:
    if fake:
        which = ["-k", "cuda", "tests/streamer/link"]
    else:
        which = ["-m", "gpu", "tests"]
    environment = {k: v for k, v in os.environ.items() if k != gpu.SIMULATED}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *which]
    try:
        done = subprocess.run(
            command, cwd=_ROOT, env=environment, timeout=_TESTS, check=False, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return False, f"not done within {_TESTS:.0f} s"
    lines = done.stdout.strip().splitlines()
    if done.returncode:
        print(done.stdout[-8000:])
    return done.returncode == 0, lines[-1] if lines else "no output"


def _goals(*, fake: bool, until: float) -> list[tuple[str, str, str]]:
    from streamer.bench.acceptance.goals import GOALS, judge

    rows = []
    for goal in GOALS:
        if time.monotonic() > until - 60 and goal.measure is not None:
            rows.append((goal.text, "no time was left for it", "failed"))
            continue
        row = judge(goal, fake=fake)
        rows.append((row.goal, row.measured, row.verdict))
    return rows


def _table(rows: list[tuple[str, str, str]]) -> None:
    table = [("goal", "measured", "verdict"), *rows]
    widths = [max(len(row[column]) for row in table) for column in range(3)]
    for number, row in enumerate(table):
        cells = (text.ljust(width) for text, width in zip(row, widths, strict=True))
        print("| " + " | ".join(cells) + " |")
        if not number:
            print("|" + "|".join("-" * (width + 2) for width in widths) + "|")


def _versions() -> str:
    found = []
    for package in ("torch", "cupy-cuda13x", "cupy-cuda12x"):
        try:
            found.append(f"{package} {version(package)}")
        except PackageNotFoundError:
            continue
    return ", ".join(found)


def _commit() -> str:
    done = subprocess.run(
        ["git", "describe", "--always", "--dirty"],
        cwd=_ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    return done.stdout.strip() or "unknown"


if __name__ == "__main__":
    sys.exit(main())
