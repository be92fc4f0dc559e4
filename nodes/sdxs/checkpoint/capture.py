"""A function of tensors recorded once and replayed: as a CUDA graph, or as its twin on a CPU.

What is recorded reads its inputs from where they lay then and writes its outputs to where they lay
then. So values that change are written into the inputs between two replays, on the stream that
replays, and nothing is recorded anew.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import cache
from typing import Any, Final, Generic, Protocol, TypeVar

import torch

from nodes.sdxs.checkpoint.traced import Traced

__all__ = ["CudaGraph", "Direct", "Recorder", "Recording", "Traced"]

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)

_WARM_UPS: Final = 3
"""runs before the recording: libraries choose their kernels and take their memory in the first"""
_given_up: Final[list[Any]] = []
"""recordings that failed: torch's allocator of pinned memory may go on asking them if they go on"""


class Recording(Protocol[T_co]):
    """A function that was recorded."""

    @property
    def outputs(self) -> T_co:
        """What the function returned; its tensors hold the results of the latest replay."""
        ...

    def replay(self) -> None:
        """Does the recorded work again, on the stream that is current in this thread."""
        ...


class Recorder(Protocol):
    """Records functions."""

    def __call__(self, function: Callable[[], T], device: torch.device) -> Recording[T]:
        """Runs a function and keeps what it does to tensors.

        Args:
            function: Reads tensors that stay where they are; called several times.
            device: Of its tensors.

        Raises:
            RuntimeError: It does what cannot be replayed, as looking at a value.
        """
        ...


class CudaGraph(Generic[T]):
    """A `Recording` as one CUDA graph: one launch for all of a picture's kernels.

    Recorded on a stream that all recordings of a device share, so in one thread only, while others
    use the device: nothing here waits for the device but for that stream.
    """

    def __init__(self, function: Callable[[], T], device: torch.device) -> None:
        stream = _stream(device)
        stream.wait_stream(torch.cuda.current_stream(device))
        with torch.cuda.device(device), torch.cuda.stream(stream):
            for _ in range(_WARM_UPS):
                function()
            stream.synchronize()
            # The warm-up's workspace is of the common pool, and would be used by a replay and by
            # the next warm-up at once. Let go of, the recording takes one from its own pool,
            # which it keeps.
            _clear_workspaces()
            self._graph = torch.cuda.CUDAGraph()
            pool = torch.cuda.graph_pool_handle()
            with without_collection():
                # Not `torch.cuda.graph`, which waits for the whole device and empties all pools.
                # "thread_local": what other threads ask of the driver meanwhile is their affair.
                try:
                    self._graph.capture_begin(pool=pool, capture_error_mode="thread_local")
                    self._outputs = function()
                    self._graph.capture_end()
                except BaseException:
                    _give_up(self._graph, pool)
                    raise
                finally:
                    _clear_workspaces()
            # The first replay uploads the graph to the device.
            self._graph.replay()
            stream.synchronize()

    @property
    def outputs(self) -> T:
        """See `Recording`."""
        return self._outputs

    def replay(self) -> None:
        """See `Recording`."""
        self._graph.replay()


class Direct(Generic[T]):
    """No recording: the function itself, for devices without graphs, once it has been compiled."""

    def __init__(self, function: Callable[[], T], device: torch.device) -> None:
        self._function = function
        self._outputs = function()

    @property
    def outputs(self) -> T:
        """See `Recording`."""
        return self._outputs

    def replay(self) -> None:
        """See `Recording`."""
        self._outputs = self._function()


@contextmanager
def without_collection() -> Iterator[None]:
    """Inside, no garbage is collected by itself.

    What is collected may be events and pinned memory of others, and to ask the driver for their
    end, or to give them back, in a thread that records, would spoil the recording.
    """
    collects = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collects:
            gc.enable()


@cache
def _stream(device: torch.device) -> Any:
    """The stream that all recordings of a device are made on.

    Torch gives freed memory to the stream again that has used it: of another stream for each
    recording, what the runs before it have used would stay taken.
    """
    cuda: Any = torch.cuda
    return cuda.Stream(device)


def _give_up(graph: Any, pool: Any) -> None:
    """Ends a recording that has failed, for the allocator, too.

    torch's `capture_end` leaves the allocator as it is where the driver has refused the recording:
    the memory would be lost, and all that several streams have used kept back for ever.
    """
    with suppress(RuntimeError):  # which says no more than that there was an error
        graph.capture_end()
    _given_up.append(graph)
    internals: Any = torch._C  # as torch's cudagraph_trees does; there are no public names
    with suppress(RuntimeError):  # which says that it has ended in order
        internals._cuda_endAllocateToPool(torch.cuda.current_device(), pool)
        internals._cuda_releasePool(torch.cuda.current_device(), pool)


def _clear_workspaces() -> None:
    # Torch's own capture of compiled code (cudagraph_trees) does the same; there is no public name.
    internals: Any = torch._C
    internals._cuda_clearCublasWorkspaces()
