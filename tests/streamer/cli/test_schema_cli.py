from __future__ import annotations

import json

import jsonschema
import pytest

from streamer.cli import main


def test_the_schema_is_one(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["schema"]) == 0
    said = capsys.readouterr()
    schema = json.loads(said.out)
    jsonschema.Draft202012Validator.check_schema(schema)
    assert schema["$schema"].endswith("2020-12/schema")
    assert set(schema["required"]) == {"version", "nodes"}
    assert "sdxs.with" in schema["$defs"]
    assert said.err == ""
