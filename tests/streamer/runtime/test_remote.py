"""A run that is asked and does not answer at once: busy, stopped or ended, and which it was."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import zmq

from streamer.errors import RunError
from streamer.runtime import remote
from streamer.runtime.clients import ClientDesk
from streamer.runtime.folder import RunFolder
from streamer.runtime.remote import Remote, RunningGraph


@pytest.fixture
def folder() -> Iterator[RunFolder]:
    made = RunFolder()
    yield made
    made.remove()


def asked(folder: RunFolder, *, pid: int) -> int:
    with Remote(RunningGraph("show", pid, Path(folder.path))) as connection:
        return int(connection.report()["answer"])


def test_a_busy_run_is_waited_for(folder: RunFolder) -> None:
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    desk = ClientDesk(context, folder.path)

    def answer_late() -> None:
        desk.socket.poll()
        time.sleep(6)
        for request in desk.requests():
            desk.answer(request.identity, "report", report={"answer": 42})

    thread = threading.Thread(target=answer_late)
    thread.start()
    try:
        assert asked(folder, pid=os.getpid()) == 42
    finally:
        thread.join()
        desk.close()
        context.term()


def test_one_that_is_too_busy_is_said_to_be_that(
    folder: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote, "BUSY", 1.0)
    with pytest.raises(RunError, match=r"has not answered within 1 s, although .* too busy"):
        asked(folder, pid=os.getpid())


def test_one_that_is_stopped_is_said_to_be_that(folder: RunFolder) -> None:
    program = "import time; print(flush=True); time.sleep(600)"
    command = [sys.executable, "-c", program]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None
            process.stdout.readline()
            process.send_signal(signal.SIGSTOP)
            os.waitid(os.P_PID, process.pid, os.WSTOPPED | os.WNOWAIT)
            with pytest.raises(RunError, match=f"is stopped.*kill -CONT {process.pid}"):
                asked(folder, pid=process.pid)
        finally:
            process.kill()


def test_one_that_ends_meanwhile_is_said_to_have_ended(folder: RunFolder) -> None:
    folder.remove()
    with pytest.raises(RunError, match=r"show \(pid \d+\) has ended"):
        asked(folder, pid=os.getpid())
