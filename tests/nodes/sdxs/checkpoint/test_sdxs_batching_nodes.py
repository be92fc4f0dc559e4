"""Several `sdxs` nodes of one process: what they share, and what stays each one's own."""

from __future__ import annotations

import logging
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import streamer
from nodes.sdxs import OneStep
from nodes.sdxs.batching import Member
from nodes.sdxs.node import Sdxs
from streamer.testing import SoloContext, solo

Write = Callable[..., Path]

GUARD = 60.0
"""seconds after which a test that stands still fails"""
FIELDS = np.random.default_rng(3).integers(0, 256, (4, 4, 4, 3), np.uint8)
PICTURES = FIELDS.repeat(16, axis=1).repeat(16, axis=2)


@pytest.fixture
def given(write: Write, control: Write) -> dict[str, Any]:
    return {"model": str(write("1", "PNDMScheduler")), "control": str(control("1")), "threads": 1}


@pytest.fixture
def opened() -> Iterator[Callable[..., Sdxs]]:
    """Opens nodes, and closes what a test leaves open."""
    nodes: list[Sdxs] = []

    def opened(name: str = "style", **params: Any) -> Sdxs:
        nodes.append(solo(Sdxs, context=SoloContext(name=name), **params))
        return nodes[-1]

    yield opened
    for node in nodes:
        node.close()


