"""What is remembered of work that goes on beside a node's states."""

from __future__ import annotations

import pytest

from streamer.runtime.progress import MOST_PARTS, Progress, Stage


def test_a_stage_stays_through_the_states_of_a_node_that_gets_on() -> None:
    progress = Progress()
    progress.hear("style", "loading the U-Net", 1, 5)
    for state in ("opening", "ready", "running"):
        assert progress.through("style", state, "") == "loading the U-Net"
    assert progress.through("style", "running", "another text") == "another text"
    assert progress.through("other", "running", "") == ""
    assert progress.of("style") == Stage("loading the U-Net", 1, 5)
    progress.hear("style", "", 0, 0)
    assert (progress.of("style"), progress.through("style", "running", "")) == (None, "")


@pytest.mark.parametrize("state", ["starting", "restarting", "resting", "failed", "finished"])
def test_it_ends_with_the_process(state: str) -> None:
    progress = Progress()
    progress.hear("style", "loading the U-Net", 1, 5)
    assert progress.through("style", state, "why") == "why"
    assert progress.of("style") is None


@pytest.mark.parametrize(
    ("done", "of"), [(0, 0), (-1, 5), (6, 5), (1, -1), (0, MOST_PARTS + 1), (1 << 62, 1 << 62)]
)
def test_what_makes_no_sense_is_no_progress(done: int, of: int) -> None:
    progress = Progress()
    progress.hear("style", "loading", 1, 2)
    progress.hear("style", "loading", done, of)
    assert progress.of("style") is None
