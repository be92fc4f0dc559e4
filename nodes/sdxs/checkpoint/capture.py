"""A function of tensors recorded once and replayed: as a CUDA graph, or as its twin on a CPU.

What is recorded reads its inputs from where they lay then and writes its outputs to where they lay
then. So values that change are written into the inputs between two replays, on the stream that
replays, and nothing is recorded anew.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final, Generic, Protocol, TypeVar

import torch

from nodes.sdxs.checkpoint.traced import Traced

__all__ = ["CudaGraph", "Direct", "Recorder", "Recording", "Traced"]

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)

_WARM_UPS: Final = 3
"""runs before the recording: libraries choose their kernels and take their memory in the first"""


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

    Recorded on a stream of its own, in any thread, while others use the device: nothing here
    waits for the device but for that stream.
    """

    def __init__(self, function: Callable[[], T], device: torch.device) -> None:
        cuda: Any = torch.cuda
        stream = cuda.Stream(device)
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
            # Not `torch.cuda.graph`, which waits for the whole device and empties all pools.
            # "thread_local": what other threads ask of the driver meanwhile is their affair.
            self._graph.capture_begin(
                pool=torch.cuda.graph_pool_handle(), capture_error_mode="thread_local"
            )
            try:
                self._outputs = function()
            except BaseException:
                with suppress(RuntimeError):  # which says no more than that there was an error
                    self._graph.capture_end()
                raise
            else:
                self._graph.capture_end()
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


def _clear_workspaces() -> None:
    # Torch's own capture of compiled code (cudagraph_trees) does the same; there is no public name.
    internals: Any = torch._C
    internals._cuda_clearCublasWorkspaces()
