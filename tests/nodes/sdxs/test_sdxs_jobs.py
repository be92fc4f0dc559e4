"""Pictures with settings of their own, painted together."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from nodes.sdxs import OneStep
from nodes.sdxs.jobs import Job

SETTINGS: list[dict[str, Any]] = [
    {"prompt": "ink", "seed": 3, "conditioning_scale": 1.0},
    {"prompt": "comic:0.5 oil:0.5", "seed": 3, "conditioning_scale": 0.4},
    {"prompt": "pencil", "seeds": "7:0.5 8:0.5", "conditioning_scale": 1.5},
]
PICTURES = np.random.default_rng(0).integers(0, 256, (3, 64, 72, 3), np.uint8)


def adjust(engine: OneStep, settings: dict[str, Any]) -> None:
    engine.seeds = None
    for name, value in settings.items():
        setattr(engine, name, value)


@pytest.fixture(scope="module")
def bundled() -> OneStep:
    return OneStep.load("bundled", threads=1)


@pytest.fixture(scope="module")
def tiny() -> OneStep:
    return OneStep.load("random:tiny", control="random", threads=1)


@pytest.fixture(params=["bundled", "tiny"])
def engine(request: pytest.FixtureRequest) -> OneStep:
    found: OneStep = request.getfixturevalue(request.param)
    return found.sibling()


def test_each_job_is_painted_as_the_engine_alone_would(engine: OneStep) -> None:
    alone, snapshots = [], []
    for settings, picture in zip(SETTINGS, PICTURES, strict=True):
        adjust(engine, settings)
        snapshots.append(engine.snapshot())
        alone.append(engine(picture).astype(int))
    outs = np.zeros_like(PICTURES)
    jobs = [Job(*one) for one in zip(PICTURES, outs, snapshots, strict=True)]
    engine.paint_jobs(jobs)
    for job, out, expected in zip(jobs, outs, alone, strict=True):
        assert bool(job.finite)
        assert np.abs(out - expected).max() <= 1
        assert expected.std() > 5
    # They do differ, so that a mixed-up order would show.
    engine.paint_jobs([Job(PICTURES[0], outs[0], snapshots[1])])
    assert np.abs(outs[0] - alone[0]).max() > 8


def test_a_snapshot_stays_as_it_is_while_settings_change(engine: OneStep) -> None:
    adjust(engine, SETTINGS[0])
    before, out = engine.snapshot(), np.empty_like(PICTURES[0])
    assert engine.snapshot() is before
    expected = engine(PICTURES[0])
    for name, value in [
        ("prompt", "comic"),
        ("conditioning_scale", 0.2),
        ("seed", 9),
        ("seeds", "1:1 2:1"),
        ("blend", "spherical"),
        ("turn", 0.3),
    ]:
        kept = engine.snapshot()
        setattr(engine, name, value)
        assert engine.snapshot() is not kept, name
    engine.paint_jobs([Job(PICTURES[0], out, before)])
    assert np.array_equal(out, expected)
    assert not np.array_equal(engine(PICTURES[0]), expected)


def test_siblings_share_the_model_and_no_setting(engine: OneStep) -> None:
    adjust(engine, SETTINGS[0])
    other = engine.sibling()
    expected = engine(PICTURES[0])
    assert np.array_equal(other(PICTURES[0]), expected)
    adjust(other, SETTINGS[2])
    other.turn = 0.5
    assert (engine.prompt, engine.seeds, engine.turn) == ("ink", None, 0.0)
    assert np.array_equal(engine(PICTURES[0]), expected)
    out = np.empty_like(PICTURES[0])
    engine.paint_jobs([Job(PICTURES[0], out, other.snapshot())])
    assert np.array_equal(out, other(PICTURES[0]))
    assert not np.array_equal(out, expected)


def test_one_spoiled_picture_spoils_no_other(tiny: OneStep) -> None:
    from dataclasses import replace

    engine, spoiled = tiny.sibling(), tiny.sibling()
    good: Any = spoiled.snapshot().embedding.embedding
    spoiled.embedding = replace(good, tokens=good.tokens * float("nan"))  # type: ignore[attr-defined]
    outs = np.zeros_like(PICTURES[:2])
    jobs = [
        Job(PICTURES[0], outs[0], spoiled.snapshot()),
        Job(PICTURES[1], outs[1], engine.snapshot()),
    ]
    engine.paint_jobs(jobs)
    assert [bool(job.finite) for job in jobs] == [False, True]
    assert np.abs(outs[1] - engine(PICTURES[1]).astype(int)).max() <= 1


def test_latents_of_the_past_are_mixed_for_each_job_alone(tiny: OneStep) -> None:
    settings, other = tiny.snapshot(), tiny.sibling()
    other.seed = 9  # whose latents are quite others
    outs = np.zeros_like(PICTURES)
    first = Job(PICTURES[0], outs[0], other.snapshot(), share=0.3)
    tiny.paint_jobs([first])
    again = Job(PICTURES[1], outs[1], settings, past=first.latents, share=0.3)
    fresh = Job(PICTURES[1], outs[2], settings, share=0.3)
    tiny.paint_jobs([again, fresh])
    mixed = np.empty_like(PICTURES[1])
    tiny.paint_after(PICTURES[1], mixed, past=first.latents, share=0.3)
    assert np.abs(outs[1] - mixed.astype(int)).max() <= 1
    assert np.abs(outs[2] - tiny(PICTURES[1]).astype(int)).max() <= 1
    assert np.abs(outs[1] - outs[2].astype(int)).max() > 8


def test_jobs_that_do_not_fit_are_refused(engine: OneStep) -> None:
    settings, out = engine.snapshot(), np.empty((64, 72, 3), np.uint8)
    image = PICTURES[0]
    with pytest.raises(ValueError, match="there is no picture to paint"):
        engine.paint_jobs([])
    small = np.zeros((64, 64, 3), np.uint8)
    with pytest.raises(ValueError, match="must have one size, not 64x64, 72x64"):
        engine.paint_jobs([Job(image, out, settings), Job(small, small.copy(), settings)])
    with pytest.raises(ValueError, match=r"out must be uint8 of shape \(64, 72, 3\)"):
        engine.paint_jobs([Job(image, small, settings)])
    with pytest.raises(ValueError, match="a job has one picture"):
        engine.paint_jobs([Job(image[None], out[None], settings)])
    with pytest.raises(ValueError, match="multiples of 8, not 70x64"):
        engine.paint_jobs([Job(image[:, :70], out[:, :70], settings)])
    locked = out.copy()
    locked.flags.writeable = False
    with pytest.raises(ValueError, match="out is read-only"):
        engine.paint_jobs([Job(image, locked, settings)])
    if not engine.feeds_back_latents:
        with pytest.raises(ValueError, match="mix the picture itself"):
            engine.paint_jobs([Job(image, out, settings, share=0.2)])
