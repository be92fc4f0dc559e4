from __future__ import annotations

import os
import re
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamer.errors import GraphError, Problem
from streamer.graph.environment import substitute
from streamer.graph.reading import MAX_BYTES, read_text, read_tree, read_value
from streamer.graph.tree import MAX_DEPTH, Mapping, Place, Scalar, walk


def read(text: str, **environ: str) -> tuple[Any, list[str]]:
    problems: list[Problem] = []
    tree = read_tree(text, file="g.yaml", environ=environ, report=problems.append)
    problems += (m for item in walk(tree) if isinstance(item, Scalar) for m in item.mistakes)
    return tree.plain(), [str(problem) for problem in problems]


def refusal(text: str) -> str:
    with pytest.raises(GraphError) as caught:
        read(text)
    assert len(caught.value.problems) == 1
    return str(caught.value)


def test_values_are_those_of_the_core_schema() -> None:
    text = (
        "[yes, On, 12:30:45, 2001-01-01, 1_000, 0o17, 010, 0x1F, -3, 1e3, .5, ~, null, True, '5']"
    )
    values, problems = read(text)
    assert values == [
        "yes", "On", "12:30:45", "2001-01-01", "1_000", 15, 10, 31, -3, 1000.0, 0.5,
        None, None, True, "5",
    ]  # fmt: skip
    assert problems == []


def test_keys_are_texts() -> None:
    assert read("1: a\ntrue: b\n")[0] == {"1": "a", "true": "b"}


def test_every_value_knows_its_place() -> None:
    text = "nodes:\n  a: {uses: decoder,\n      with: [1, two]}\n"
    tree = read_tree(text, file="g", environ={}, report=pytest.fail)
    assert isinstance(tree, Mapping)
    node = tree.get("nodes").get("a")  # type: ignore[union-attr]
    assert tree.entries["nodes"].place == Place("g", 1, 1)
    assert node.entries["uses"].value.place == Place("g", 2, 13)
    assert node.entries["with"].value.items[1].place == Place("g", 3, 17)


def test_anchors_and_merges() -> None:
    values, problems = read(
        "base: &b {x: 1, y: 2}\nother: &o {y: 3, z: 4}\n"
        "one: {<<: *b, y: 9}\ntwo: {<<: [*b, *o]}\nthree: *b\n"
    )
    assert problems == []
    assert values["one"] == {"x": 1, "y": 9}
    assert values["two"] == {"x": 1, "y": 2, "z": 4}
    assert values["three"] == {"x": 1, "y": 2}


@pytest.mark.parametrize(
    ("text", "place", "words"),
    [
        ("a: 1\nb: 2\na: 3", "3:1", "duplicate key 'a', first in line 1"),
        ("a: {b: 1, 'b': 2}", "1:11", "duplicate key 'b'"),
        ("a: !!python/object/apply:os.system [x]", "1:4", "tag !!python/object/apply:os.system"),
        ("a: !mine 5", "1:4", "the tag !mine has no meaning"),
        ("a: !!int x", "1:4", "'x' is no !!int"),
        ('a: "\\0"', "1:4", "NUL"),
        ("? [a]\n: 1", "1:3", "a key must be a text"),
        ("{<<: 3}", "1:6", "takes a mapping"),
        ("a: " + "9" * 5000, "1:4", "a number of 5000 digits is too long"),
    ],
)
def test_mistakes_after_which_reading_goes_on(text: str, place: str, words: str) -> None:
    _, problems = read(text)
    assert len(problems) == 1
    assert problems[0].startswith(f"g.yaml:{place}: ")
    assert words in problems[0]


