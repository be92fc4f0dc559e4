"""One loaded model for several videos: real engines in real threads."""

from __future__ import annotations

import gc
import threading
import time
import weakref
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nodes.sdxs import OneStep
from nodes.sdxs.batching import Member, Shelf
from nodes.sdxs.jobs import Job, SpoiledPictureError

GUARD = 60.0
"""seconds after which a test that stands still fails"""
SETTINGS: list[dict[str, Any]] = [
    {"prompt": "ink", "seed": 3, "conditioning_scale": 1.0},
    {"prompt": "comic:0.5 oil:0.5", "seed": 4, "conditioning_scale": 0.4},
    {"prompt": "pencil", "seed": 5, "conditioning_scale": 1.5},
]
COARSE = np.random.default_rng(0).integers(0, 256, (6, 4, 4, 3), np.uint8)
PICTURES = COARSE.repeat(16, axis=1).repeat(18, axis=2)
"""coloured fields, each by others; noise would steer nothing"""


Load = Callable[[], OneStep]
Write = Callable[..., Path]


def load_bundled() -> OneStep:
    return OneStep.load("bundled", threads=1)


@pytest.fixture(scope="module")
def load(write: Write, control: Write) -> Load:
    """Loads a checkpoint that its picture steers visibly."""
    folder, net = write("1", "PNDMScheduler"), control("1")

    def load() -> OneStep:
        engine: Any = OneStep.load(folder, control=net, threads=1)
        for one in engine.network.controls:
            first = one.controlnet_cond_embedding.conv_out
            first.weight.data.mul_(100)
        return engine

    return load


@pytest.fixture(scope="module", params=["bundled", "checkpoint"])
def model(request: pytest.FixtureRequest, load: Load) -> OneStep:
    """Loaded by itself; what it paints is what sharing must paint."""
    return load_bundled() if request.param == "bundled" else load()


@pytest.fixture
def shelf() -> Shelf:
    return Shelf()


def adjust(engine: OneStep, settings: dict[str, Any]) -> OneStep:
    for name, value in settings.items():
        setattr(engine, name, value)
    return engine


def member(engine: OneStep) -> Member:
    assert isinstance(engine.turns, Member)
    return engine.turns


def until(condition: Callable[[], Any]) -> None:
    end = time.monotonic() + GUARD
    while not condition():
        assert time.monotonic() < end, "still waiting"
        time.sleep(0.001)


def together(engines: list[OneStep], work: Callable[[int], Any]) -> list[Any]:
    """Has every engine's thread wait while somebody else has the turn, so that they meet."""
    guest = member(engines[0]).passes.join()
    with ThreadPoolExecutor(len(engines)) as pool:
        with guest.alone():
            done = [pool.submit(work, number) for number in range(len(engines))]
            until(lambda: guest.passes.waiting == len(engines))
        return [one.result(GUARD) for one in done]


def test_videos_share_a_model_and_none_of_its_settings(model: OneStep, shelf: Shelf) -> None:
    engines = [shelf.share("m", model.sibling) for _ in range(3)]
    assert len(shelf) == 1
    assert len({id(member(one).passes) for one in engines}) == 1
    part = "network" if hasattr(model, "network") else "_backend"
    assert {id(getattr(one, part)) for one in engines} == {id(getattr(model, part))}
    for one, settings in zip(engines, SETTINGS, strict=True):
        adjust(one, settings)
    assert [one.prompt for one in engines] == ["ink", "comic:0.5 oil:0.5", "pencil"]

    expected = [[adjust(model, settings)(picture) for picture in PICTURES] for settings in SETTINGS]

    def work(number: int) -> list[Any]:
        return [engines[number](picture) for picture in PICTURES]

    for painted, right in zip(together(engines, work), expected, strict=True):
        for ours, theirs in zip(painted, right, strict=True):
            assert np.abs(ours - theirs.astype(int)).max() <= 1
    # They do differ, so that a mixed-up order or setting would show.
    assert np.abs(expected[0][0] - expected[1][0].astype(int)).max() > 8
    assert np.abs(expected[0][0] - expected[0][1].astype(int)).max() > 8
    passes = member(engines[0]).passes
    assert sum(pictures * times for pictures, times in passes.counts.items()) == 18
    for one in engines:
        assert member(one).counts.total() == 6
        # The bundled model paints one after another; then nobody waits for those behind him.
        assert (member(one).counts[3] >= 1) is model.paints_together
        assert (member(one).counts == {1: 6}) is not model.paints_together


