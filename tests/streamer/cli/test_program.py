"""The program in odd surroundings: no current folder, an output that takes nothing."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from streamer.cli.running import _write

STREAMER = Path(sys.executable).parent / "streamer"


def called(command: str, **environ: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["bash", "-c", f"{command}", "bash", STREAMER],
        env={**os.environ, **environ},
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        check=False,
    )


def test_a_folder_that_was_removed_matters_to_nobody_who_does_not_need_it(tmp_path: Path) -> None:
    gone = tmp_path / "gone"
    done = called(f"mkdir '{gone}' && cd '{gone}' && rmdir '{gone}' && \"$1\" nodes")
    assert done.returncode == 0, done.stderr
    assert "decoder" in done.stdout


@pytest.mark.parametrize("command", ["nodes", "nodes decoder", "schema"])
def test_an_output_that_takes_nothing_is_told_in_a_sentence(command: str) -> None:
    done = called(f'"$1" {command} >/dev/full')
    assert done.returncode == 1
    assert done.stderr == "streamer: error: standard output: No space left on device\n"


def test_signs_that_an_output_does_not_know_are_written_otherwise(tmp_path: Path) -> None:
    graph = tmp_path / "g.yaml"
    graph.write_text(
        "version: 1\nname: show\nnodes:\n  a: {uses: decoder, with: {url: 'demo:'}}\n"
        "  b: {uses: encoder, from: a, with: {url: 'Übersicht.mp4'}}\n"
    )
    done = called(f"\"$1\" graph '{graph}'", PYTHONIOENCODING="ascii")
    assert done.returncode == 0, done.stderr
    assert "a" in done.stdout


def test_a_report_goes_where_a_link_leads(tmp_path: Path) -> None:
    (tmp_path / "runs").mkdir()
    link, real = tmp_path / "latest.json", tmp_path / "runs/1.json"
    link.symlink_to(real)
    for text in ("{}", '{"later": 1}'):
        _write(link, text)
        assert real.read_text() == text
    assert link.is_symlink()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["latest.json", "runs"]


def test_a_report_that_cannot_be_replaced_is_written_in_place(tmp_path: Path) -> None:
    # As Docker brings a single file into a container.
    outside, inside = tmp_path / "outside.json", tmp_path / "inside.json"
    outside.write_text("a former and longer report")
    inside.touch()
    mounted = subprocess.run(
        ["mount", "--bind", outside, inside], capture_output=True, check=False
    ).returncode
    if mounted:
        pytest.skip("no file can be mounted here")
    try:
        _write(inside, "{}")
    finally:
        subprocess.run(["umount", "-l", inside], check=True)
    assert outside.read_text() == "{}"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["inside.json", "outside.json"]
