"""Real limits of the system in processes of their own: clear words, and nothing left behind."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from plans import chain, others, pictures

from streamer.graph.plan import Plan

LIMITED = """
import json, resource, sys
from pathlib import Path
from streamer.errors import StreamerError
from streamer.graph.plan import Plan
from streamer.runtime import Silent, Supervisor
sys.path.append({here!r})
plan = Plan.from_dict(json.loads(Path(sys.argv[1]).read_text()))
import zmq, streamer.runtime.supervisor
resource.setrlimit(getattr(resource, sys.argv[2]), (int(sys.argv[3]),) * 2)
try:
    report = Supervisor(plan, Silent()).run()
    print("; ".join(report.errors))
    sys.exit(report.exit_status)
except StreamerError as error:
    print(error)
    sys.exit(error.exit_status)
"""


def limited(made: Plan, folder: Path, limit: str, value: int) -> subprocess.CompletedProcess[str]:
    """Runs a plan in a process with a limit, which its workers inherit."""
    file = folder / "plan.json"
    file.write_text(json.dumps(made.to_dict()))
    here = str(Path(__file__).parent)
    return subprocess.run(
        [sys.executable, "-c", LIMITED.format(here=here), str(file), limit, str(value)],
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, "TMPDIR": tempfile.gettempdir()},
    )


def test_no_memory_for_pictures_is_said(tmp_path: Path) -> None:
    # The limit on the size of files holds for shared memory, too.
    made = chain(tmp_path / "tape", src_count=5, src_width=1024, src_height=1024)
    done = limited(made, tmp_path, "RLIMIT_FSIZE", 4_000_000)
    assert done.returncode == 1, done.stderr
    assert done.stdout.startswith("src: no shared memory for ")
    assert "frames of 3145728 bytes" in done.stdout
    assert "File too large" in done.stdout
    assert others(tmp_path / "tape") == ["open 1", "end"]


def test_no_memory_for_larger_pictures_in_mid_stream(tmp_path: Path) -> None:
    tape = tmp_path / "tape"
    made = chain(tape, src_count=40, src_width=512, src_height=512, src_grow_at=20)
    done = limited(made, tmp_path, "RLIMIT_FSIZE", 20_000_000)
    assert done.returncode == 1, done.stderr
    assert done.stdout.startswith("src: no shared memory for ")
    # What was made before is whole.
    assert [p.seq for p in pictures(tape)] == list(range(20))
    assert {p.size for p in pictures(tape)} == {"512x512"}
    assert all(p.low == p.high == p.seq for p in pictures(tape))


@pytest.mark.parametrize("descriptors", [12, 24, 44])
def test_hardly_any_descriptors(tmp_path: Path, descriptors: int) -> None:
    tape = tmp_path / "tape"
    done = limited(chain(tape, src_count=20), tmp_path, "RLIMIT_NOFILE", descriptors)
    assert "Traceback" not in done.stderr, done.stderr
    if done.returncode:  # else they were enough
        assert done.returncode == 1, (done.stdout, done.stderr)
        assert "Too many open files" in done.stdout, (done.stdout, done.stderr)
    else:
        assert len(pictures(tape)) == 20


def test_no_more_processes_are_allowed_is_said(tmp_path: Path) -> None:
    if os.getuid() == 0:
        pytest.skip("root may start any number of processes")
    done = limited(chain(tmp_path / "tape", src_count=5), tmp_path, "RLIMIT_NPROC", 1)
    assert done.returncode == 1
    assert "no more processes are allowed" in done.stdout


def test_little_address_space_is_said(tmp_path: Path) -> None:
    # Enough for Python and its libraries, not for the slabs beside them.
    large = {"src_width": 4096, "src_height": 4096}
    made = chain(tmp_path / "tape", src_count=5, **large)
    done = limited(made, tmp_path, "RLIMIT_AS", 900_000_000)
    assert done.returncode == 1, (done.stdout, done.stderr)
    assert "Cannot allocate memory" in done.stdout, (done.stdout, done.stderr)
    assert "Traceback" not in done.stdout


def test_limits_of_this_process_are_untouched() -> None:
    assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] > 44
