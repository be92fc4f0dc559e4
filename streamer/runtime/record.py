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
        left_out: nodes that had ended before its present process was started: they are not in it.
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
    left_out: frozenset[str] = frozenset()

    def begin(self, now: float) -> None:
        """A new process of it is started; the time in seconds."""
        self.incarnation += 1
        self.restarts += self.incarnation > 1
        self.spawned_at = now
        self.identity = None
        self.done = self.spared = False
        self.condemned_at = None
        self.cause = ""
        unended = self.unended
        self.left_out = frozenset(self.plan.nodes).difference(unended)
        self.states |= dict.fromkeys(unended, "starting")

    def speaks(self, identity: bytes) -> bool:
        """Whether a message is of its present process, and not of one that has died."""
        return self.process is not None and self.identity == identity

    @property
    def resting(self) -> bool:
        """Whether it waits to be tried again after it has failed too often."""
        return "resting" in self.states.values()

    @property
    def present(self) -> tuple[str, ...]:
        """The nodes of its present or latest process."""
        return tuple(node for node in self.plan.nodes if node not in self.left_out)

    @property
    def unended(self) -> tuple[str, ...]:
        """Its nodes that have neither finished nor been given up."""
        ended = ("finished", "failed")
        return tuple(node for node in self.plan.nodes if self.states.get(node) not in ended)
