"""What the supervisor knows of one worker, across all its processes."""

from __future__ import annotations

from dataclasses import dataclass, field

from streamer.graph.plan import WorkerPlan
from streamer.runtime.process import WorkerProcess


@dataclass(slots=True)
class WorkerRecord:
    """One worker.

    Attributes:
        plan: its name and nodes.
        process: None while none runs.
        incarnation: number of the present or latest process, from 1.
        restarts: times of its restarts, seconds of `time.monotonic`.
        start_at: when the next process is to be started; None if none is.
        identity: name of its control connection; None before its hello.
        done: its process has said that all its nodes ended and all frames were given back.
        done_at: when.
        over: no process of it runs, and none will be started.
        peak_mb: highest resident memory, MiB.
        states: of its nodes.
    """

    plan: WorkerPlan
    process: WorkerProcess | None = None
    incarnation: int = 0
    restarts: list[float] = field(default_factory=list)
    start_at: float | None = None
    identity: bytes | None = None
    done: bool = False
    done_at: float = 0.0
    over: bool = False
    peak_mb: float = 0.0
    states: dict[str, str] = field(default_factory=dict)

    @property
    def finished(self) -> bool:
        """Whether all its nodes have closed."""
        return all(state == "finished" for state in self.states.values())
