"""Node classes, their parameters, the decorator, and the context for tests without a graph."""

from __future__ import annotations

import inspect
import threading
from fractions import Fraction
from typing import Annotated, Any, Literal

import numpy as np
import pytest
from pydantic import Field, ValidationError

import streamer
from streamer import nodebase, testing
from streamer.drops import COUNTED, Drop
from streamer.graph.plan import NodePlan, Plan, RestartPlan
from streamer.runtime.context import RuntimeContext
from streamer.telemetry.board import Board


@streamer.node
def blend(
    frame: streamer.Frame,
    *,
    strength: float = Field(default=0.5, ge=0, le=1),
    mode: Literal["dark", "bright"] = "dark",
    repeat: int,
) -> Any:
    """Blends a picture with black or white.

    More about it.
    """
    target = 0 if mode == "dark" else 255
    mixed = frame.numpy() * (1 - strength) + target * strength
    return mixed.astype(np.uint8) if repeat else None


def picture(value: int = 100) -> streamer.Frame:
    return streamer.Frame.of(np.full((4, 6, 3), value, np.uint8))


def test_a_function_becomes_a_transform_with_parameters() -> None:
    assert issubclass(blend, streamer.Transform)
    assert (blend.__name__, blend.__module__) == ("blend", __name__)
    assert (blend.__doc__ or "").startswith("Blends a picture")
    fields = blend.Params.model_fields
    assert list(fields) == ["strength", "mode", "repeat"]
    assert fields["repeat"].is_required()
    node = testing.solo(blend, strength=0.25, repeat=1)
    with picture() as frame:
        assert (node.process(frame) == 75).all()
    assert repr(node) == "blend(strength=0.25, mode='dark', repeat=1)"


@pytest.mark.parametrize(
    ("params", "wrong"),
    [
        ({}, "repeat"),
        ({"repeat": 1, "strength": 2}, "strength"),
        ({"repeat": 1, "mode": "loud"}, "mode"),
        ({"repeat": "much"}, "repeat"),
        ({"repeat": 1, "strenght": 0.5}, "strenght"),
    ],
)
def test_parameters_of_a_function_are_checked(params: dict[str, Any], wrong: str) -> None:
    with pytest.raises(ValidationError, match=wrong):
        blend.Params(**params)


def test_bounds_may_stand_beside_the_type() -> None:
    def dim(frame: streamer.Frame, *, by: Annotated[float, Field(ge=0, le=1)] = 0.5) -> Any:
        """Dims."""
        return frame.numpy() * by

    params = streamer.node(dim).Params
    assert params().by == 0.5  # type: ignore[attr-defined]
    with pytest.raises(ValidationError, match="less than or equal to 1"):
        params(by=50)


def no_frame() -> None: ...
def two_frames(frame: Any, other: Any) -> None: ...
def untyped(frame: Any, *, amount=1) -> None: ...  # type: ignore[no-untyped-def]
def unknown_type(frame: Any, *, amount: NoSuchType) -> None: ...  # type: ignore[name-defined]  # noqa: F821


@pytest.mark.parametrize(
    ("function", "said"),
    [
        (no_frame, "no_frame: a node function takes one frame, not 0"),
        (
            two_frames,
            "two_frames: a node function takes one frame, not 2 positional arguments; its",
        ),
        (untyped, "untyped: parameter 'amount' has no type"),
        (unknown_type, "unknown_type: name 'NoSuchType' is not defined; the types of a node"),
    ],
)
def test_a_function_that_is_no_node_is_refused(function: Any, said: str) -> None:
    with pytest.raises(TypeError, match=said):
        streamer.node(function)


def test_parameters_are_frozen_and_unknown_ones_refused() -> None:
    class Given(streamer.Params):
        size: int = 3
        """how large"""

    with pytest.raises(ValidationError, match="frozen"):
        Given().size = 4  # type: ignore[misc]
    with pytest.raises(ValidationError, match="sise"):
        Given(sise=4)  # type: ignore[call-arg]
    assert Given.model_fields["size"].description == "how large"


