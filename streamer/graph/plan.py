"""The plan: what a checked graph comes down to, ready to be started. Plain data, sent to workers.

Plans hold nothing to look up: every node has its class, its input links and its worker; every
link has its policy.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any, Literal, Self

Role = Literal["source", "transform", "join", "sink"]
Media = Literal["video", "audio"]


@dataclass(frozen=True, slots=True, kw_only=True)
class RestartPlan:
    """When a node whose process died is started again.

    Attributes:
        policy: `never`; `on-failure`: it died of a signal, hung, met an unforeseen error, or lost
            its camera or server; `always`: that, and it is never given up.
        max: quick restarts within `window`. One more ends the run (`on-failure`), or has the node
            rest before it is tried again (`always`).
        window: seconds; also how long a node must hold out to count as well again.
        rest: seconds of the first rest; it doubles up to 5 minutes.
        hang: seconds that the node's frame loop may stand still before its process is ended, 2 at
            least; 0 for any time.
    """

    policy: Literal["never", "on-failure", "always"]
    max: int
    window: float
    rest: float = 30.0
    hang: float = 20.0


@dataclass(frozen=True, slots=True, kw_only=True)
class NodePlan:
    """One node.

    Attributes:
        name: in the graph, at most 32 characters of `[A-Za-z0-9_-]`.
        uses: kind, as in the graph file.
        entry: `package.module:Class`, to be imported by the worker.
        params: keyword arguments of the node's `Params`, as given and found right (JSON types
            only); defaults are not repeated, so that validating them again gives the same.
        role: which of the four node classes it is.
        live: whether its pictures come from a live source.
        wanted: pixel formats that all its consumers take, best first; empty for sinks.
        wants_audio: for a source: whether some sink takes its audio.
        gpu: ordinal of the CUDA device, or None.
        restart: restart policy.
    """

    name: str
    uses: str
    entry: str
    params: dict[str, Any]
    role: Role
    live: bool
    wanted: tuple[str, ...]
    wants_audio: bool
    gpu: int | None
    restart: RestartPlan


@dataclass(frozen=True, slots=True, kw_only=True)
class LinkPlan:
    """One link.

    Attributes:
        source: name of the producing node.
        target: name of the consuming node.
        input: name of the target's input, the source's name where the graph gives none.
        media: `video`, or `audio` for the packets beside it (from a source straight to a sink).
        queue: `latest` (newest wins) or `wait` (nothing is lost).
        depth: for `latest` pictures that wait in the mailbox; for `wait` pictures that may be
            under way at once.
        leading: whether it is the target's leading input, along which frames are counted.
    """

    source: str
    target: str
    input: str
    media: Media
    queue: Literal["latest", "wait"]
    depth: int
    leading: bool

    @property
    def key(self) -> str:
        """Name in reports, `A->B`; audio links end in `:audio`."""
        return f"{self.source}->{self.target}" + (":audio" if self.media == "audio" else "")


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerPlan:
    """One process and the nodes in it."""

    name: str
    nodes: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """A whole graph: nodes and links in topological order, each node in exactly one worker."""

    name: str
    nodes: tuple[NodePlan, ...]
    links: tuple[LinkPlan, ...]
    workers: tuple[WorkerPlan, ...]
    frames: int | None = field(default=None)
    """sources end after this many pictures"""

    def node(self, name: str) -> NodePlan:
        """The node of a name; raises KeyError."""
        for node in self.nodes:
            if node.name == name:
                return node
        raise KeyError(name)

    def inputs(self, name: str) -> tuple[LinkPlan, ...]:
        """Links into a node, the leading one first."""
        links = [link for link in self.links if link.target == name]
        return tuple(sorted(links, key=lambda link: (link.media == "audio", not link.leading)))

    def outputs(self, name: str) -> tuple[LinkPlan, ...]:
        """Links out of a node."""
        return tuple(link for link in self.links if link.source == name)

    def chain(self, sink: str) -> tuple[LinkPlan, ...]:
        """The leading links from the source that feeds a sink down to the sink itself."""
        chain: list[LinkPlan] = []
        at = sink
        while inputs := self.inputs(at):
            chain.append(inputs[0])
            at = inputs[0].source
        return tuple(reversed(chain))

    def origin(self, name: str) -> str:
        """The source whose stream a node's pictures belong to."""
        chain = self.chain(name)
        return chain[0].source if chain else name

    def own_clocks(self, name: str) -> frozenset[str]:
        """Keys of a node's links with pictures of another live source than the leading link's."""
        links = [link for link in self.inputs(name) if link.media == "video"]
        origins = {link.key: self.origin(link.source) for link in links}
        leading = next(iter(origins.values()), None)
        return frozenset(
            key for key, origin in origins.items() if origin != leading and self.node(origin).live
        )

    def to_dict(self) -> dict[str, Any]:
        """The plan as JSON types."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Self:
        """The plan that `to_dict` gave."""
        return cls(
            name=data["name"],
            nodes=tuple(
                NodePlan(
                    **{
                        **node,
                        "wanted": tuple(node["wanted"]),
                        "restart": RestartPlan(**node["restart"]),
                    }
                )
                for node in data["nodes"]
            ),
            links=tuple(LinkPlan(**link) for link in data["links"]),
            workers=tuple(
                WorkerPlan(name=worker["name"], nodes=tuple(worker["nodes"]))
                for worker in data["workers"]
            ),
            frames=data["frames"],
        )
