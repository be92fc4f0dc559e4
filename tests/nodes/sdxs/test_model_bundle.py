from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from nodes.sdxs import OneStep
from nodes.sdxs.bundle import GRAPH, STYLE, WEIGHTS, Bundle


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    folder = tmp_path / "model"
    shutil.copytree(Bundle.open("bundled").folder, folder)
    return folder


def damage(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(bytes(content))


def test_the_committed_graph_was_made_from_the_committed_weights() -> None:
    assert Bundle.open("bundled").graph_problem() is None


def test_the_model_is_small() -> None:
    folder = Bundle.open("bundled").folder
    assert sum((folder / name).stat().st_size for name in WEIGHTS) < 8_000_000
    assert sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) < 16_000_000


@pytest.mark.parametrize("name", [*WEIGHTS, *GRAPH])
def test_a_changed_file_is_noticed(copy: Path, name: str) -> None:
    pytest.importorskip("openvino")
    damage(copy / name)
    assert Bundle.open(copy).graph_problem() == f"{name} has changed since the graph was made"
    with pytest.raises(ValueError, match=f"cannot run in OpenVINO: {name} has changed"):
        OneStep.load(copy, backend="openvino")


def test_without_a_graph_torch_takes_over_and_it_is_said(
    copy: Path, caplog: pytest.LogCaptureFixture
) -> None:
    shutil.rmtree(copy / "openvino")
    assert "is missing" in str(Bundle.open(copy).graph_problem())
    assert OneStep.load(copy).backend == "torch"
    assert "more slowly" in caplog.text
    assert "is missing" in caplog.text


def test_an_unreadable_list_of_hashes_is_noticed(copy: Path) -> None:
    (copy / "openvino" / "made_from.json").write_text("[]")
    assert Bundle.open(copy).graph_problem() == "openvino/made_from.json cannot be read"


@pytest.mark.parametrize(
    ("content", "complaint"),
    [("{}", "format"), ("[]", ""), ("not json", ""), ('{"format": 2}', "format 2")],
)
def test_a_folder_that_is_no_model_is_refused(tmp_path: Path, content: str, complaint: str) -> None:
    (tmp_path / "config.json").write_text(content)
    with pytest.raises(ValueError, match=f"does not describe a one-step model: .*{complaint}"):
        OneStep.prompts_of(tmp_path)


def test_a_folder_may_be_named_from_home(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(copy.parent))
    name = f"~/{copy.name}"
    assert OneStep.prompts_of(name) == OneStep.prompts_of(copy)
    OneStep.check_prompt("ink", name)
    assert OneStep.load(name, threads=1).prompts == OneStep.prompts_of(copy)


def test_a_vocabulary_without_tokens_is_refused(copy: Path) -> None:
    config = json.loads((copy / "config.json").read_text())
    config["styles"].append("mosaic")
    (copy / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match=rf"{STYLE} holds tokens of shape .* for 7 styles"):
        OneStep.load(copy)


def test_nothing_says_where_the_model_was_made() -> None:
    folder = Bundle.open("bundled").folder
    for path in (*folder.rglob("*.json"), *folder.rglob("*.xml"), *folder.rglob("*.md")):
        text = path.read_text()
        assert "_name_or_path" not in text, path
        assert str(Path.home()) not in text, path
        assert str(folder.parents[2]) not in text, path