def test_settings_change_between_two_pictures_for_one_video_alone(shelf: Shelf, load: Load) -> None:
    model = load()
    first, second = (shelf.share("m", model.sibling) for _ in range(2))
    adjust(first, SETTINGS[0])
    adjust(second, SETTINGS[1])
    before = [first(PICTURES[0]), second(PICTURES[0])]
    changed = threading.Event()

    def paint(number: int) -> Any:
        out = (first, second)[number](PICTURES[0])
        assert changed.is_set()
        return out

    guest = member(first).passes.join()
    with ThreadPoolExecutor(2) as pool:
        with guest.alone():
            done = [pool.submit(paint, number) for number in range(2)]
            until(lambda: guest.passes.waiting == 2)
            # While both wait: what they wait with is painted by what held when they came.
            adjust(first, SETTINGS[2])
            changed.set()
        assert all(
            np.abs(one.result(GUARD) - old.astype(int)).max() <= 1
            for one, old in zip(done, before, strict=True)
        )
    assert np.abs(first(PICTURES[0]) - before[0].astype(int)).max() > 8
    assert np.array_equal(second(PICTURES[0]), before[1])


def test_a_spoiled_picture_is_one_videos_own(shelf: Shelf, load: Load) -> None:
    model = load()
    engines = [shelf.share("m", model.sibling) for _ in range(2)]
    good: Any = engines[0].embedding  # type: ignore[attr-defined]
    spoilt = replace(good, tokens=good.tokens * float("nan"))
    engines[0].embedding = spoilt  # type: ignore[attr-defined]

    def work(number: int) -> Any:
        try:
            return engines[number](PICTURES[0])
        except SpoiledPictureError as error:
            return error

    failed, painted = together(engines, work)
    assert isinstance(failed, SpoiledPictureError)
    assert np.abs(painted - model(PICTURES[0]).astype(int)).max() <= 1
    assert member(engines[1]).counts == {2: 1}


def test_a_size_that_does_not_fit_is_refused_before_anybody_waits(shelf: Shelf, load: Load) -> None:
    engine = shelf.share("m", load)
    with pytest.raises(ValueError, match="multiples of 8, not 70x64"):
        engine(PICTURES[0][:, :70])
    assert member(engine).passes.counts == {}


def test_each_video_has_its_own_past(shelf: Shelf, load: Load) -> None:
    model = load()
    engines = [shelf.share("m", model.sibling) for _ in range(2)]
    order = ([0, 1, 2], [3, 4, 5])

    def walk(engine: OneStep, numbers: list[int]) -> list[Any]:
        past, made = None, []
        for number in numbers:
            out = np.empty_like(PICTURES[number])
            past = engine.paint_after(PICTURES[number], out, past=past, share=0.3)
            made.append(out)
        return made

    expected = [walk(model.sibling(), numbers) for numbers in order]
    found = together(engines, lambda number: walk(engines[number], order[number]))
    for painted, right in zip(found, expected, strict=True):
        for ours, theirs in zip(painted, right, strict=True):
            assert np.abs(ours - theirs.astype(int)).max() <= 1
    assert member(engines[0]).counts[2] >= 1
    alone = model(PICTURES[2])
    assert np.abs(expected[0][2] - alone.astype(int)).max() > 8


def test_one_loads_while_others_wait_for_it(shelf: Shelf) -> None:
    loads, go = [], threading.Event()

    def counted() -> OneStep:
        loads.append(threading.get_ident())
        assert go.wait(GUARD)
        return load_bundled()

    with ThreadPoolExecutor(4) as pool:
        done = [pool.submit(shelf.share, "m", counted) for _ in range(4)]
        until(lambda: loads)
        go.set()
        engines = [one.result(GUARD) for one in done]
    assert len(loads) == 1
    assert len({id(member(one).passes) for one in engines}) == 1
    assert member(engines[0]).passes.members == 4


