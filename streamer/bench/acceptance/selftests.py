"""The tests that the acceptance runs before it measures anything."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final

from streamer import gpu
from streamer.bench.acceptance.requirements import ROOT

_MARK: Final = re.compile(r"\bmark\.gpu\b")
_SIMULATED: Final = ("tests/streamer/link/test_cuda_real_faults.py", "-m", "not gpu")
_HANGS: Final = 90
"""seconds after which a single test hangs, and its process ends with the stacks of all threads"""
_SHOWN: Final = 8000
"""characters of pytest's that are shown where tests fail"""
_OUTCOME: Final = re.compile(r"(\d+) (failed|passed|skipped|xfailed|xpassed|warning|error)")
_PLURAL: Final = ("warning", "error")


@dataclass(frozen=True, slots=True)
class Tested:
    """What came of it.

    Attributes:
        passed: whether all did, and there were some.
        said: how many had which outcome, behind what went wrong besides.
        output: the ends of what pytest printed where something failed.
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


def run(*, fake: bool, seconds: float, log: Path | None = None) -> Tested:
    """Runs the tests of GPUs: on a real one, or some of them on a simulated one.

    Each file or folder has a process of its own: what breaks a driver's context, or ends the
    process, breaks it for no other. Those of the engine come first, for nodes rest on it.

    Args:
        fake: on a simulated one.
        seconds: that they may take.
        log: file that is to hold all that pytest prints, as it prints it; None for none.
    """
    batches: list[tuple[str, ...]] = [_SIMULATED]
    if not fake:
        found = sorted(gpu_tests(ROOT / "tests"), key=lambda path: "nodes" in path.parts)
        batches = [("-m", "gpu", "-o", f"faulthandler_timeout={_HANGS}", str(p)) for p in found]
    began = time.monotonic()
    counts: Counter[str] = Counter()
    wrong: list[str] = []
    ends: list[str] = []
    with tempfile.TemporaryFile() if log is None else log.open("w+b") as file:
        for words in batches:
            left = began + seconds - time.monotonic()
            status, output = _run(words, file, left) if left > 0 else (None, "")
            found_here = _counts(output)
            counts += found_here
            if status == 0:
                continue
            ends.append(output)
            if status is None:
                wrong.append(f"not done within {seconds:.0f} s")
                break
            if not found_here:
                wrong.append(f"the process of {words[-1]} ended with {status}")
    said = [f"{n} {what}{'s' * (n > 1 and what in _PLURAL)}" for what, n in counts.items()]
    wrong += [f"{', '.join(said)} in {time.monotonic() - began:.0f} s"] if said else []
    share = _SHOWN // max(1, len(ends))
    return Tested(not ends, "; ".join(wrong), "\n".join(end[-share:] for end in ends))


def _run(words: Sequence[str], file: IO[bytes], seconds: float) -> tuple[int | None, str]:
    """One process of pytest: its exit status, None if it took too long, and what it printed."""
    environment = {key: value for key, value in os.environ.items() if key != gpu.SIMULATED}
    # No test here needs a plugin, and those that a machine has beside may not fit its pytest.
    environment["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"
    # By name, so that one that hangs is the last to be named; a file that cannot be imported, for
    # a package that is not there say, keeps no other from being run.
    command = [sys.executable, "-m", "pytest", "-v", "-p", "no:cacheprovider"]
    command += ["--continue-on-collection-errors"]
    # A warning of some other version of a library is nothing that a GPU has to answer for.
    command += ["-W", "default", *words]
    start = file.seek(0, os.SEEK_END)
    process = subprocess.Popen(
        command, cwd=ROOT, env=environment, stdin=subprocess.DEVNULL,
        stdout=file, stderr=subprocess.STDOUT, start_new_session=True,
    )  # fmt: skip
    status: int | None = None
    try:
        status = process.wait(timeout=seconds)
    except subprocess.TimeoutExpired:
        pass
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # with all that it has started
        process.wait()
    file.seek(start)
    return status, file.read().decode(errors="replace")


def _counts(output: str) -> Counter[str]:
    """How many tests had which outcome, by pytest's last line."""
    last = (output.strip().splitlines() or [""])[-1]
    if re.search(r" in \d+\.\d+s", last) is None:
        return Counter()
    return Counter({what: int(n) for n, what in _OUTCOME.findall(last)})
