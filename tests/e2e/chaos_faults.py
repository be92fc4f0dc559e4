"""The list of faults, and those of workers and nodes; `chaos_faults_runs` and `_outside` add more.

A fault is a function that makes a run, does it harm, and checks what must hold. It returns the
seconds until pictures flowed again, or None where none are to flow, and says what was checked.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from chaos_rig import Show, demand, show, until

LIVE: Final = """version: 1
name: chaos
nodes:
  camera: {uses: decoder, with: {url: "$CLIP", realtime: true, loop: true}, restart: {hang: 4}}
  crop: {uses: preprocess, from: camera, with: {size: 64x64}, restart: {hang: 4}}
  style: {uses: "chaos_nodes:Trouble", from: crop, with: {trigger: "$OUT/trouble"},
          restart: {hang: 4}}
  obs: {uses: encoder, from: style, with: {url: "udp://127.0.0.1:9", audio: none},
        restart: {hang: 4}}
  record: {uses: encoder, from: style, restart: {hang: 4},
           with: {url: "$OUT/out.mkv", options: {tune: zerolatency}}}
"""
"""A camera of a clip that plays for ever, to a stream and a recording."""
STYLED: Final = """version: 1
name: chaos
nodes:
  camera: {uses: decoder, with: {url: "$CLIP", realtime: true, loop: true}}
  crop: {uses: preprocess, from: camera, with: {size: 128x128}}
  style: {uses: sdxs, from: crop}
  obs: {uses: encoder, from: style, with: {url: "udp://127.0.0.1:9", audio: none}}