@pytest.mark.parametrize(
    ("text", "place", "words"),
    [
        ("url: demo:", "1:10", "a ':' in a value needs quotes: write \"demo:\""),
        ("a: b: c", "1:5", 'write "b: c"'),
        ("a: 1\n b: 2", "2:3", "check the indentation"),
        ("a:\n\tb: 1", "2:1", "a tab stands in the indentation"),
        ("a:\n  b: 1\n\tc: 2", "3:1", "a tab stands in the indentation"),
        ("a: 'x\n", "2:1", "the quote opened in line 1, column 4 is never closed"),
        ("a: [1, 2", "1:9", "the '[' opened in line 1, column 4 is not closed"),
        ("{a: 1, b", "1:9", "the '{' opened in line 1, column 1 is not closed"),
        ("a: {b: ${X}}", "1:9", 'needs quotes: "${NAME}"'),
        ("a: @x", "1:4", "'@' cannot begin a value"),
        ("a: *x", "1:4", "the alias *x has no anchor &x"),
        ("a: *", "1:5", "'*' begins an alias"),
        ("a: &x 1\nb: &x 2", "2:4", "anchor stands twice"),
        ("a: 1\n---\nb: 2", "2:1", "a second document"),
        ("a: - 1", "1:4", "begin the list in a line of its own"),
        ('a: "\\q"', "1:6", "unknown escape character 'q'"),
        ("- 1\nb: 2", "2:1", "does not continue the list begun in line 1"),
        ("a: \x01", "1:4", "U+0001"),
        ("a: &a [*a]", "1:4", "an alias stands inside the value that it repeats"),
        ("a: |x\n", "1:5", "after | or >"),
    ],
)
def test_syntax_errors_in_plain_words(text: str, place: str, words: str) -> None:
    said = refusal(text)
    assert said.startswith(f"g.yaml:{place}: ")
    assert words in said


def test_a_syntax_error_shows_no_password() -> None:
    assert "hunter2" not in refusal("url: rtsp://u:hunter2@h/x: y")


@pytest.mark.parametrize("text", ["", "# only a comment\n", " \n"])
def test_nothing_in_the_file(text: str) -> None:
    assert "is empty" in refusal(text)


def test_a_bomb_of_aliases_is_refused() -> None:
    lines = ["x0: &x0 [a, a, a, a, a, a, a, a, a]"]
    lines += [f"x{i}: &x{i} [{', '.join([f'*x{i - 1}'] * 9)}]" for i in range(1, 12)]
    assert "more than 20000 values once its aliases are written out" in refusal("\n".join(lines))


def test_deep_nesting_is_refused() -> None:
    assert f"more than {MAX_DEPTH} levels" in refusal("[" * 5000)
    assert f"more than {MAX_DEPTH} levels" in refusal(
        "\n".join("  " * i + "a:" for i in range(100))
    )


def test_many_values_are_refused() -> None:
    assert "more than 20000 values" in refusal("[" + "1," * 50_000 + "]")


def test_large_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "big.yaml"
    path.write_bytes(b"# " + b"x" * MAX_BYTES)
    with pytest.raises(GraphError, match="is larger than 1 MiB"):
        read_text(path)
    with pytest.raises(GraphError, match="is larger than 1 MiB"):
        read_text("/dev/zero")


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "quickstart.yaml").write_text("version: 1")
    with pytest.raises(GraphError, match=r"no such file; did you mean .*quickstart\.yaml\?"):
        read_text(tmp_path / "quikstart.yaml")
    with pytest.raises(GraphError, match=r"there is no such file$"):
        read_text(tmp_path / "elsewhere" / "quickstart.yaml")
    with pytest.raises(GraphError, match="is a directory"):
        read_text(tmp_path)
    with pytest.raises(GraphError, match="cannot be read: "):
        read_text("x" * 5000)
    with pytest.raises(GraphError, match="cannot be read: "):
        read_text("a\0b")
    latin = tmp_path / "latin.yaml"
    latin.write_bytes("name: x\nurl: né".encode("latin-1"))
    with pytest.raises(GraphError, match=r"latin.yaml:2:7: is not UTF-8 text: byte 0xe9 at 14"):
        read_text(latin)
    utf16 = tmp_path / "wide.yaml"
    utf16.write_bytes("version: 1".encode("utf-16"))
    with pytest.raises(GraphError, match=r"is not UTF-8 text: byte 0xff at 0$"):
        read_text(utf16)
    film = tmp_path / "holiday.mp4"
    film.write_bytes(b"\0\0\0\x20ftypisom\xcf")
    with pytest.raises(GraphError, match=r"no graph file at all .`streamer style` takes a film"):
        read_text(film)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read every file")
def test_a_file_without_permission(tmp_path: Path) -> None:
    path = tmp_path / "secret.yaml"
    path.write_text("version: 1")
    path.chmod(0)
    with pytest.raises(GraphError, match="permission denied"):
        read_text(path)


