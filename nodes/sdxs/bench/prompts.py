"""How soon a changed prompt is seen at the end of a running graph."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

import streamer
from nodes.sdxs.bench.graphs import FEW_FPS, graph
from nodes.sdxs.bench.probe import Arrival, arrivals
from streamer.bench.acceptance.goals import Conditions, Outcome
from streamer.errors import RunError
from streamer.runtime.remote import Remote, running_graphs

_FPS: Final = 60
_CHANGES: Final = ("a forest in winter", "a red car", "the sea at night", "an old map", "a cat")
WITHIN: Final = 2
"""pictures of the former prompt that may still come after the change was asked for"""
_PATIENCE: Final = 120.0


def change(conditions: Conditions) -> Outcome:
    """Changes the prompt of a running graph, several times, to texts that it has not seen."""
    path = conditions.folder / "arrivals"
    fps, prompts = (FEW_FPS, _CHANGES[:1]) if conditions.fake else (_FPS, _CHANGES)
    plan = graph(conditions, fps=fps, out=("nodes.sdxs.bench.probe:Probe", {"path": str(path)}))
    errors: list[RunError] = []

    def run() -> None:
        try:
            streamer.run(plan)
        except RunError as error:
            errors.append(error)

    running = threading.Thread(target=run)
    running.start()
    try:
        found = [_change(plan.name, path, prompt, running) for prompt in prompts]
    finally:
        running.join()
    if errors:
        raise errors[0]
    late = [behind for behind, _ in found]
    waits = [ms for _, ms in found]
    text = (
        f"{max(late)} pictures of the former prompt at most, of {len(found)} changes at {fps} FPS; "
        f"the first new one after {max(waits):.0f} ms at most"
    )
    figures = {"fps": fps, "former_pictures": late, "first_new_ms": [round(ms, 2) for ms in waits]}
    return Outcome(text, max(late) <= WITHIN, figures)


def behind(seen: Sequence[Arrival], asked_ns: int, generation: int) -> tuple[int, float] | None:
    """What came between the asking for a change and the first picture made with it.

    Args:
        seen: pictures in the order of their coming.
        asked_ns: when it was asked for.
        generation: of the pictures made with it.

    Returns:
        Pictures of former generations, and milliseconds; None if no new one has come.
    """
    since = [one for one in seen if one.when_ns >= asked_ns]
    for count, one in enumerate(since):
        if one.generation >= generation:
            return count, (one.when_ns - asked_ns) / 1e6
    return None


def _change(name: str, path: Path, prompt: str, running: threading.Thread) -> tuple[int, float]:
    """Waits for the pace of the clip, and changes the prompt."""
    before = len(arrivals(path)) if path.exists() else 0
    _until(lambda: path.exists() and len(arrivals(path)) >= max(before + 2, 6), running)
    run = next(run for run in running_graphs() if run.graph == name)
    with Remote(run) as remote:
        asked = time.monotonic_ns()
        generation = remote.set("style.prompt", prompt)
    _until(lambda: behind(arrivals(path), asked, generation) is not None, running)
    found = behind(arrivals(path), asked, generation)
    assert found is not None
    return found


def _until(holds: Callable[[], bool], running: threading.Thread) -> None:
    until = time.monotonic() + _PATIENCE
    while not holds():
        if not running.is_alive() or time.monotonic() > until:
            raise RunError("the graph has ended before the change could be seen")
        time.sleep(0.002)
