"""The benchmark, on the model that comes along and a few pictures of the clip that does."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
import typer
from typer.testing import CliRunner

from nodes.sdxs import OneStep
from nodes.stability.bench import command
from nodes.stability.compare import Case, cases, compare, read_pictures
from streamer import ParameterError, SourceError

SIZE = (128, 128)


@pytest.fixture(scope="module")
def pictures():
    return read_pictures("demo:", SIZE, count=6)


def load():
    engine = OneStep.load("bundled", threads=2)
    engine.prompt = "ink"
    return engine


def invoke(*arguments):
    app = typer.Typer()
    app.command()(command)
    return CliRunner().invoke(app, list(arguments))


def test_pictures_are_read_in_the_size_that_was_asked_for(pictures):
    assert len(pictures) == 6
    assert {picture.shape for picture in pictures} == {(128, 128, 3)}
    assert len({picture.tobytes() for picture in pictures}) == 6
    with pytest.raises(SourceError, match="nowhere"):
        read_pictures("/nowhere/at/all.mp4", SIZE, count=2)


def test_new_noise_is_less_steady_than_fixed_noise(pictures):
    extra = [Case("held", {"conditioning_scale": 2.0})]
    rows = {row.name: row for row in compare(load, pictures, extra=extra)}
    fixed, new, held = (
        rows[name] for name in ("fixed noise", "new noise for every picture", "held")
    )
    assert new.motion.styled_error > fixed.motion.styled_error
    assert new.still_styled > 1.2 * fixed.still_styled
    assert new.still_source == fixed.still_source
    assert new.motion.source_error == fixed.motion.source_error
    # Where the source is nearly all there is, the result is nearly as steady.
    assert held.motion.score > fixed.motion.score
    assert fixed.motion.pairs == 5


def test_a_setting_that_the_model_lacks_is_refused(pictures):
    with pytest.raises(ParameterError, match="option wobble: the model has no such setting"):
        cases(load(), [Case("x", {"wobble": 1})])
    with pytest.raises(ParameterError, match=r"option conditioning_scale: .* from 0 to 2"):
        compare(load, pictures, extra=[Case("x", {"conditioning_scale": 9})])


def test_the_command_prints_facts(pictures):
    done = invoke("--frames", "4", "--size", "128x128", "--json", "--option", "seed=7")
    assert done.exit_code == 0, done.output
    facts = json.loads(done.stdout)
    assert facts["size"] == [128, 128]
    names = [case["name"] for case in facts["cases"]]
    assert names[0] == "fixed noise"
    assert names[-1] == "seed=7"
    for case in facts["cases"]:
        assert case["motion"]["pairs"] == 3
        assert case["motion"]["score"] > 0
        assert case["still"]["source"] > 1
        assert case["ms"] > 0


def test_the_command_prints_a_table():
    done = invoke("--frames", "3", "--size", "128x128")
    assert done.exit_code == 0, done.output
    assert "warp error" in done.stdout
    assert "fixed noise" in done.stdout
    assert "measuring: new noise" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--size", "127x128"), "multiples of"),
        (("--size", "big"), "WIDTHxHEIGHT"),
        (("--option", "seed"), "NAME=VALUE"),
        (("--condition", "canny"), "--control"),
        (("--condition", "pose", "--control", "random"), "not 'pose'"),
    ],
)
def test_arguments_that_make_no_sense(arguments, message):
    done = invoke(*arguments)
    assert done.exit_code == 2
    assert message in " ".join(done.output.replace("│", " ").split())


def test_the_command_is_registered_without_loading_anything_heavy():
    code = (
        "import sys, nodes.stability.bench\n"
        "heavy = {'torch', 'cv2', 'numpy', 'av', 'openvino'} & set(sys.modules)\n"
        "sys.exit(f'loaded {sorted(heavy)}' if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
