"""What a training in full would take, and whether what it says follows from its settings."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from nodes.sdxs.distill.full import chain
from nodes.sdxs.distill.full.run import stages
from nodes.sdxs.distill.full.settings import Full
from nodes.sdxs.distill.layouts import TEACHERS
from nodes.sdxs.distill.plan import TRAVELLING, costs, estimate, uses
from nodes.sdxs.distill.settings import CONFIGS, load


def test_a_plan_counts_without_loading() -> None:
    settings = load("sd15", Full)
    assert costs("sd15")["student"].parameters == 315_746_244
    one, eight = estimate(settings), estimate(settings, processes=8)
    assert [stage.stage for stage in one] == list(chain.FUNCTIONS)
    for alone, together in zip(one, eight, strict=True):
        assert 2**30 < alone.bytes < 96 * 2**30
        assert together.hours == pytest.approx(8 * alone.hours)
        # Gradients on their way are all that comes on top, some at a time.
        assert together.bytes - alone.bytes == TRAVELLING
    # Score distillation holds two large networks in training.
    by_name = {stage.stage: stage for stage in one}
    assert by_name["score"].bytes > by_name["unet"].bytes
    assert eight[4].batch == 1024


def test_a_plan_follows_the_settings() -> None:
    fields = yaml.safe_load((CONFIGS / "sd15.yaml").read_text())

    def planned(**changes: Any) -> dict[str, Any]:
        changed = {**fields, **{key: fields[key] | more for key, more in changes.items()}}
        return {one.stage: one for one in estimate(Full.model_validate(changed))}

    plain = planned()
    # The few-step model is the teacher itself: its weights are in memory once.
    same = planned(sources={"straight": fields["sources"]["teacher"]})
    weights = 4 * costs("sd15")["teacher"].parameters
    assert plain["score"].bytes - same["score"].bytes == weights
    assert plain["score"].hours == same["score"].hours
    # Twice as often, and in no more memory.
    busy = planned(score={"online_steps": 2})
    assert busy["score"].hours > plain["score"].hours
    assert busy["score"].bytes == plain["score"].bytes
    free = planned(one_step_control={"guidance": 1.0})
    assert free["one_step_control"].hours < plain["one_step_control"].hours
    assert free["score"] == plain["score"]
    # Attention keeps what it is given and gives, and grows with the picture no faster than it.
    small, large = (costs("sd15", side)["teacher"] for side in (256, 512))
    assert 3.5 * small.kept < large.kept < 4.5 * small.kept
    assert large.operations > 4 * small.operations
    # The first half is less than half of the work, and nothing is kept for its weights.
    half = costs("sd15")["backbone"]
    assert 0.2 < half.operations / costs("sd15")["teacher"].operations < 0.5
    assert "unet" not in uses(load("vega", Full))


@pytest.mark.parametrize("name", TEACHERS)
def test_every_teacher_has_a_configuration(name: str) -> None:
    settings = load(name, Full)
    assert settings.layout == name
    assert settings.resolution == TEACHERS[name].resolution
    # Where the student keeps the teacher's layout, there is nothing to distil it from.
    assert (settings.unet is None) == (settings.layout == "vega")
    for stage in set(stages(settings, controlled=True)) - {"decoder", "polish"}:
        part: Any = getattr(settings, stage)
        # The paper's: 1,024 to 2,048 pictures a step, here on 8 processes.
        assert 1024 <= 8 * part.batch * part.accumulate <= 2048
