"""What comes out of a graph while its model loads, and that nothing else does afterwards."""

from __future__ import annotations

import io
import json
import os
import re
import shutil
import signal
import tempfile
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from e2e_support import ROOT, wait_for, workers_of
from rich.console import Console

import streamer
from streamer.cli.live import TerminalDisplay
from streamer.runtime import Silent, Supervisor
from streamer.runtime.remote import Remote, choose

NODES = Path(__file__).parent


class Shown(NamedTuple):
    """A picture that came out: its time, its generation, its mark, whether it is the source's."""

    pts: int
    generation: int
    passed: bool
    raw: bool


@dataclass
class Watch(Silent):
    """Keeps what is told of a run, and acts on it once in each turn."""

    act: Callable[[Supervisor], Any] = lambda supervisor: None
    texts: list[str] = field(default_factory=list)
    lines: list[str] = field(default_factory=list)
    display: TerminalDisplay | None = None

    def state(self, node: str, state: str, text: str) -> None:
        if node == "style" and text and text not in self.texts:
            self.texts.append(text)
        if self.display is not None:
            self.display.state(node, state, text)

    def line(self, worker: str, text: str) -> None:
        self.lines.append(text)

    def tick(self, supervisor: Supervisor) -> None:
        self.act(supervisor)
        if self.display is not None:
            self.display.tick(supervisor)


class Show:
    """A source, a gated model and a tape."""

    def __init__(self, folder: Path) -> None:
        self.gate, self.tape = folder / "gate", folder / "tape"
        self.watch = Watch()

    def graph(self, *, count: int = 0, **style: Any) -> streamer.Graph:
        style = {"prompt": "ink", "threads": 1, "gate": str(self.gate), **style}
        return streamer.Graph.from_dict(
            {
                "name": "warming",
                "nodes": {
                    "src": {"uses": "warming_nodes:Ticker", "with": {"count": count}},
                    "style": {"uses": "warming_nodes:GatedSdxs", "from": "src", "with": style},
                    "out": {
                        "uses": "warming_nodes:Tape",
                        "from": "style",
                        "with": {"path": str(self.tape)},
                    },
                },
                "workers": {"ends": ["src", "out"]},
            }
        )

    def shown(self) -> list[Shown]:
        if not self.tape.exists():
            return []
        rows = [line.split() for line in self.tape.read_text().splitlines()]
        return [Shown(int(r[0]), int(r[1]), r[2] == "1", r[3] == "1") for r in rows if len(r) == 4]

    def styled(self) -> int:
        return sum(not one.raw for one in self.shown())

    def run(self, act: Callable[[Supervisor], Any], **given: Any) -> streamer.Report:
        """Runs it, with something to be done in each turn; the report adds up."""
        supervisor = Supervisor(self.graph(**given).plan(), self.watch)
        guard = threading.Timer(100, lambda: [supervisor.interrupt() for _ in range(2)])
        guard.start()
        self.watch.act = act
        try:
            report = supervisor.run()
        finally:
            guard.cancel()
            guard.join()
        sink = report.sinks["out"]
        assert sink.captured == sink.delivered + sum(sink.dropped.values())
        assert not {"unaccounted", "in_flight"} & sink.dropped.keys()
        marked = sum(one.passed for one in self.shown())
        assert (report.nodes["out"].passed, sink.delivered) == (marked, len(self.shown()))
        assert (report.nodes["style"].passed or 0) >= marked
        assert workers_of(os.getpid()) == {}
        return report