def test_another_model_does_not_wait_for_one_that_is_loading(shelf: Shelf, load: Load) -> None:
    go, begun = threading.Event(), threading.Event()

    def slow() -> OneStep:
        begun.set()
        assert go.wait(GUARD)
        return load_bundled()

    with ThreadPoolExecutor(1) as pool:
        waits = pool.submit(shelf.share, "slow", slow)
        assert begun.wait(GUARD)
        other = shelf.share("other", load)
        assert not waits.done()
        go.set()
        assert waits.result(GUARD).name != other.name
    assert len(shelf) == 2


def test_who_waited_for_a_load_that_failed_tries_for_itself(shelf: Shelf, load: Load) -> None:
    loads, go = [], threading.Event()

    def scarce() -> OneStep:
        loads.append(None)
        if len(loads) == 1:
            assert go.wait(GUARD)
            raise MemoryError("none for the first")
        return load()

    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(shelf.share, "m", scarce)
        until(lambda: loads)
        second = pool.submit(shelf.share, "m", scarce)
        go.set()
        with pytest.raises(MemoryError, match="none for the first"):
            first.result(GUARD)
        assert second.result(GUARD).backend == "torch"
    with pytest.raises(RuntimeError, match="refused"):
        shelf.share("n", _refuse)
    assert shelf.share("n", load).backend == "torch"


def _refuse() -> OneStep:
    raise RuntimeError("refused")


def test_the_last_to_let_go_frees_the_model(
    shelf: Shelf, load: Load, monkeypatch: pytest.MonkeyPatch
) -> None:
    closed: list[int] = []

    def told() -> OneStep:
        engine = load()
        close = type(engine).close
        monkeypatch.setattr(type(engine), "close", lambda one: (closed.append(0), close(one))[1])
        return engine

    first, second = (shelf.share("m", told) for _ in range(2))
    network = weakref.ref(first.network)  # type: ignore[attr-defined]
    assert second(PICTURES[0]).std() > 5
    gc.collect()
    gc.disable()  # nothing may wait for it: it would stop the frames of others
    try:
        del first
        assert (len(shelf), closed) == (1, [])
        assert second(PICTURES[0]).std() > 5
        assert member(second).passes.members == 1
        del second
        assert (len(shelf), closed) == (0, [0])
        assert network() is None
    finally:
        gc.enable()
    assert shelf.share("m", load)(PICTURES[0]).std() > 5  # and is loaded again when it is wanted


def test_one_that_goes_while_another_is_painted_leaves_it_its_model(
    shelf: Shelf, load: Load
) -> None:
    model = load()
    engines = [shelf.share("m", model.sibling) for _ in range(2)]
    expected = model(PICTURES[0])
    passes = member(engines[0]).passes
    guest = passes.join()
    with ThreadPoolExecutor(1) as pool:
        with guest.alone():
            done = pool.submit(engines[0].__call__, PICTURES[0])
            until(lambda: passes.waiting == 1)
            engines.clear()
            del model
            gc.collect()
        assert np.array_equal(done.result(GUARD), expected)


def test_other_uses_of_an_engine_take_their_turns_too(model: OneStep, shelf: Shelf) -> None:
    engine = shelf.share("m", model.sibling)
    guest = member(engine).passes.join()
    uses: list[Callable[[], Any]] = [
        lambda: engine.warm_up(72, 64),
        lambda: engine(PICTURES[:2]),
        lambda: engine.paint_jobs([Job(PICTURES[0], np.empty_like(PICTURES[0]), settings)]),
    ]
    settings = engine.snapshot()
    for use in uses:
        with ThreadPoolExecutor(1) as pool:
            with guest.alone():
                done = pool.submit(use)
                until(lambda: guest.passes.waiting == 1)
                assert not done.done()
            done.result(GUARD)
    assert np.array_equal(engine(PICTURES[:2]), adjusted_like(model, engine)(PICTURES[:2]))


def adjusted_like(model: OneStep, other: OneStep) -> OneStep:
    names = ("prompt", "seed", "conditioning_scale")
    return adjust(model.sibling(), {name: getattr(other, name) for name in names})
