"""The tests that the acceptance runs before it measures anything."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from streamer import gpu
from streamer.bench.acceptance.requirements import ROOT

_MARK: Final = re.compile(r"\bmark\.gpu\b")
_SIMULATED: Final = ("tests/streamer/link/test_cuda_real_faults.py", "-m", "not gpu")


@dataclass(frozen=True, slots=True)
class Tested:
    """What came of it.

    Attributes:
        passed: whether all did, and there were some.
        said: pytest's last line.
        output: the end of what pytest printed.
    """

    passed: bool
    said: str
    output: str


def gpu_tests(tests: Path) -> list[Path]:
    """Files and folders that hold tests with the `gpu` mark, and no others.

    Others may need packages that a machine with a GPU has no use for.
    """
    found: list[Path] = []
    for path in sorted(tests.rglob("*.py")):
        if _MARK.search(path.read_text()):
            # What a conftest marks may be of any test in its folder.
            found.append(path.parent if path.name == "conftest.py" else path)
    folders = [one for one in found if one.is_dir()]
    return [one for one in found if not any(folder in one.parents for folder in folders)]


def run(*, fake: bool, seconds: float) -> Tested:
    """Runs the tests of GPUs: on a real one, or some of them on a simulated one.

    Args:
        fake: on a simulated one.
        seconds: that they may take.
    """
    which = list(_SIMULATED) if fake else ["-m", "gpu", *map(str, gpu_tests(ROOT / "tests"))]
    environment = {key: value for key, value in os.environ.items() if key != gpu.SIMULATED}
    # By name, so that one that hangs is the last to be named; a file that cannot be imported, for
    # a package that is not there say, keeps no other from being run.
    command = [sys.executable, "-m", "pytest", "-v", "-p", "no:cacheprovider"]
    command += ["--continue-on-collection-errors"]
    # A warning of some other version of a library is nothing that a GPU has to answer for.
    command += ["-W", "default", *which]
    process = subprocess.Popen(
        command, cwd=ROOT, env=environment, text=True, stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True,
    )  # fmt: skip
    try:
        output, _ = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        output, _ = process.communicate()
        return Tested(False, f"not done within {seconds:.0f} s", output[-8000:])
    except BaseException:
        os.killpg(process.pid, signal.SIGKILL)
        raise
    lines = output.strip().splitlines() or ["no output"]
    return Tested(process.returncode == 0, lines[-1].strip("= "), output[-8000:])
