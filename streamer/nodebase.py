"""What a node is: the classes to derive from, and the decorator for a node of one function.

A node is made of checked parameters, opened in its worker, given frames one at a time, and closed.
The module of a node is imported by `streamer check` too, so heavy imports (torch, av, cv2) belong
in `open` or in the methods that need them.

A transform of one function::

    @streamer.node
    def invert(frame: streamer.Frame, *, strength: float = 1.0) -> np.ndarray:
        return (frame.numpy() * (1 - strength) + (255 - frame.numpy()) * strength).astype("uint8")
"""

from __future__ import annotations

import inspect
import logging
import threading
from collections.abc import Callable, Iterator, Mapping
from fractions import Fraction
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Protocol, TypeVar, get_type_hints

from pydantic import BaseModel, ConfigDict, create_model

from streamer.audio import Packet
from streamer.drops import Drop
from streamer.frame import Frame
from streamer.header import Header
from streamer.status import Count, Status

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt


class Params(BaseModel):
    """Base of a node's parameters.

    Every field has a description; a unit goes into `json_schema_extra={"unit": "s"}`. Unknown
    names are refused.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


P = TypeVar("P", bound=Params)


class Context(Protocol):
    """What the runtime offers a node while it is open.

    Attributes:
        name: the node's name in the graph.
        log: logger whose lines appear under the node's name.
        live: whether the node is fed by a live source, so that newest wins over complete.
        newest: whether the leading input gives the newest picture alone (its queue is `latest`),
            and leaves out those that came while the node was busy.
        wanted: pixel formats that every consumer of this node takes, best first.
        gpu: ordinal of the CUDA device given to the node, or None.
        stopping: set when the run is to end; a source that waits must look at it, and a sink that
            waits for its server. A sink still gets what is under way, and then the end.
        incarnation: 1 for the first start of the node in this run, 2 after a restart, and so on.
        input_names: names of the inputs in the order of the graph, the leading one first.
        wants_audio: for a source, whether some sink will take audio packets.
        alone: for a sink, whether it is the only one, so that no other waits when it waits.
    """

    name: str
    log: logging.Logger
    live: bool
    newest: bool
    wanted: tuple[str, ...]
    gpu: int | None
    stopping: threading.Event
    incarnation: int
    input_names: tuple[str, ...]
    wants_audio: bool
    alone: bool

    def allocate(
        self,
        width: int,
        height: int,
        format: str = "rgb24",
        *,
        like: Header | None = None,
        pts: int | None = None,
        time_base: Fraction | None = None,
        capture_ns: int | None = None,
    ) -> Frame:
        """A writable frame in the node's output slab; returning or yielding it makes no copy.

        A transform passes `like=frame.header`, so that the stream, number and times pass through.
        A source passes `pts` and `time_base` instead and gets the next number of its stream.
        Where a file is processed this waits until a slot is free; in a live graph it does not
        wait: without a free slot the pixels go to scratch memory and the frame counts as dropped
        (`no_slot`). A frame that is neither returned nor yielded must be released.

        The frame is in the GPU's memory where the graph gives the node a GPU and its class says
        that `memory` has `cuda`; then it is filled through `cupy()`, `torch()` or `write()`.

        Args:
            width: pixels.
            height: pixels.
            format: one of `streamer.formats.FORMATS`.
            like: header of the frame that this one is made from.
            pts: presentation time, for sources.
            time_base: seconds in one unit of `pts`, for sources.
            capture_ns: CLOCK_MONOTONIC of the capture; now by default, for sources.

        Raises:
            TypeError: neither `like` nor both of `pts` and `time_base` were given.
            NodeError: there is no such picture: an unknown format, a side out of range or odd.
            SlabError: the memory cannot be had, or the node itself keeps all slots.
            FrameError: a GPU's memory is short for now; the frame that is being processed counts
                as dropped (`no_slot`), and the node goes on.
        """
        ...

    def drop(self, reason: Drop, count: int = 1) -> None:
        """Counts frames that will not go on.

        A source counts what it captured in vain. A transform or join counts the frame that it is
        processing, once, and returns None for it. A sink counts what it took but did not deliver.
        """
        ...

    def repeated(self, *, spoiled: bool = False) -> None:
        """For transforms: counts that the result of a former picture is shown again.

        Args:
            spoiled: because none could be made of this one, not because none was needed.
        """
        ...

    def pass_on(self, frame: Frame) -> Frame:
        """For transforms that are not ready yet: a picture as it came, for `process` to return.

        It is one copy, counted, in a slot of the outlet. It is marked (`header.passed`), it counts
        as `passed` here and at the outputs that deliver it, and it is never taken for a picture
        made with the node's parameters.

        Args:
            frame: that is being processed; in a format that the node makes.

        Raises:
            FrameError: as `allocate` does.
        """
        ...

    def warming(self, on: bool) -> None:
        """For transforms that get ready beside their frame loop: says that it begins, or has ended.

        Libraries that are loaded meanwhile may keep Python's lock, and with it all of the process,
        for longer than a node may stand still else.
        """
        ...

    def call(self, function: Callable[[], None]) -> None:
        """Has the node's own thread call a function between two pictures; from any thread.

        An error that it raises is the node's.
        """
        ...

    def leave(self, thread: threading.Thread) -> None:
        """For `close`: says that a daemon thread is left in a call that nobody can end.

        The process ends without it.
        """
        ...

    def delivered(self, header: Header) -> None:
        """For sinks with `deferred`: the picture has left (was written, sent or muxed)."""
        ...

    def expect(self, *, frames: int | None = None, seconds: float | None = None) -> None:
        """For sources of known length: what the progress bar shall count up to."""
        ...

    def note(self, text: str, *, done: int = 0, of: int = 0) -> None:
        """Says what the node is doing (`loading the U-Net`), for the live display.

        Args:
            text: in a few words; empty when it is done.
            done: parts of the whole that are done.
            of: how many there are, from 1, for a progress bar; 0 if that is not known.
        """
        ...

    def status(self, status: Status, text: str = "") -> None:
        """For sources and sinks: says how the connection to the outside stands, when that changes.

        A return to LIVE from RECONNECTING counts as one reconnect; the time between is reported.

        Args:
            status: as of now.
            text: why, in a few words, without credentials: `nothing listens at cam port 554`.
        """
        ...

    def count(self, what: Count, count: int = 1) -> None:
        """Counts what is no frame of the balance: mended times, pictures that fill a gap."""
        ...

    def viewers(self, count: int) -> None:
        """For sinks that others watch: how many do so now."""
        ...

    def alive(self) -> None:
        """Says that the node is not hung; for loops of its own that wait or work for long.

        The runtime sees every frame and every wait for one; a node that is silent for longer
        than its `hang` limit is ended and started again.
        """
        ...


class Node(Generic[P]):
    """Base of all nodes; derive from `Source`, `Transform`, `Join` or `Sink`.

    Attributes:
        Params: class of the parameters; `self.params` is an instance of it.
        context: set before `open` is called.
    """

    Params: type[Params] = Params
    accepts: ClassVar[tuple[str, ...]] = ("rgb24",)
    """pixel formats taken on every input, best first"""
    memory: ClassVar[tuple[str, ...]] = ("host",)
    """where frames may lie that it takes and makes, best first: `host`, `cuda` (with `gpu: N`)"""
    preload: ClassVar[tuple[str, ...]] = ()
    """modules that `open` imports and that take long to; live graphs keep a spare process that has
    them, so that a node whose process died is back sooner"""

    params: P
    context: Context

    def __init__(self, params: P) -> None:
        self.params = params

    def open(self) -> None:
        """Gets ready: loads the model, opens the device; an error ends the run before it starts."""

    def prepare(self, params: P) -> Any:
        """Gets ready for changed parameters; in another thread, while pictures go on.

        What takes time belongs here: a prompt's embedding, a model's weights. Called for changes
        of fields that say `json_schema_extra={"live": True}`, one at a time and in order, the next
        one when this one has been taken or refused.

        Args:
            params: the new ones, checked.

        Returns:
            Whatever `update` needs.

        Raises:
            StreamerError: they cannot be taken; the former ones hold.
        """
        return None

    def update(self, params: P, prepared: Any) -> None:
        """Takes changed parameters, between two pictures; must be quick.

        Args:
            params: the new ones.
            prepared: what `prepare` returned for them.
        """
        self.params = params

    def close(self) -> None:
        """Frees what `open` took; called once, also after an error."""

    def __repr__(self) -> str:
        shown = ", ".join(f"{k}={v!r}" for k, v in self.params.model_dump().items())
        return f"{type(self).__name__}({shown})"


class Source(Node[P]):
    """A node without inputs."""

    accepts = ()

    @classmethod
    def is_live(cls, params: Any) -> bool:
        """Whether frames come at their own pace (a camera), so that slow consumers must drop.

        Called when a graph is planned, without opening anything.
        """
        return False

    def frames(self) -> Iterator[Frame | Packet]:
        """Yields frames from `context.allocate`, and audio packets; ends at the end of the source.

        Where `context.wants_audio` and there is sound, a packet without data comes before the
        first frame and announces the format; without it the stream is taken to be silent. The
        runtime closes the generator when the run drains.
        """
        raise NotImplementedError


class Transform(Node[P]):
    """A node of one input and one output."""

    emits: ClassVar[tuple[str, ...]] = ("rgb24",)
    """pixel formats that it can make"""

    def process(self, frame: Frame) -> Frame | npt.NDArray[np.uint8] | None:
        """Makes one picture from one picture.

        Args:
            frame: valid during this call; `frame.hold()` keeps it longer, two at a time at most:
                of more than that keep copies.

        Returns:
            A frame from `context.allocate` (no copy), or an array of its own (one copy, counted),
            rgb24 if of shape (height, width, 3) and gray if of shape (height, width); or None,
            which drops the frame with reason `filtered`, unless `context.drop` gave another.
            A frame of its own may be kept, to be read, by `hold()` before it is returned.

        Raises:
            FrameError: this frame cannot be processed; it is dropped and the node goes on.
        """
        raise NotImplementedError


class Join(Node[P]):
    """A node of several inputs; the first one leads, one picture out for each of its pictures."""

    emits: ClassVar[tuple[str, ...]] = ("rgb24",)
    partial: ClassVar[bool] = False
    """whether inputs that have sent nothing yet are passed as None; else the leader is dropped"""

    def process(self, frames: Mapping[str, Frame | None]) -> Frame | npt.NDArray[np.uint8] | None:
        """Makes one picture from one of each input, by input name; the leading input comes first.

        Of the other inputs, each gives its newest picture that is not later than the leader's; one
        of another live source, whose clock is its own, its newest.
        """
        raise NotImplementedError


class Sink(Node[P]):
    """A node without outputs."""

    deferred: ClassVar[bool] = False
    """whether `context.delivered` is called by the sink itself, later than `process` returns"""

    @classmethod
    def claims(cls, params: Any) -> Mapping[str, str]:
        """What this output must have for itself, by the parameter that names it.

        Two outputs of a graph that claim the same thing are a mistake in it. Called when a graph
        is checked, without opening anything; files given as `url` are looked after anyway.

        Returns:
            such as `{"url": "udp://127.0.0.1:5004"}`; the text is compared, and never shown.
        """
        return {}

    def takes_audio(self) -> bool:
        """Whether this output can hold sound; asked when the graph is planned."""
        return False

    def process(self, frame: Frame) -> None:
        """Takes one picture; it counts as delivered when this returns, unless `deferred`."""
        raise NotImplementedError

    def idle(self) -> float | None:
        """Called while no picture is there, also before the first; must be quick.

        A live output shows something in place of what does not come, or looks after its
        connection.

        Returns:
            seconds after which it wants to be called again if still no picture has come; None:
            not before the next picture.
        """
        return None

    def audio(self, packet: Packet) -> None:
        """Takes one audio packet; called between pictures, in order.

        The first packet has no data: it announces the format, before the first picture. Without
        it there is no sound.
        """

    def finish(self) -> None:
        """The stream has ended: writes what is held back and closes the output properly."""


def node(function: Callable[..., Any]) -> type[Transform[Params]]:
    """Makes a transform of one function: `function(frame, *, parameter: type = default, ...)`.

    The keyword-only arguments become the node's parameters; the first line of the docstring its
    description.

    Raises:
        TypeError: the function does not take one frame, or a parameter has no type.
    """
    signature = inspect.signature(function)
    try:
        hints = get_type_hints(function, include_extras=True)
    except NameError as error:
        raise TypeError(
            f"{function.__name__}: {error}; the types of a node function must be imported, not "
            "only under TYPE_CHECKING"
        ) from None
    fields: dict[str, Any] = {}
    positional = 0
    for parameter in signature.parameters.values():
        if parameter.kind is parameter.KEYWORD_ONLY:
            if parameter.name not in hints:
                raise TypeError(f"{function.__name__}: parameter {parameter.name!r} has no type")
            default = ... if parameter.default is parameter.empty else parameter.default
            fields[parameter.name] = (hints[parameter.name], default)
        elif parameter.kind in (parameter.POSITIONAL_ONLY, parameter.POSITIONAL_OR_KEYWORD):
            positional += 1
    if positional != 1:
        raise TypeError(
            f"{function.__name__}: a node function takes one frame, not {positional} positional "
            "arguments; its parameters come after a *"
        )
    params = create_model(f"{function.__name__.title()}Params", __base__=Params, **fields)

    class FunctionNode(Transform[Params]):
        Params = params

        def process(self, frame: Frame) -> Any:
            return function(frame, **{name: getattr(self.params, name) for name in fields})

    FunctionNode.__name__ = FunctionNode.__qualname__ = function.__name__
    FunctionNode.__module__ = function.__module__
    FunctionNode.__doc__ = function.__doc__
    return FunctionNode