"""
"""The same with the bundled model."""


@dataclass(frozen=True)
class Outcome:
    """What came of a fault.

    Attributes:
        seconds: until pictures flowed again; None where they are not to.
        checked: what was found to hold, in a few words.
    """

    seconds: float | None
    checked: str


@dataclass(frozen=True)
class Fault:
    """One fault.

    Attributes:
        name: for `--only`.
        what: in a few words.
        make: does it, and checks what must hold.
        limit: seconds within which pictures must flow again; 0 where nothing is promised.
    """

    name: str
    what: str
    make: Callable[[], Outcome]
    limit: float


FAULTS: Final[dict[str, Fault]] = {}


def fault(
    name: str, what: str, *, limit: float = 0.0
) -> Callable[[Callable[[], Outcome]], Callable[[], Outcome]]:
    """Adds a fault to the list."""

    def add(make: Callable[[], Outcome]) -> Callable[[], Outcome]:
        assert name not in FAULTS, name
        FAULTS[name] = Fault(name, what, make, limit)
        return make

    return add


def ended_well(one: Show, *, playing: bool = True, status: int = 0) -> str:
    """Ends a run by Ctrl-C and checks what is left of it."""
    code = one.stop()
    demand(code == status, f"exit status {code}, not {status}: {one.last_words()}")
    report = one.report()
    checked = "report adds up, nothing left"
    if playing:
        delivered = report["sinks"]["record"]["delivered"]
        # Of a file that is cut off up to 2 seconds may be missing.
        cut_off = report["nodes"]["record"]["restarts"] * 60
        pictures = one.plays(at_least=delivered - cut_off)
        checked += f", {pictures} pictures play"
    one.nothing_left()
    return checked


# ---- workers that die, and are started again -------------------------------------------------


def _worker_dies(victim: str, number: int, *, found: float = 0.0) -> Outcome:
    styled = victim == "model"
    node, sink = ("style", "obs") if styled else (victim, "record" if victim == "record" else "obs")
    with show(STYLED if styled else LIVE) as one:
        one.flowing(sink)
        one.spare()
        before = one.descriptors()
        pid = one.pid_of(node)
        seconds = one.outage(
            sink, lambda: os.kill(pid, number), settled=one.restarted(node), seconds=found + 30
        )
        said = one.node(node)["last_failure"]
        name = signal.Signals(number).name
        wanted = "was stopped" if number == signal.SIGSTOP else name
        demand(wanted in said, f"the cause is told as {said!r}")
        until(lambda: one.descriptors() <= before + 1, "no descriptor is left open", seconds=10)
        return Outcome(seconds, ended_well(one, playing=not styled))


def _add_worker_faults() -> None:
    nodes = {"camera": "decoder", "crop": "preprocess", "obs": "encoder", "record": "recording"}
    for victim, kind in {**nodes, "model": "sdxs"}.items():
        load = 4.0 if victim == "model" else 0.0
        for number in (signal.SIGKILL, signal.SIGSEGV, signal.SIGBUS):
            fault(
                f"{number.name.lower()}-{victim}",
                f"{number.name} to the process of the {kind}",
                limit=1.0 + load,
            )(lambda victim=victim, number=number: _worker_dies(victim, number))
        found = 10.0 if victim == "model" else 2.0
        fault(
            f"sigstop-{victim}",
            f"SIGSTOP to the process of the {kind}, found within {found:.0f} s",
            limit=found + 1.5 + load,
        )(lambda victim=victim, found=found: _worker_dies(victim, signal.SIGSTOP, found=found))


_add_worker_faults()


def _node_misbehaves(trouble: str, said: str, *, restarts: int = 1) -> Outcome:
    with show(LIVE) as one:
        one.flowing("obs")
        one.spare()
        trigger = one.folder / "trouble"
        settled = one.restarted("style") if restarts else lambda: not trigger.exists()
        seconds = one.outage("obs", lambda: _write(trigger, trouble), settled=settled)
        if restarts:
            failure = one.node("style")["last_failure"]
            demand(said in failure, f"the cause is told as {failure!r}, not {said!r}")
        return Outcome(seconds, ended_well(one))


def _write(file: Path, text: str) -> None:
    part = file.with_suffix(".part")
    part.write_text(text)
    part.rename(file)


@fault("node-raises", "an error that nobody foresaw in process()", limit=1.0)
def node_raises() -> Outcome:
    return _node_misbehaves("raise", "RuntimeError: nobody foresaw this")


@fault("node-memory", "MemoryError in process()", limit=1.0)
def node_memory() -> Outcome:
    return _node_misbehaves("memory", "MemoryError")


@fault("node-exits", "the process of a node exits with status 0", limit=1.0)
def node_exits() -> Outcome:
    return _node_misbehaves("exit", "ended with status 0")


@fault("node-aborts", "the process of a node calls abort()", limit=1.0)
def node_aborts() -> Outcome:
    return _node_misbehaves("abort", "was killed by SIGABRT at picture")


@fault("node-hangs", "process() does not return, found within 4 s", limit=5.5)
def node_hangs() -> Outcome:
    return _node_misbehaves("hang", "has not moved for 4 s (hung in process())")


@fault("node-keeps-lock", "process() keeps Python's lock for ever, found within 4 s", limit=5.5)
def node_keeps_lock() -> Outcome:
    return _node_misbehaves("lock", "has not moved for ")


@fault("node-refuses-frame", "one picture cannot be processed", limit=0.5)
def node_refuses_frame() -> Outcome:
    return _node_misbehaves("frame", "", restarts=0)


@fault("node-leaves-children", "a killed node had started a program of its own", limit=1.0)
def node_leaves_children() -> Outcome:
    return _node_misbehaves("children", "was killed by SIGKILL")


@fault("node-fails-for-good", "a node of a live graph cannot go on: it rests", limit=4.0)
def node_fails_for_good() -> Outcome:
    graph = LIVE.replace(
        'trigger: "$OUT/trouble"},\n          restart: {hang: 4}',
        'trigger: "$OUT/trouble"},\n          restart: {rest: 1}',
    )
    with show(graph) as one:
        one.flowing("obs")
        trigger = one.folder / "trouble"
        seconds = one.outage("obs", lambda: _write(trigger, "fail"), settled=one.restarted("style"))
        demand("trying again in 1 s" in one.log.read_text(), "the rest is not told")
        return Outcome(seconds, ended_well(one))


@fault("poisoned-pictures", "every 60th picture kills whatever processes it")
def poisoned() -> Outcome:
    graph = LIVE.replace('"$OUT/trouble"}', '"", fatal_every: 60}')
    graph = graph.replace("restart: {hang: 4}}\n  obs", "restart: {max: 100}}\n  obs")
    with show(graph) as one:
        one.flowing("obs", frames=150)
        demand("SIGSEGV at picture" in one.log.read_text(), "the picture is not named")
        restarts = one.node("style")["restarts"]
        demand(restarts >= 2, f"{restarts} restarts")
        checked = ended_well(one)
        crashed = one.report()["sinks"]["obs"]["dropped"]["crashed"]
        return Outcome(None, f"{restarts} deaths, {crashed} pictures crashed; {checked}")


@fault("two-at-once", "two workers killed at once", limit=1.5)
def two_at_once() -> Outcome:
    return _several("camera", "style")


@fault("all-workers", "all workers killed at once", limit=2.5)
def all_workers() -> Outcome:
    return _several("camera", "crop", "style", "obs", "record")


def _several(*victims: str) -> Outcome:
    with show(LIVE) as one:
        one.flowing("obs")
        pids = [one.pid_of(node) for node in victims]

        def harm() -> None:
            for pid in pids:
                os.kill(pid, signal.SIGKILL)

        seconds = one.outage("obs", harm, settled=one.restarted(*victims))
        return Outcome(seconds, ended_well(one))


@fault("killed-while-opening", "a worker killed again while it opens after a kill", limit=5.0)
def killed_while_opening() -> Outcome:
    graph = LIVE.replace('"$OUT/trouble"}', '"", open_seconds: 1}')
    with show(graph) as one:
        one.flowing("obs")

        def harm() -> None:
            os.kill(one.pid_of("style"), signal.SIGKILL)
            until(lambda: one.node("style")["state"] == "opening", "it opens")
            os.kill(one.pid_of("style"), signal.SIGKILL)

        seconds = one.outage("obs", harm, settled=one.restarted("style"))
        demand(one.node("style")["restarts"] == 2, "it was not started twice")
        return Outcome(seconds, ended_well(one))


@fault("killed-before-start", "a worker killed while it opens for the first time")
def killed_before_start() -> Outcome:
    held = STYLED.replace(
        "{uses: sdxs, from: crop}", "{uses: sdxs, from: crop, with: {loading: hold}}"
    )
    with show(held) as one:
        pid = until(lambda: _opening(one, "style"), "the model is being loaded")
        os.kill(pid, signal.SIGKILL)
        status = one.process.wait(timeout=60)
        demand(status == 1, f"exit status {status}, not 1")
        demand("style was killed by SIGKILL" in one.log.read_text(), "the cause is not told")
        one.report()
        one.nothing_left()
        return Outcome(None, "one clear error, exit status 1, nothing left")


def _opening(one: Show, node: str) -> int | None:
    if not list(one.temporary.glob("streamer-*/run.json")):
        return None
    found = one.node(node)
    return found.get("pid") if found["state"] == "opening" else None
