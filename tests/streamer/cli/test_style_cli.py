"""Mistakes of `streamer style` are told in the words that were typed."""

from __future__ import annotations

from pathlib import Path

import pytest

from streamer.cli import main


def refused(capsys: pytest.CaptureFixture[str], *words: str) -> list[str]:
    assert main(["style", *words]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    return said.err.splitlines()


def test_every_mistake_names_its_option(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    words = ("--size", "100", "--fit", "wide", "--prompt", "cubist", "--scale", "9", "--seed", "-1")
    heading, *mistakes = refused(capsys, "in.mp4", str(tmp_path / "out.xyz"), *words)
    assert heading == "streamer: error: 6 mistakes"
    assert sorted(line.partition(":")[0] for line in mistakes) == [
        *("--fit", "--prompt", "--scale", "--seed", "--size", "OUTPUT"),
    ]
    assert "--scale: must be at most 2, not 9.0" in mistakes
    (only,) = refused(capsys, "in.mp4", "out.mp4", "--model", "nowhere")
    assert only.startswith("streamer: error: --model: no model 'nowhere'")
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_would_be_written_over_is_told_as_the_output(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    clip = tmp_path / "in.mp4"
    clip.write_bytes(b"x")
    (only,) = refused(capsys, str(clip), str(clip))
    assert only.startswith("streamer: error: OUTPUT: ")
    (only,) = refused(capsys, "in\udcff.mp4", "out.mp4")
    assert only.startswith("streamer: error: INPUT: ")


def test_an_empty_input_is_told_as_the_input(capsys: pytest.CaptureFixture[str]) -> None:
    (only,) = refused(capsys, "", "out.mp4")
    assert only.startswith("streamer: error: INPUT: ")