def painted(node: Sdxs, picture: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    height, width = picture.shape[:2]
    frame = node.context.allocate(width, height, pts=0, time_base=Fraction(1, 30))
    frame.numpy()[...] = picture
    return np.array(node.process(frame).numpy())


def change(node: Sdxs, **values: Any) -> None:
    params = Sdxs.Params(**{**node.params.model_dump(), **values})
    node.update(params, node.prepare(params))


def member(node: Sdxs) -> Member:
    turns = node._steady.engine.turns
    assert isinstance(turns, Member)
    return turns


def together(nodes: list[Sdxs], work: Callable[[Sdxs], Any]) -> list[Any]:
    """Has every node's thread wait while somebody else has the turn, so that they meet."""
    guest = member(nodes[0]).passes.join()
    with ThreadPoolExecutor(len(nodes)) as pool:
        with guest.alone():
            done = [pool.submit(work, node) for node in nodes]
            end = time.monotonic() + GUARD
            while guest.passes.waiting < len(nodes):
                assert time.monotonic() < end, "still waiting"
                time.sleep(0.001)
        return [one.result(GUARD) for one in done]


def test_nodes_of_one_model_load_it_once_and_meet_in_its_passes(
    opened: Callable[..., Sdxs], given: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    settings: list[dict[str, Any]] = [
        {"prompt": "a castle", "seed": 1, "conditioning_scale": 1.0},
        {"prompt": "a castle at sea", "seed": 2, "conditioning_scale": 0.5},
    ]
    nodes = [opened(**given, **one) for one in settings]
    engines = [node._steady.engine for node in nodes]
    assert engines[0].network is engines[1].network  # type: ignore[attr-defined]
    expected = []
    for one in settings:
        engine = OneStep.load(given["model"], control=given["control"], threads=1)
        for name, value in one.items():
            setattr(engine, name, value)
        expected.append([engine(picture) for picture in PICTURES])
    found = together(nodes, lambda node: [painted(node, picture) for picture in PICTURES])
    for ours, theirs in zip(found, expected, strict=True):
        for mine, other in zip(ours, theirs, strict=True):
            assert np.abs(mine - other.astype(int)).max() <= 1
    assert member(nodes[0]).counts[2] >= 1
    caplog.clear()
    with caplog.at_level(logging.INFO, "streamer.node"):
        nodes[0].close()
    (line,) = (record.getMessage() for record in caplog.records)
    assert line.startswith("4 pictures by a model that other nodes used, too: ")
    assert "in passes of 2" in line
    nodes[0].close()  # as after an error
    assert np.abs(painted(nodes[1], PICTURES[3]) - expected[1][3].astype(int)).max() <= 1


def test_one_that_wants_no_company_shares_the_model_all_the_same(
    opened: Callable[..., Sdxs], given: dict[str, Any]
) -> None:
    nodes = [opened(**given, prompt="x", batch=batch) for batch in ("auto", "off", "auto")]
    assert len({id(member(node).passes) for node in nodes}) == 1
    together(nodes, lambda node: painted(node, PICTURES[0]))
    assert [member(node).counts for node in nodes] == [{2: 1}, {1: 1}, {2: 1}]


def test_other_arithmetic_is_another_model(
    opened: Callable[..., Sdxs], given: dict[str, Any]
) -> None:
    plain, half = opened(**given, prompt="x"), opened(**given, prompt="x", dtype="bfloat16")
    without = opened(**{**given, "control": None}, prompt="x")
    assert len({id(member(node).passes) for node in (plain, half, without)}) == 3


def test_a_changed_model_is_one_nodes_own_and_the_last_frees_the_former(
    opened: Callable[..., Sdxs], given: dict[str, Any]
) -> None:
    first, second = (opened(**given, prompt="a castle") for _ in range(2))
    former = weakref.ref(first._steady.engine.network)  # type: ignore[attr-defined]
    before = painted(second, PICTURES[0])
    change(first, model="random:tiny", control=None)
    assert member(first).passes is not member(second).passes
    assert np.array_equal(painted(second, PICTURES[0]), before)
    assert np.abs(painted(first, PICTURES[0]) - before.astype(int)).max() > 8
    assert former() is not None
    change(second, model="random:tiny", control=None)
    assert member(first).passes is member(second).passes
    end = time.monotonic() + GUARD
    while former() is not None:
        assert time.monotonic() < end, "the former model is still there"
        time.sleep(0.01)


def test_a_model_that_does_not_fit_into_memory_hurts_no_other_node(
    opened: Callable[..., Sdxs], given: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = (opened(**given, prompt="a castle") for _ in range(2))
    before = painted(second, PICTURES[0])

    def short(*arguments: Any, **options: Any) -> OneStep:
        raise MemoryError("3 GB are needed, 1 GB is left")

    with monkeypatch.context() as patched:
        patched.setattr(OneStep, "load", short)
        with pytest.raises(streamer.ParameterError, match="3 GB are needed, 1 GB is left; the"):
            change(first, model="random:tiny", control=None)
        third = opened(**given, prompt="a castle")  # there already, so nothing is loaded
    assert member(third).passes is member(first).passes
    for node in (first, second, third):
        assert np.array_equal(painted(node, PICTURES[0]), before)


def test_a_spoiled_picture_is_shown_by_its_own_node_alone(
    opened: Callable[..., Sdxs], given: dict[str, Any]
) -> None:
    nodes = [opened(f"style{number}", **given, prompt="a castle") for number in range(2)]
    good = [painted(node, PICTURES[0]) for node in nodes]
    engine: Any = nodes[0]._steady.engine
    engine.embedding = replace(engine.embedding, tokens=engine.embedding.tokens * float("nan"))
    shown = together(nodes, lambda node: painted(node, PICTURES[1]))
    assert member(nodes[1]).counts[2] == 1
    assert np.array_equal(shown[0], good[0])
    assert not np.array_equal(shown[1], good[1])
    assert [node.context.spoils for node in nodes] == [1, 0]  # type: ignore[attr-defined]


def test_nodes_that_open_at_once_load_once(
    given: dict[str, Any], opened: Callable[..., Sdxs], monkeypatch: pytest.MonkeyPatch
) -> None:
    loads: list[int] = []
    load = OneStep.load

    def counted(*arguments: Any, **options: Any) -> OneStep:
        loads.append(threading.get_ident())
        return load(*arguments, **options)

    monkeypatch.setattr(OneStep, "load", counted)
    with ThreadPoolExecutor(4) as pool:
        nodes = list(pool.map(lambda number: opened(**given, seed=number), range(4)))
    assert len(loads) == 1
    assert sorted(node._steady.engine.seed for node in nodes) == [0, 1, 2, 3]