def test_bare_classes_say_what_is_missing() -> None:
    with pytest.raises(NotImplementedError):
        streamer.Transform(streamer.Params()).process(picture())
    with pytest.raises(NotImplementedError):
        streamer.Join(streamer.Params()).process({})
    with pytest.raises(NotImplementedError):
        streamer.Sink(streamer.Params()).process(picture())
    with pytest.raises(NotImplementedError):
        streamer.Source(streamer.Params()).frames()


def test_an_update_takes_new_parameters() -> None:
    node = testing.solo(blend, repeat=1)
    changed = blend.Params(repeat=0)
    node.update(changed, node.prepare(changed))
    with picture() as frame:
        assert node.process(frame) is None


def test_both_contexts_offer_what_nodes_are_promised() -> None:
    promised = {
        name for name in (*nodebase.Context.__annotations__, *vars(nodebase.Context))
        if not name.startswith("_")
    }  # fmt: skip
    plan = NodePlan(
        name="n", uses="n", entry="n:n", params={}, role="transform", live=False,
        wanted=("rgb24",), wants_audio=False, gpu=None,
        restart=RestartPlan(policy="never", max=0, window=1),
    )  # fmt: skip
    run = RuntimeContext(
        plan=Plan(name="p", nodes=(plan,), links=(), workers=()),
        node=plan,
        incarnation=1,
        board=Board(["n"], []).nodes["n"],
        outlet=None,
        tell=lambda *_, **__: None,
        aborted=threading.Event(),
    )
    solo = testing.SoloContext()
    for name in promised:
        assert hasattr(run, name), name
        assert hasattr(solo, name), name
        wanted = getattr(nodebase.Context, name, None)
        if inspect.isfunction(wanted):
            parameters = list(inspect.signature(wanted).parameters.values())[1:]
            for context in (run, solo):
                offered = inspect.signature(getattr(context, name)).parameters.values()
                assert [p.replace(annotation=p.empty) for p in offered] == [
                    p.replace(annotation=p.empty) for p in parameters
                ], (context, name)


def test_a_context_without_a_graph_makes_frames_and_keeps_reports() -> None:
    context = testing.SoloContext(name="cam", live=True)
    first = context.allocate(8, 6, "gray", pts=1, time_base=Fraction(1, 25))
    second = context.allocate(8, 6, pts=2, time_base=Fraction(1, 25))
    assert (first.header.stream, first.seq, second.seq) == ("cam", 0, 1)
    assert (first.numpy().shape, second.numpy().shape) == ((6, 8), (6, 8, 3))
    assert context.allocate(2, 2, like=first.header).seq == 0
    first.numpy()[:] = 5
    context.drop(Drop.RATE)
    context.drop(Drop.CORRUPT, 3)
    context.delivered(first.header)
    context.expect(frames=9)
    context.note("working")
    assert context.dropped == {Drop.RATE: 1, Drop.CORRUPT: 3}
    assert (context.sent, context.notes) == ([first.header], ["working"])
    assert context.expected == {"frames": 9, "seconds": None}
    with pytest.raises(streamer.NodeError, match="cannot make this picture: yuv420p needs even"):
        context.allocate(3, 3, "yuv420p", like=first.header)


def test_reasons_that_only_a_report_finds_cannot_be_counted() -> None:
    context = testing.SoloContext()
    for reason in set(Drop) - set(COUNTED):
        with pytest.raises(ValueError, match=f"a node cannot drop frames as {reason}"):
            context.drop(reason)
    assert {str(reason) for reason in set(Drop) - set(COUNTED)} == {
        "crashed", "in_flight", "unaccounted",
    }  # fmt: skip
    with pytest.raises(ValueError, match="-1 frames cannot be dropped"):
        context.drop(Drop.RATE, -1)
