from __future__ import annotations

import json

import pytest

from streamer.cli import main
from streamer.registry import kinds


@pytest.fixture(autouse=True)
def _wide(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "120")


def test_all_kinds_with_a_line_each(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["nodes"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["kind", "role", "what", "it", "does"]
    shown = {line.split()[0]: line for line in lines[1 : 1 + len(kinds())]}
    assert shown.keys() == kinds().keys()
    assert "source" in shown["decoder"]
    assert not any("cannot be loaded" in line for line in lines)


def test_all_kinds_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["nodes", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    roles = {
        "decoder": "source", "preprocess": "transform", "sdxs": "transform",
        "mosaic": "join", "encoder": "sink",
    }  # fmt: skip
    assert {name: found[name]["role"] for name in roles} == roles
    assert all(about["description"] for about in found.values())


def test_a_kind_that_cannot_be_imported_is_listed_with_the_reason(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    both = {"gone": "absent_module:Gone", **kinds()}
    monkeypatch.setattr("streamer.registry.kinds", lambda: both)
    monkeypatch.setattr("streamer.graph.draft.kinds", lambda: both)
    assert main(["nodes", "--json"]) == 0
    assert "No module named 'absent_module'" in json.loads(capsys.readouterr().out)["gone"]["error"]
    assert main(["nodes"]) == 0
    assert "cannot be loaded" in capsys.readouterr().out


@pytest.mark.parametrize("kind", list(kinds()))
def test_one_kind(kind: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["nodes", kind, "--json"]) == 0
    about = json.loads(capsys.readouterr().out)
    assert about["name"] == kind
    assert main(["nodes", kind]) == 0
    table = capsys.readouterr().out
    for item in about["parameters"]:
        assert item["description"]
        assert item["type"]
        assert item["required"] != ("default" in item)
        assert any(line.startswith(item["name"]) for line in table.splitlines())


def test_units_and_ranges_are_shown(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["nodes", "decoder", "--json"]) == 0
    listed = {item["name"]: item for item in json.loads(capsys.readouterr().out)["parameters"]}
    assert listed["url"]["required"]
    assert listed["timeout"]["unit"] == "s"
    assert listed["timeout"]["range"] == "over 0, at most 300"


def test_an_unknown_kind(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["nodes", "decodr"]) == 2
    assert capsys.readouterr().err == (
        "streamer: error: unknown kind of node 'decodr'; did you mean 'decoder'?\n"
    )
