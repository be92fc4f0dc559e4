from __future__ import annotations

from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from streamer.graph.parameters import Parameter, parameters
from streamer.graph.schema import description, emits, graph_schema
from streamer.registry import kinds, load

CONFIGS = sorted((Path(__file__).parents[3] / "configs").glob("*.yaml"))


@pytest.fixture(scope="module")
def validator() -> jsonschema.Draft202012Validator:
    schema = graph_schema(pytest.fail)
    jsonschema.Draft202012Validator.check_schema(schema)
    return jsonschema.Draft202012Validator(schema)


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_configs_are_valid(path: Path, validator: jsonschema.Draft202012Validator) -> None:
    validator.validate(yaml.safe_load(path.read_text("utf-8")))


def test_there_are_configs() -> None:
    assert {path.stem for path in CONFIGS} >= {
        "quickstart", "file-to-file", "webcam-to-obs", "rtsp-to-obs", "three-styles",
    }  # fmt: skip


def graph() -> dict[str, Any]:
    return {
        "version": 1,
        "nodes": {
            "source": {"uses": "decoder", "with": {"url": "demo:"}},
            "style": {"uses": "sdxs", "from": {"node": "source", "queue": "latest", "depth": 2}},
            "mine": {"uses": "my.module:Node", "from": "style", "with": {"anything": [1]}},
            "wall": {"uses": "mosaic", "from": ["style", {"node": "mine"}], "with": None},
            "sink": {
                "uses": "encoder",
                "from": "wall",
                "with": {"url": "x.mp4"},
                "gpu": "${GPU:-0}",
                "restart": {"policy": "never", "max": 3, "window": 9.5},
            },
        },
        "workers": {"gpu0": ["style", "mine"]},
    }


def test_a_graph_of_every_form_is_valid(validator: jsonschema.Draft202012Validator) -> None:
    validator.validate(graph())


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("version",), 2),
        (("nam",), "x"),
        (("nodes",), {}),
        (("nodes", "style!"), {"uses": "decoder", "with": {"url": "x"}}),
        (("nodes", "style", "uses"), "sdx"),
        (("nodes", "style", "frm"), "source"),
        (("nodes", "style", "from"), {"node": "source", "queue": "newest"}),
        (("nodes", "style", "from"), {"node": "source", "depth": 0}),
        (("nodes", "style", "from"), {"node": "source", "depth": 65}),
        (("nodes", "style", "from"), ["source", "wall"]),
        (("nodes", "style", "with"), {"promt": "ink"}),
        (("nodes", "style", "with"), {"seed": "abc"}),
        (("nodes", "style", "with"), {"conditioning_scale": -1}),
        (("nodes", "style", "gpu"), -1),
        (("nodes", "source", "from"), "style"),
        (("nodes", "source", "with"), None),
        (("nodes", "source", "with"), {}),
        (("nodes", "sink", "restart", "policy"), "sometimes"),
        (("nodes", "sink", "restart", "max"), -1),
        (("workers", "gpu0"), []),
        (("workers", "gpu0"), "style"),
    ],
)  # fmt: skip
def test_typical_mistakes_are_not(
    path: tuple[str, ...], value: object, validator: jsonschema.Draft202012Validator
) -> None:
    data = graph()
    at = data
    for step in path[:-1]:
        at = at[step]
    at[path[-1]] = value
    assert not validator.is_valid(data)


@pytest.mark.parametrize("missing", [("version",), ("nodes",), ("nodes", "style", "from")])
def test_what_must_be_there(
    missing: tuple[str, ...], validator: jsonschema.Draft202012Validator
) -> None:
    data = graph()
    at = data
    for step in missing[:-1]:
        at = at[step]
    del at[missing[-1]]
    assert not validator.is_valid(data)


def test_variables_may_stand_for_numbers(validator: jsonschema.Draft202012Validator) -> None:
    data = graph()
    data["nodes"]["source"]["with"]["fps"] = "${FPS:-30}"
    data["nodes"]["style"]["with"] = {"seed": "${SEED}"}
    validator.validate(data)
    data["nodes"]["source"]["with"]["fps"] = "$FPS"
    assert not validator.is_valid(data)


def test_a_kind_that_cannot_be_imported_is_told_and_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    both = {**kinds(), "gone": "absent_module:Gone"}
    monkeypatch.setattr("streamer.graph.schema.kinds", lambda: both)
    monkeypatch.setattr("streamer.registry.kinds", lambda: both)
    monkeypatch.setattr("streamer.graph.draft.kinds", lambda: both)
    said: list[str] = []
    schema = graph_schema(said.append)
    assert len(said) == 1
    assert "absent_module" in said[0]
    uses = schema["$defs"]["NodeSpec"]["properties"]["uses"]["anyOf"]
    assert {"const": "gone"} in uses


def test_parameters_for_people() -> None:
    listed = {item.name: item for item in parameters(load("graph_kinds:Camera"))}
    assert listed["fps"] == Parameter(
        name="fps",
        type="whole number",
        required=False,
        default=30,
        unit="1/s",
        range="1 to 240",
        choices=False,
        live=False,
        description="pictures a second",
    )
    assert listed["fps"].value == "whole number 1 to 240 (1/s)"
    assert listed["url"].required
    assert (listed["live"].type, listed["live"].shown_default) == ("true or false", "true")
    assert listed["options"].type == "mapping to text"
    style = {item.name: item for item in parameters(load("graph_kinds:Style"))}
    assert style["prompt"].value == "ink, oil, comic"
    assert style["strength"].range == "over 0, at most 2"
    assert style["size"].type == "whole number or list"
    [amount] = parameters(load("graph_kinds:invert"))
    assert (amount.name, amount.type, amount.shown_default) == ("amount", "number", "1.0")


@pytest.mark.parametrize("kind", list(kinds()))
def test_every_parameter_of_the_built_in_kinds_is_described(kind: str) -> None:
    node_class = load(kind)
    assert description(node_class)
    assert [item.name for item in parameters(node_class) if not item.description] == []


def test_formats_that_kinds_make() -> None:
    assert emits(load("graph_kinds:Wide")) == ("rgb24", "gray")
    assert emits(load("graph_kinds:Camera")) == ()
