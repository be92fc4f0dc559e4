"""Faults of whole runs: supervisors, signals, limits of the system, strangers at sockets."""

from __future__ import annotations

import os
import resource
import signal
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import av
import zmq
from chaos_faults import LIVE, STYLED, Outcome, ended_well, fault
from chaos_rig import demand, show, until

from streamer.link import wire
from streamer.runtime import control


@fault("supervisor-killed", "SIGKILL to the supervisor: its workers close their outputs and end")
def supervisor_killed() -> Outcome:
    with show(LIVE) as one:
        one.flowing("record", frames=60)
        one.process.kill()
        one.process.wait()
        one.nothing_left()
        # Closed properly: the file says how long it is.
        with av.open(str(one.folder / "out.mkv")) as container:
            demand(container.duration, "the recording was not closed")
        return Outcome(None, f"all ended by themselves, {one.plays(at_least=50)} pictures play")


@fault("supervisor-killed-worker-stopped", "SIGKILL to the supervisor while a worker is stopped")
def supervisor_killed_worker_stopped() -> Outcome:
    with show(LIVE) as one:
        one.flowing("obs")
        os.kill(one.pid_of("crop"), signal.SIGSTOP)
        one.process.kill()
        one.process.wait()
        one.nothing_left()
        return Outcome(None, "all ended by themselves, the stopped one, too")


@fault("everything-killed", "SIGKILL to everything at once while recording")
def everything_killed() -> Outcome:
    with show(LIVE) as one:
        one.flowing("record", frames=150)
        seen = one.delivered("record")
        for pid in one.processes():
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        one.process.wait()
        one.nothing_left(swept=True)
        pictures = one.plays(at_least=seen - 60)
        return Outcome(None, f"{pictures} of {seen} pictures play, to within 2 s of the end")


@fault("everything-stopped", "SIGSTOP to everything for 8 s, then SIGCONT", limit=10.0)
def everything_stopped() -> Outcome:
    with show(LIVE) as one:
        one.flowing("obs")

        def harm() -> None:
            pids = one.processes()
            for pid in pids:
                os.kill(pid, signal.SIGSTOP)
            time.sleep(8)
            for pid in pids:
                os.kill(pid, signal.SIGCONT)

        seconds = one.outage("obs", harm)
        time.sleep(3)
        restarts = {name: node["restarts"] for name, node in one.ask()["nodes"].items()}
        demand(not any(restarts.values()), f"taken for hung: {restarts}")
        return Outcome(seconds, f"nobody was taken for hung; {ended_well(one)}")


# ---- signals ---------------------------------------------------------------------------------


def _signalled(*signals: int, graph: str = LIVE) -> Outcome:
    with show(graph) as one:
        one.flowing("record", frames=45)
        status = one.stop(*signals)
        demand(status == 0, f"exit status {status}: {one.last_words()}")
        delivered = one.report()["sinks"]["record"]["delivered"]
        pictures = one.plays(at_least=delivered)
        demand(" of " in one.last_words(), "there are no closing words")
        one.nothing_left()
        return Outcome(None, f"report adds up, all {pictures} pictures play, nothing left")


@fault("sigterm", "SIGTERM: the run drains")
def sigterm() -> Outcome:
    return _signalled(signal.SIGTERM)


@fault("sighup", "SIGHUP, twice: the terminal was closed, the run drains")
def sighup() -> Outcome:
    return _signalled(signal.SIGHUP, signal.SIGHUP)


@fault("ctrl-c", "Ctrl-C: the run drains")
def ctrl_c() -> Outcome:
    return _signalled(signal.SIGINT)


@fault("ctrl-c-twice", "Ctrl-C twice: the run ends at once")
def ctrl_c_twice() -> Outcome:
    return _signalled(signal.SIGINT, signal.SIGINT)


@fault("ctrl-c-at-start", "Ctrl-C while nodes still open")
def ctrl_c_at_start() -> Outcome:
    with show(STYLED) as one:
        one.socket_folder()
        status = one.stop()
        demand(status == 0, f"exit status {status}: {one.last_words()}")
        one.report()
        one.nothing_left()
        return Outcome(None, "exit status 0, report adds up, nothing left")


@fault("ctrl-c-at-once", "Ctrl-C while Python still imports")
def ctrl_c_at_once() -> Outcome:
    with show(LIVE) as one:
        until(lambda: not _catches(one.pid, signal.SIGINT), "it has begun to import")
        one.process.send_signal(signal.SIGINT)
        with suppress(Exception):
            one.process.wait(timeout=60)
        demand(one.process.poll() is not None, "it did not end")
        demand("Traceback" not in one.log.read_text(), f"a traceback: {one.last_words()}")
        one.nothing_left()
        return Outcome(None, "ended without a traceback, nothing left")


def _catches(pid: int, number: int) -> bool:
    """Whether a process has a handler for a signal; Python has one for SIGINT at first."""
    status = Path(f"/proc/{pid}/status").read_text()
    (caught,) = (line.split()[1] for line in status.splitlines() if line.startswith("SigCgt"))
    return bool(int(caught, 16) >> (number - 1) & 1)


@fault("ctrl-c-at-restart", "Ctrl-C while a node is being started again")
def ctrl_c_at_restart() -> Outcome:
    graph = LIVE.replace('"$OUT/trouble"}', '"", open_seconds: 2}')
    with show(graph) as one:
        one.flowing("obs", frames=45)
        os.kill(one.pid_of("style"), signal.SIGKILL)
        until(lambda: one.node("style")["state"] == "opening", "it opens")
        return Outcome(None, ended_well(one))


