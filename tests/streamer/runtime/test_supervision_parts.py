"""The small parts of supervision: restarts by the clock, control messages, sockets' folders."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st
from plans import chain

from streamer.errors import ProtocolError, RunError
from streamer.graph.plan import WorkerPlan
from streamer.runtime import control
from streamer.runtime.addresses import control_endpoint, endpoint_of
from streamer.runtime.folder import RunFolder
from streamer.runtime.obituary import describe_exit
from streamer.runtime.process import WorkerProcess
from streamer.runtime.record import WorkerRecord


def test_exits_in_words() -> None:
    assert describe_exit(-9) == "was killed by SIGKILL"
    assert describe_exit(-11) == "was killed by SIGSEGV"
    assert describe_exit(70) == "ended with status 70"
    assert describe_exit(-99) == "was killed by signal 99"


MESSAGES: list[tuple[str, dict[str, Any]]] = [
    ("hello", {"worker": "w", "incarnation": 1, "pid": 7}),
    ("state", {"node": "n", "state": "ready", "text": ""}),
    ("note", {"node": "n", "text": "loading", "done": 1, "of": 5}),
    ("expect", {"node": "n", "frames": 5, "seconds": 1.5}),
    ("failed", {"node": "n", "text": "why", "exit_status": 1, "retry": False, "quick": False}),
    ("done", {}),
    ("peers", {"incarnations": {"n": 2}}),
    ("down", {"node": "n", "incarnation": 3}),
    ("closed", {"node": "n"}),
    ("gone", {"node": "n"}),
]


@pytest.mark.parametrize(("kind", "fields"), MESSAGES)
def test_control_messages_survive_the_journey(kind: str, fields: dict[str, Any]) -> None:
    assert control.unpack(control.pack(kind, **fields)) == (kind, fields)
    for name in fields:
        less = {key: value for key, value in fields.items() if key != name}
        with pytest.raises(ProtocolError, match=f"'{kind}' needs {name} as"):
            control.pack(kind, **less)
        with pytest.raises(ProtocolError, match=f"'{kind}' needs {name} as"):
            control.unpack(msgpack.packb((kind, {**fields, name: None})))


@given(st.binary(max_size=200))
def test_other_control_messages_are_refused(data: bytes) -> None:
    try:
        kind, _ = control.unpack(data)
    except ProtocolError:
        kind = "refused"
    assert kind in ("refused", "done", "start", "drain", "abort")


def test_control_messages_have_a_largest_size() -> None:
    with pytest.raises(ProtocolError, match="too large"):
        control.unpack(bytes(control.MAX_MESSAGE + 1))
    with pytest.raises(ProtocolError, match="unknown control message 'dance'"):
        control.pack("dance")


def test_the_folder_of_sockets_is_private() -> None:
    held = RunFolder()
    folder = Path(held.path)
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert folder.parent == Path(tempfile.gettempdir())
    held.remove()
    assert not folder.exists()


def test_a_long_temporary_path_leaves_room_for_sockets(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    deep = tmp_path / ("deep" * 25)
    deep.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(deep))
    held = RunFolder()
    folder = held.path
    plan = chain(Path("tape"))
    for link in plan.links:
        address = endpoint_of(folder, plan, link, 10**6)
        assert len(address.removeprefix("ipc://").encode()) <= 107
    assert len(control_endpoint(folder).removeprefix("ipc://").encode()) <= 107
    held.remove()


def test_a_temporary_folder_that_is_not_there_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", "/no/such/folder")
    with pytest.raises(RunError, match="no folder for sockets in /no/such/folder: No such file"):
        RunFolder()


def test_every_link_and_incarnation_has_an_address_of_its_own() -> None:
    plan = chain(Path("tape"))
    addresses = [endpoint_of("/f", plan, link, life) for link in plan.links for life in (1, 2, 11)]
    assert len(set(addresses)) == len(addresses)


def test_a_worker_started_by_hand_says_so() -> None:
    # Its orders come on standard input; here there are none.
    out = subprocess.run(
        [sys.executable, "-m", "streamer.runtime.worker"],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
    )
    assert out.returncode == 1
    assert out.stderr == "streamer.runtime.worker is started by streamer, not by hand\n"


def test_a_process_that_cannot_be_started_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.executable", "/no/such/python")
    with pytest.raises(RunError, match="worker w cannot be started: No such file or directory"):
        WorkerProcess(board_fd=0, name="w")


def test_only_the_present_process_of_a_worker_is_heard() -> None:
    reading, writing = os.pipe()
    worker = WorkerRecord(WorkerPlan(name="w", nodes=("n",)))
    try:
        for life in (b"first", b"second"):
            worker.begin(0.0)
            worker.process = WorkerProcess(board_fd=writing)
            assert not worker.speaks(life), "it has not said who it is"
            worker.identity = life
            assert worker.speaks(life)
            assert not worker.speaks(b"another")
            worker.process.kill()
            worker.process.close()
            worker.process = None
            assert not worker.speaks(life), "what it said comes after its death"
        assert not worker.speaks(b"first")
    finally:
        os.close(reading)
        os.close(writing)
