"""The spare process: kept ready, handed over, and replaced ever more rarely when it dies."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import pytest

from streamer.errors import RunError
from streamer.runtime.spare import FIRST_PAUSE, LONGEST_PAUSE, Spare


class Process:
    """Stands for a process; `made` lists all that were started."""

    made: list[Process]
    dies = False
    refused = False

    def __init__(self, *, board_fd: int) -> None:
        if self.refused:
            raise RunError("too many processes")
        self.closed = False
        self.entries: Sequence[str] = ()
        self.made.append(self)

    def prepare(self, entries: Sequence[str]) -> None:
        self.entries = entries

    def poll(self) -> int | None:
        return 1 if self.dies else None

    def lines(self, *, rest: bool) -> list[str]:
        return ["one", "two", "rtsp://me:hunter2@cam", "", "ImportError: no torch"]

    def kill(self) -> None:
        pass

    def close(self) -> None:
        self.closed = True


@pytest.fixture
def process(monkeypatch: pytest.MonkeyPatch) -> type[Process]:
    kind = type("Kind", (Process,), {"made": []})
    monkeypatch.setattr("streamer.runtime.spare.WorkerProcess", kind)
    return kind


def starts(spare: Spare, process: type[Process], *, seconds: int) -> list[float]:
    """When processes are started while somebody looks four times a second."""
    found: list[float] = []
    for tick in range(seconds * 4):
        before = len(process.made)
        spare.keep(["made_nodes:Work"], now=1000 + tick / 4)
        found += [tick / 4] * (len(process.made) - before)
    return found


def test_one_is_kept_and_handed_over_and_another_follows(process: type[Process]) -> None:
    spare = Spare(board_fd=0, say=lambda _: None)
    assert spare.take() is None
    assert starts(spare, process, seconds=10) == [0]
    assert process.made[0].entries == ["made_nodes:Work"]
    assert spare.take() is process.made[0]
    assert spare.take() is None
    assert starts(spare, process, seconds=10) == [0]
    spare.dismiss()
    assert [made.closed for made in process.made] == [False, True]


def test_one_that_dies_is_replaced_ever_more_rarely_and_told_of_once(
    process: type[Process],
) -> None:
    process.dies = True
    said: list[str] = []
    spare = Spare(board_fd=0, say=said.append)
    at = starts(spare, process, seconds=3600)
    pauses = [later - earlier for earlier, later in pairwise(at)]
    # Each is found dead at the look after its start.
    assert pauses[:3] == [0.25 + FIRST_PAUSE * 2**number for number in range(3)]
    assert pauses == sorted(pauses)
    assert pauses[-1] == 0.25 + LONGEST_PAUSE
    assert all(made.closed for made in process.made[:-1])
    (text,) = said
    assert "two | rtsp://***@cam | ImportError: no torch" in text


def test_a_dead_one_is_not_handed_over(process: type[Process]) -> None:
    spare = Spare(board_fd=0, say=lambda _: None)
    spare.keep([], now=1)
    process.dies = True
    assert spare.take() is None
    spare.keep([], now=2)
    assert process.made[0].closed


def test_a_system_that_starts_no_process_is_not_asked_at_every_look(
    process: type[Process],
) -> None:
    process.refused = True
    spare = Spare(board_fd=0, say=lambda _: None)
    spare.keep([], now=1)
    process.refused = False
    spare.keep([], now=1.25)
    assert process.made == []
    spare.keep([], now=1 + FIRST_PAUSE)
    assert len(process.made) == 1
