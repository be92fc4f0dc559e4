"""How the model is timed: the ways to run it give one picture, and the figures are right."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from nodes.sdxs.bench import options, rig, speed, stream_diffusion, timing
from nodes.sdxs.bench.goals import GOALS, GRAPH_GOALS
from streamer.bench.acceptance.goals import Conditions, Goal, NotAvailable

CPU = torch.device("cpu")


@pytest.fixture
def conditions(tmp_path: Path) -> Conditions:
    return Conditions(fake=True, folder=tmp_path)


def goal(name: str) -> Goal:
    return next(goal for goal in GOALS if goal.name == name)


def pictures(engine: Any, **how: Any) -> list[torch.Tensor]:
    """What a rig paints of its four pictures."""
    with rig.Rig(engine, side=rig.FAKE_SIZE, **how) as made:
        return [made().clone() for _ in range(rig.SHOWN)]


def furthest(some: list[torch.Tensor], others: list[torch.Tensor]) -> int:
    pairs = zip(some, others, strict=True)
    return max(int((one.int() - other.int()).abs().max()) for one, other in pairs)


def test_percentiles_are_those_of_the_nearest_rank() -> None:
    times = timing.Times([float(n) for n in range(100, 0, -1)], 2.0)
    assert (times.percentile(95), times.percentile(99), times.percentile(100)) == (95, 99, 100)
    assert times.p50 == 50.5
    assert times.fps == 50
    assert timing.Times([7.0], 1.0).percentile(99) == 7.0
    figures = times.figures()
    assert (figures["frames"], figures["p99_ms"], figures["mean_ms"]) == (100, 99.0, 50.5)


def test_those_that_take_turns_are_run_as_often_and_in_blocks() -> None:
    calls: list[str] = []
    works = {name: partial(calls.append, name) for name in "ab"}
    times = timing.in_turns(works, CPU, frames=15, warm_ups=1)
    assert {name: len(found.ms) for name, found in times.items()} == {"a": 15, "b": 15}
    assert "".join(calls) == "ab" + "a" * 10 + "b" * 10 + "a" * 5 + "b" * 5


@pytest.mark.parametrize("control", [True, False])
def test_captured_compiled_and_laid_out_otherwise_it_paints_the_same(
    conditions: Conditions, control: bool
) -> None:
    model = rig.Model("random:tiny", control, rig.FAKE_SIZE)
    engine = rig.load(model, conditions)
    plain = pictures(engine, recorder=None)
    assert len({picture.numpy().tobytes() for picture in plain}) == (rig.SHOWN if control else 1)
    captured = pictures(engine, recorder=rig.recorder(conditions))
    assert furthest(plain, captured) == 0
    backend = partial(options.by_backend, backend="eager")
    assert furthest(plain, pictures(engine, recorder=None, compiler=backend)) == 0
    other = rig.load(model, conditions)
    options.channels_first(other.network)
    weights = other.network.unet.conv_in.weight
    assert weights.is_contiguous()
    assert furthest(plain, pictures(other, recorder=rig.recorder(conditions))) <= 1


def test_a_pass_of_several_paints_each_of_them(conditions: Conditions) -> None:
    engine = rig.load(rig.WITH_CONTROL.under(conditions), conditions)
    several = pictures(engine, recorder=rig.recorder(conditions), count=3)
    assert [tuple(one.shape) for one in several] == [(3, 64, 64, 3)] * rig.SHOWN
    assert len({picture.numpy().tobytes() for one in several for picture in one}) == 12


def test_a_picture_of_the_host_becomes_the_engine_s_own(conditions: Conditions) -> None:
    engine = rig.load(rig.WITH_CONTROL.under(conditions), conditions)
    levels = np.random.default_rng(3).integers(0, 256, (64, 64, 3), np.uint8)
    with rig.Rig(engine, side=64, recorder=rig.recorder(conditions)) as made:
        painted = np.asarray(made.paint(Image.fromarray(levels)))
    assert int(np.abs(painted.astype(int) - engine(levels)).max()) <= 1
    assert (painted != levels).any()


def test_what_cannot_be_recorded_says_why(conditions: Conditions) -> None:
    engine = rig.load(rig.WITH_CONTROL.under(conditions), conditions)

    def refuse(function: Any, device: Any) -> Any:
        raise RuntimeError("operation not permitted when stream is capturing")

    made = rig.Rig(engine, side=64, recorder=refuse)
    with pytest.raises(RuntimeError, match="recorded or compiled: operation not permitted"):
        made.__enter__()


def test_what_misses_its_goal_is_compiled_as_well(conditions: Conditions) -> None:
    slow = speed.fastest(conditions, rig.WITH_CONTROL, at_least=1e9)
    assert slow.reached is False
    assert slow.text.startswith("captured and compiled: ")
    assert slow.figures["fps"] > 0
    assert slow.figures["captured_only"]["fps"] > 0
    quick = speed.fastest(conditions, rig.WITH_CONTROL, at_least=1e-9)
    assert quick.reached is True
    assert "compiled" not in quick.text


def test_speed_counts_pictures_and_holds_them_to_the_goal(conditions: Conditions) -> None:
    slow = speed.speed(conditions, rig.WITH_CONTROL, at_least=1e9, count=2)
    assert slow.reached is False
    assert slow.figures["pictures_a_pass"] == 2
    assert slow.figures["tflop_a_picture"] > 0
    # Waits of the last event apart, both figures are of the same work.
    passes = slow.figures["fps"] / 2
    assert passes <= 1000 / slow.figures["p50_ms"] * slow.figures["frames"]
    assert speed.speed(conditions, rig.WITH_CONTROL, at_least=1e-9).reached is True
    assert speed.speed(conditions, rig.WITH_CONTROL, at_least=None).reached is None


def test_the_loop_to_compare_with_has_the_published_networks() -> None:
    import diffusers

    models: Any = diffusers
    with torch.device("meta"):
        unet = models.UNet2DConditionModel(**stream_diffusion.SD_TURBO)
    assert sum(one.numel() for one in unet.parameters()) == 865_910_724
    loop = stream_diffusion.StreamDiffusionLoop(
        stream_diffusion.TINY, side=64, device=CPU, dtype=torch.float32
    )
    assert sum(one.numel() for one in loop.vae.parameters()) == 1_222_532 + 1_222_531
    dice = np.random.default_rng(0)
    given = [Image.fromarray(dice.integers(0, 256, (64, 64, 3), np.uint8)) for _ in range(2)]
    first, second = (np.asarray(loop(picture)) for picture in given)
    assert first.shape == (64, 64, 3)
    assert (first != second).any()  # it sees the picture
    assert (first == np.asarray(loop(given[0]))).all()
    assert loop(Image.new("RGB", (40, 90))).size == (64, 64)


def test_options_that_are_not_installed_say_so(
    conditions: Conditions, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(options.importlib.util, "find_spec", lambda name: None)
    for measure, package in ((options.fp8, "torchao"), (options.tensorrt, "torch_tensorrt")):
        with pytest.raises(NotAvailable, match=f"{package} is not installed"):
            measure(conditions)


def test_the_goals_fit_into_the_time_there_is() -> None:
    names = [one.name for one in (*GRAPH_GOALS, *GOALS)]
    assert len(set(names)) == len(names)
    # What is required comes before what is only compared.
    required = [
        name
        for name in names
        if ">=" in next(g.text for g in GOALS + GRAPH_GOALS if g.name == name)
    ]
    assert names.index("diffusers") > max(names.index(name) for name in required)
