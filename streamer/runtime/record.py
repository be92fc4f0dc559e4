"""What the supervisor knows of one worker, across all its processes."""

from __future__ import annotations

from dataclasses import dataclass, field

from streamer.graph.plan import WorkerPlan
from streamer.runtime.process import WorkerProcess
from streamer.runtime.restart import Breaker


@dataclass(slots=True)
class WorkerRecord:
    """One worker.

    Attributes:
        plan: its name and nodes.
        process: None while none runs.
        incarnation: number of the present or latest process, from 1.
        spawned_at: when it was started, seconds of `time.monotonic`.
        breaker: decides on its restarts.
        restarts: how often it was started again.
        start_at: when the next process is to be started; None if none is.
        identity: name of its control connection; None before its hello.
        done: its process has said that all its nodes ended and all frames were given back.
        done_at: when.
        over: no process of it runs, and none will be started.
        cause: why its process ends, in words, as far as somebody has said.
        condemned_at: when it was found to hang; its process is to be ended. None if it does not.
        spared: a node has failed in a way that a quick new start does not mend.
        last_failure: how its latest process died, in words.
        peak_mb: highest resident memory, MiB.
        states: of its nodes.
    """

    plan: WorkerPlan
    process: WorkerProcess | None = None
    incarnation: int = 0
    spawned_at: float = 0.0
    breaker: Breaker = field(default_factory=Breaker)
    restarts: int = 0
    start_at: float | None = None
    identity: bytes | None = None
    done: bool = False
    done_at: float = 0.0
    over: bool = False
    cause: str = ""
    condemned_at: float | None = None
    spared: bool = False
    last_failure: str = ""
    peak_mb: float = 0.0
    states: dict[str, str] = field(default_factory=dict)

    def begin(self, now: float) -> None:
        """A new process of it is started; the time in seconds."""
        self.incarnation += 1
        self.restarts += self.incarnation > 1
        self.spawned_at = now
        self.identity = None
        self.done = self.spared = False
        self.condemned_at = None
        self.cause = ""
        self.states = dict.fromkeys(self.plan.nodes, "starting")

    def speaks(self, identity: bytes) -> bool:
        """Whether a message is of its present process, and not of one that has died."""
        return self.process is not None and self.identity == identity

    @property
    def resting(self) -> bool:
        """Whether it waits to be tried again after it has failed too often."""
        return "resting" in self.states.values()

    @property
    def finished(self) -> bool:
        """Whether all its nodes have closed."""
        return all(state == "finished" for state in self.states.values())
