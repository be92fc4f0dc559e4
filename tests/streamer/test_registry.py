"""Kinds of nodes: found by installed entry points, or by their place, with clear refusals."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from streamer import registry
from streamer.nodebase import Node, Transform
from streamer.registry import UnknownKindError


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder for packages that are installed for one test."""
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    return tmp_path


def install(site: Path, package: str, kinds: dict[str, str], code: str) -> None:
    """What an installer leaves: a module, and the metadata of its distribution."""
    (site / f"{package}.py").write_text(code)
    metadata = site / f"{package}-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n")
    lines = [f"{kind} = {place}" for kind, place in kinds.items()]
    (metadata / "entry_points.txt").write_text("[streamer.nodes]\n" + "\n".join(lines))


GOOD = "import streamer\n\n@streamer.node\ndef invert(frame):\n    return 255 - frame.numpy()\n"


def test_built_in_and_third_party_kinds_are_found_alike(site: Path) -> None:
    before = registry.kinds()
    assert {"decoder", "preprocess", "sdxs", "encoder", "mosaic"} <= set(before)
    assert list(before) == sorted(before)
    install(site, "third_party_invert", {"invert": "third_party_invert:invert"}, GOOD)
    assert registry.kinds() == {**before, "invert": "third_party_invert:invert"}
    assert issubclass(registry.load("invert"), Transform)
    assert registry.load("third_party_invert:invert") is registry.load("invert")


def test_every_built_in_kind_is_a_node() -> None:
    for kind, place in registry.kinds().items():
        if place.startswith("nodes."):
            assert issubclass(registry.load(kind), Node)


def test_listing_kinds_imports_none_of_them(site: Path) -> None:
    install(site, "never_imported", {"never": "never_imported:Never"}, "raise SystemExit(3)")
    assert registry.kinds()["never"] == "never_imported:Never"
    assert "never_imported" not in sys.modules


def test_a_module_that_ends_the_program_is_no_node(site: Path) -> None:
    (site / "a_tool_of_mine.py").write_text("import sys\n\nsys.exit(0)\n")
    with pytest.raises(UnknownKindError, match="it ends the program when it is imported"):
        registry.load("a_tool_of_mine:Node")


def test_two_packages_with_one_name_are_told_apart(site: Path) -> None:
    install(site, "first_package", {"twice": "first_package:invert"}, GOOD)
    install(site, "second_package", {"twice": "second_package:invert"}, GOOD)
    said = "2 installed packages offer a node 'twice': name the one you mean, first_package:invert"
    with pytest.raises(UnknownKindError, match=said):
        registry.load("twice")
    assert registry.load("second_package:invert").__module__ == "second_package"


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("decodr", "unknown kind of node 'decodr'; known: .*decoder, encoder"),
        ("", "unknown kind of node ''"),
        (":Style", "unknown kind of node ':Style'"),
        ("nodes.decoder:", "unknown kind of node"),
        ("no_such_package:Node", "No module named 'no_such_package'"),
        ("streamer.errors:NoSuch", "has no attribute 'NoSuch'"),
        ("streamer.errors:NodeError", "streamer.errors:NodeError is not a node class"),
        ("json:loads", "json:loads is not a node class"),
        (".relative:Node", "unknown kind of node '.relative:Node'"),
    ],
)
def test_what_is_no_kind_is_refused(kind: str, said: str) -> None:
    with pytest.raises(UnknownKindError, match=said) as refused:
        registry.load(kind)
    assert refused.value.exit_status == 2


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("def broken(:", "SyntaxError"),
        ("1 / 0", "ZeroDivisionError"),
        ("raise OSError('no such device')", "no such device"),
        ("import no_such_dependency", "No module named 'no_such_dependency'"),
    ],
)
def test_a_module_that_fails_is_named_with_its_reason(site: Path, code: str, said: str) -> None:
    install(site, "failing_package", {"failing": "failing_package:Node"}, code)
    with pytest.raises(UnknownKindError, match=f"failing_package:Node: .*{said}"):
        registry.load("failing")