def test_a_byte_order_mark_is_no_mistake(tmp_path: Path) -> None:
    path = tmp_path / "bom.yaml"
    path.write_bytes(b"\xef\xbb\xbfversion: 1")
    assert read(read_text(path)) == ({"version": 1}, [])


def test_substitution() -> None:
    values, problems = read(
        "a: ${N}\nb: '${N}'\nc: ${M:-30}\nd: x${N}y\ne: $$x $y\nf: ${E:-d}\ng: ${T}\n"
        "h: ${P}\n'${N}': 1\ni: !!str ${N}\nj: ${M:-}\nk: cost $5\n",
        N="5",
        E="",
        T="true",
        P="[1, 2]: {a: b}\n- c",
    )
    assert problems == []
    assert values == {
        "a": 5,
        "b": "5",
        "c": 30,
        "d": "x5y",
        "e": "$x $y",
        "f": "d",
        "g": True,
        "h": "[1, 2]: {a: b}\n- c",
        "${N}": 1,
        "i": "5",
        "j": None,
        "k": "cost $5",
    }


def test_substitution_is_not_repeated() -> None:
    assert read("a: ${A}", A="${B}", B="x")[0] == {"a": "${B}"}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("${FPS}", "the environment variable FPS is not set; set it, or write ${FPS:-default}"),
        ("${RTSP_UR}", "is ${RTSP_URL} meant?"),
        ("x${a b}", "'${a b}' is no substitution"),
        ("x${a", "write ${NAME} or ${NAME:-default}, and $$ for a dollar sign"),
        ("${}", "'${}' is no substitution"),
        ("${A-b}", "'${A-b}' is no substitution"),
        ("${ODD}", "ODD holds bytes that are no UTF-8 text"),
        ("${BIG}", "longer than 65536 characters"),
    ],
)
def test_wrong_substitutions(text: str, words: str) -> None:
    said: list[str] = []
    environ = {"RTSP_URL": "x", "ODD": "\udcff", "BIG": "x" * 65_537}
    assert not substitute(text, environ, said.append).known
    assert len(said) == 1
    assert words in said[0]


def test_unset_variables_are_told_with_their_places() -> None:
    values, problems = read("a: ${X}\nb:\n  - ${Y}\n")
    assert values == {"a": None, "b": [None]}
    assert [re.sub(" is not set.*", "", text) for text in problems] == [
        "g.yaml:1:4: the environment variable X",
        "g.yaml:3:5: the environment variable Y",
    ]


@pytest.mark.parametrize(
    ("typed", "value"),
    [
        ("comic", "comic"),
        ("5", 5),
        ("0.5", 0.5),
        ("true", True),
        ("null", None),
        ("", None),
        ("demo:", "demo:"),
        ("*.png", "*.png"),
        ("a # b: c", "a # b: c"),
        ("%05d.png", "%05d.png"),
        ("$HOME ${X}", "$HOME ${X}"),
        ("'5'", "5"),
        ('"${X}"', "${X}"),
        ("[640, 480]", [640, 480]),
        ("{a: b, c: {d: 1}}", {"a": "b", "c": {"d": 1}}),
    ],
)
def test_values_on_the_command_line(typed: str, value: object) -> None:
    assert read_value(typed, Place("--set"), pytest.fail).plain() == value


@pytest.mark.parametrize("typed", ["[1, 2", "'x", "{a: 1} b", "[" * 100])
def test_wrong_values_on_the_command_line(typed: str) -> None:
    problems: list[Problem] = []
    value = read_value(typed, Place("--set a.b=..."), problems.append)
    assert isinstance(value, Scalar)
    assert not value.known
    assert [str(p) for p in problems] == [
        "--set a.b=...: the value is no valid YAML; put it in quotes: '\"...\"'"
    ]


@given(st.text())
def test_any_text_is_read_or_refused(text: str) -> None:
    with suppress(GraphError):
        read(text, A="x", B="")


@given(st.text(alphabet="ab01:-{}[]&*!|>'\"%@`#,?<\\ \t\n$~.", max_size=60))
def test_any_yaml_like_text_is_read_or_refused(text: str) -> None:
    with suppress(GraphError):
        read(text, A="x", B="")


@given(data=st.binary(max_size=200))
def test_any_bytes_are_read_or_refused(
    data: bytes, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.getbasetemp() / "any.yaml"
    path.write_bytes(data)
    with suppress(GraphError):
        read(read_text(path))