@fault("log-gone", "whoever reads the log has gone (SIGPIPE)", limit=0.5)
def log_gone() -> Outcome:
    with show(LIVE, piped=True) as one:
        one.flowing("obs")
        seconds = one.outage("obs", one.hang_up)
        os.kill(one.pid_of("style"), signal.SIGKILL)  # which is told, to nobody
        until(one.restarted("style"), "it was started again")
        return Outcome(seconds, ended_well(one))


# ---- parameters and strangers ----------------------------------------------------------------


@fault("set-at-restart", "a parameter changed while its node is being started again", limit=3.0)
def set_at_restart() -> Outcome:
    graph = LIVE.replace('"$OUT/trouble"}', '"", open_seconds: 1}')
    with show(graph) as one:
        one.flowing("obs")

        def harm() -> None:
            os.kill(one.pid_of("style"), signal.SIGKILL)
            until(lambda: one.node("style")["state"] == "opening", "it opens")
            one.set("style.level", 7)

        seconds = one.outage("obs", harm, settled=one.restarted("style"))
        changes_of = ended_well(one)
        (change,) = one.report()["changes"]
        demand(change["first_frame_ms"]["obs"] is not None, "no picture with the change came")
        return Outcome(seconds, f"the change was taken; {changes_of}")


@fault("garbage", "garbage at the control, client and link sockets", limit=0.5)
def garbage() -> Outcome:
    with show(LIVE) as one:
        one.flowing("obs")
        seconds = one.outage("obs", lambda: _garbage(one.socket_folder()))
        return Outcome(seconds, ended_well(one))


def _garbage(folder: Path) -> None:
    context: zmq.Context[Any] = zmq.Context()
    for address in sorted(folder.iterdir()):
        if not address.is_socket():
            continue
        stranger = context.socket(zmq.DEALER)
        stranger.connect(f"ipc://{address}")
        for data in (b"", b"\xff" * 100, b"\x93\x01", os.urandom(5000), bytes(2_000_000)):
            stranger.send(data)
        stranger.send_multipart([b"many", b"parts"])
        stranger.send(control.pack("hello", worker="crop", incarnation=99, pid=1))
        stranger.send(control.pack("done"))
        stranger.send(wire.pack(wire.Credit(1, 0)))
        stranger.send(wire.pack(wire.Hello("nobody", 1, 1, "here", 1)))
        stranger.close(1000)
    context.term()


@fault("no-credits", "a consumer that takes pictures and never gives credit", limit=0.5)
def no_credits() -> Outcome:
    # `obs` hangs in a write, so to speak: its process is stopped, and not watched.
    graph = LIVE.replace(
        'with: {url: "udp://127.0.0.1:9", audio: none},\n        restart: {hang: 4}',
        'with: {url: "udp://127.0.0.1:9", audio: none},\n        restart: {hang: 0}',
    )
    with show(graph) as one:
        one.flowing("obs")
        pid = one.pid_of("obs")
        seconds = one.outage("record", lambda: os.kill(pid, signal.SIGSTOP))
        time.sleep(3)
        demand(one.node("obs")["restarts"] == 0, "it was ended though `hang: 0`")
        os.kill(pid, signal.SIGCONT)
        checked = ended_well(one)
        lost = one.report()["sinks"]["obs"]["dropped"]["replaced"]
        demand(lost > 30, f"{lost} pictures were replaced for the one that took none")
        return Outcome(seconds, f"the other output went on; {checked}")


# ---- limits of the system --------------------------------------------------------------------


@fault("no-descriptors", "no descriptor is left when a worker must be started again")
def no_descriptors() -> Outcome:
    with show(LIVE) as one:
        one.flowing("obs")
        one.spare()
        former = resource.prlimit(one.pid, resource.RLIMIT_NOFILE)

        def harm() -> None:
            # Those that are open stay open; numbers above are not given out any more.
            resource.prlimit(one.pid, resource.RLIMIT_NOFILE, (18, former[1]))
            for name in ("crop", "style"):  # one has the spare process
                os.kill(one.pid_of(name), signal.SIGKILL)
            until(lambda: "Too many open files" in one.log.read_text(), "the cause is told")
            resource.prlimit(one.pid, resource.RLIMIT_NOFILE, former)

        seconds = one.outage("obs", harm, settled=one.restarted("crop", "style"))
        return Outcome(seconds, f"told, and tried again; {ended_well(one)}")


def _refused(graph: str, *said: str, **limits: tuple[int, int]) -> Outcome:
    def limit() -> None:
        for name, values in limits.items():
            resource.setrlimit(getattr(resource, f"RLIMIT_{name}"), values)

    with show(graph, preexec=limit) as one:
        status = one.process.wait(timeout=60)
        demand(status == 1, f"exit status {status}, not 1: {one.last_words()}")
        words = one.log.read_text()
        demand(all(text in words for text in said), f"not told: {said} in {words[-500:]}")
        demand("Traceback" not in words and "defect" not in words, f"a traceback: {words}")
        one.nothing_left()
        return Outcome(None, f"told in a sentence ({said[-1]}), exit status 1, nothing left")


@fault("few-descriptors", "hardly any descriptors from the start (RLIMIT_NOFILE 16)")
def few_descriptors() -> Outcome:
    return _refused(LIVE, "Too many open files", NOFILE=(16, 16))


@fault("no-shared-memory", "no memory for a slab of pictures (RLIMIT_FSIZE holds for memfds)")
def no_shared_memory() -> Outcome:
    graph = LIVE.replace("64x64", "1024x1024")
    return _refused(graph, "no shared memory for", FSIZE=(2_000_000, 2_000_000))
