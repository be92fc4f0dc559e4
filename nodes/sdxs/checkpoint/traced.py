"""The CPU's twin of a CUDA graph: each operation kept with the tensors that it was done to.

A replay does the same operations to the same memory, and runs none of the Python code between
them. So it goes wrong where a graph would go wrong: a value that Python put in is baked in, a
tensor that was exchanged is not seen, and what looks at a value cannot be recorded at all.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, Generic, NamedTuple, TypeVar

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

T = TypeVar("T")

_LOOKING: Final = frozenset(
    f"aten::{name}"
    for name in (
        *("item", "_local_scalar_dense", "is_nonzero", "equal", "allclose"),
        *("nonzero", "masked_select", "unique_dim", "_unique2", "lift_fresh"),
    )
)
"""what a capturing stream refuses: the host waits for a value, or makes a tensor of its own"""


class _Step(NamedTuple):
    """One operation.

    Attributes:
        function: Of torch.
        args: It was given these.
        named: And these.
        made: Tensors that it returned in memory of their own.
    """

    function: Any
    args: tuple[Any, ...]
    named: dict[str, Any]
    made: tuple[Tensor | None, ...]


class Traced(Generic[T]):
    """See `nodes.sdxs.checkpoint.capture.Recording` and `Recorder`.

    All that was computed on the way stays in memory, which a graph would use again: it is for
    tests and trials, with small models.
    """

    def __init__(self, function: Callable[[], T], device: torch.device) -> None:
        function()  # what is made once only, when it is first needed, is made by now
        with _Recorder() as recorder:
            self._outputs = function()
        self._steps = recorder.steps

    @property
    def outputs(self) -> T:
        """See `Recording`."""
        return self._outputs

    @torch.inference_mode()
    def replay(self) -> None:
        """See `Recording`."""
        for step in self._steps:
            found = tree_leaves(step.function(*step.args, **step.named))
            for was, now in zip(step.made, found, strict=True):
                if was is not None:
                    was.copy_(now)

    def __len__(self) -> int:
        return len(self._steps)


class _Recorder(TorchDispatchMode):  # type: ignore[no-untyped-call]
    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.steps: list[_Step] = []

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        named = kwargs or {}
        given = [one for one in tree_leaves((args, named)) if isinstance(one, Tensor)]
        if func.name().split(".")[0] in _LOOKING or (
            func.name().startswith("aten::index") and any(t.dtype == torch.bool for t in given[1:])
        ):
            raise RuntimeError(
                f"{func.name()} cannot be recorded: it looks at a value, or bakes one in"
            )
        result = func(*args, **named)
        memory = {_storage(one) for one in given}
        made = tuple(
            one if isinstance(one, Tensor) and _storage(one) not in memory else None
            for one in tree_leaves(result)
        )
        # A view of what was given is there again when that is; only what writes is done again.
        if func._schema.is_mutable or any(one is not None for one in made):
            self.steps.append(_Step(func, args, named, made))
        return result


def _storage(tensor: Tensor) -> int:
    key: int = tensor.untyped_storage()._cdata
    return key