@pytest.fixture
def show(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Show:
    monkeypatch.syspath_prepend(str(NODES))
    monkeypatch.setattr(tempfile, "tempdir", os.environ["TMPDIR"])
    return Show(tmp_path)


def test_pictures_pass_until_the_model_has_come_and_never_again(show: Show) -> None:
    seen: list[dict[str, Any]] = []
    out = io.StringIO()
    console = Console(file=out, force_terminal=True, width=160, color_system=None)
    show.watch.display = TerminalDisplay(console)

    def steps() -> Iterator[None]:
        while len(show.shown()) < 5:
            yield
        seen.append(supervisors[0].status()["nodes"]["style"])
        wait_for(lambda: "passed on as they came" in drawn(supervisors[0]))
        show.gate.touch()
        while show.styled() < 5:
            yield
        before = len(show.shown())
        os.kill(workers_of(os.getpid())["style"], signal.SIGKILL)
        while len(show.shown()) < before + 20:
            yield
        supervisors[0].interrupt()

    def drawn(supervisor: Supervisor) -> str:
        assert show.watch.display is not None
        show.watch.display.tick(supervisor)
        return out.getvalue()

    supervisors: list[Supervisor] = []
    going = steps()

    def act(supervisor: Supervisor) -> None:
        supervisors[:] = [supervisor]
        next(going, None)

    with show.watch.display:
        report = show.run(act)
    assert (report.exit_status, report.nodes["style"].restarts) == (0, 1), show.watch.lines
    shown = show.shown()
    assert all(a.pts < b.pts for a, b in pairwise(shown))
    assert all(one.raw == one.passed for one in shown)
    # All that passed came before all that are styled, and so it was when the process was killed.
    assert [one.raw for one in shown] == sorted((one.raw for one in shown), reverse=True)
    assert sum(one.raw for one in shown) >= 5
    assert report.nodes["style"].repeated == 0
    (then,) = seen
    assert then["passed"] >= 1
    assert (then["doing"], then["done"], then["of"]) == ("waiting for the gate", 0, 2)
    assert show.watch.texts[:3] == [
        "waiting for the gate",
        "loading the model bundled",
        "painting the first picture of 64x64",
    ]
    assert re.search(r"style: waiting for the gate, 0/2; \d+ pictures passed on", out.getvalue())
    assert f"style: {report.nodes['style'].passed} pictures passed on as they" in out.getvalue()


@pytest.mark.parametrize(("count", "loading"), [(0, "hold"), (12, "auto")])
def test_nothing_comes_out_unstyled_where_pictures_are_held(
    show: Show, count: int, loading: str
) -> None:
    asked: list[int] = []

    def act(supervisor: Supervisor) -> None:
        asked.append(len(show.shown()))
        if len(asked) == 4:
            show.gate.touch()
        if not count and show.styled() >= 5:
            supervisor.interrupt()

    report = show.run(act, count=count, loading=loading)
    assert report.exit_status == 0, show.watch.lines
    assert asked[:4] == [0] * 4
    assert not any(one.raw or one.passed for one in show.shown())
    assert report.nodes["style"].passed == 0
    if count:
        assert [one.pts for one in show.shown()] == list(range(count))


def test_a_model_that_cannot_be_loaded_after_all_ends_the_run_with_its_sentence(
    show: Show, tmp_path: Path
) -> None:
    model = shutil.copytree(ROOT / "nodes/sdxs/bundled", tmp_path / "model")
    config = json.loads((model / "config.json").read_text())
    config["styles"].append("charcoal")  # of which the weights know nothing
    (model / "config.json").write_text(json.dumps(config))

    def act(supervisor: Supervisor) -> None:
        if len(show.shown()) >= 3:
            show.gate.touch()

    report = show.run(act, model=str(model))
    (error,) = report.errors
    assert error.startswith(f"style: the model {model} cannot be loaded: ")
    assert error.endswith("for 7 styles")
    assert report.exit_status == 2
    assert report.nodes["style"].restarts == 0
    assert all(one.raw and one.passed for one in show.shown())
    assert report.nodes["style"].passed


def test_a_change_while_the_model_loads_waits_for_it(show: Show) -> None:
    answers: list[object] = []

    def ask() -> None:
        with Remote(choose(str(os.getpid()))) as remote:
            answers.append(remote.set("style.prompt", "comic"))

    asking = threading.Thread(target=ask)

    def steps(supervisor: Supervisor) -> Iterator[None]:
        while len(show.shown()) < 3:
            yield
        asking.start()
        before = len(show.shown())
        while len(show.shown()) < before + 20:
            yield
        assert not answers
        show.gate.touch()
        while not any(one.generation for one in show.shown()):
            yield
        supervisor.interrupt()

    going: list[Iterator[None]] = []

    def act(supervisor: Supervisor) -> None:
        going[:] = going or [steps(supervisor)]
        next(going[0], None)

    report = show.run(act)
    asking.join()
    assert report.exit_status == 0, show.watch.lines
    assert [change.path for change in report.changes] == ["style.prompt"]
    assert len(answers) == 1
    # A picture that passed was made by no parameters, whatever has been asked for.
    assert all(not one.raw for one in show.shown() if one.generation)
    assert [one.raw for one in show.shown()][:3] == [True] * 3


def test_an_interrupt_while_the_model_loads_ends_properly(show: Show) -> None:
    def act(supervisor: Supervisor) -> None:
        if len(show.shown()) >= 3:
            supervisor.hang_up()

    report = show.run(act)  # the gate never opens
    assert (report.exit_status, report.errors) == (0, []), show.watch.lines
    assert all(one.raw and one.passed for one in show.shown())
    assert not [line for line in show.watch.lines if "Fatal" in line or "Traceback" in line]
