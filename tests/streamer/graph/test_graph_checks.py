from __future__ import annotations

import textwrap
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamer import Graph, GraphError

GOOD = """\
version: 1
name: good
nodes:
  camera: {uses: "graph_kinds:Camera", with: {url: "rtsp://127.0.0.1/x"}}
  style:
    uses: graph_kinds:Style
    from: camera
    with: {prompt: ink}
  out: {uses: "graph_kinds:Sheet", from: style, with: {path: out.mkv}}
"""


def problems(text: str, overrides: Sequence[str] = (), **environ: str) -> list[str]:
    with pytest.raises(GraphError) as caught:
        Graph.parse(text, file="g.yaml", overrides=overrides, environ=environ)
    assert caught.value.exit_status == 2
    return [str(problem) for problem in caught.value.problems]


def graph(**nodes: dict[str, Any]) -> dict[str, Any]:
    return {"nodes": nodes}


CAMERA = {"uses": "graph_kinds:Camera", "with": {"url": "x"}}


def style(source: Any = "camera", **params: Any) -> dict[str, Any]:
    return {"uses": "graph_kinds:Style", "from": source, "with": params}


def sheet(source: Any = "style", **params: Any) -> dict[str, Any]:
    return {"uses": "graph_kinds:Sheet", "from": source, "with": {"path": "x.mkv", **params}}


def refused(data: dict[str, Any]) -> list[str]:
    with pytest.raises(GraphError) as caught:
        Graph.from_dict(data)
    return [problem.message for problem in caught.value.problems]


def test_a_good_graph() -> None:
    made = Graph.parse(GOOD)
    assert repr(made) == "<Graph good: camera → style → out>"
    assert list(made.nodes) == ["camera", "style", "out"]
    assert made.nodes["style"].params == {"prompt": "ink"}


def cases() -> list[tuple[str, str, str, str]]:
    table = (Path(__file__).parent / "mistakes.txt").read_text("utf-8")
    found = []
    for entry in table.split("\n\n")[1:]:
        change, said = entry.strip("\n").split("\n")
        old, new = change.replace("\\n", "\n").split(" =>")
        place, _, message = said.partition(": ")
        found.append((old, new.removeprefix(" "), place, message))
    return found


@pytest.mark.parametrize(("old", "new", "place", "message"), cases())
def test_one_mistake_gives_one_message(old: str, new: str, place: str, message: str) -> None:
    assert old in GOOD
    said = problems(GOOD.replace(old, new, 1))
    # A cut in the chain may leave a node behind whose pictures nobody takes.
    assert f"g.yaml:{place}: {message}" in [
        text[: len(f"g.yaml:{place}: {message}")] for text in said
    ]
    assert len([text for text in said if "nobody takes" not in text or "nobody" in message]) == 1


def test_all_mistakes_at_once_in_the_order_of_the_file() -> None:
    text = textwrap.dedent("""\
        version: 1
        nodes:
          camera: {uses: "graph_kinds:Camera", with: {url: x, fps: 0, live: 7}, gpu: many}
          a: {uses: "graph_kinds:Style", from: b, with: {seed: x}}
          b: {uses: "graph_kinds:Style", from: a, restart: {max: -1}}
          a: {uses: "graph_kinds:Style", from: camera}
          c: {uses: nothing, from: camera, with: {x: "${UNSET}"}}
          out: {uses: "graph_kinds:Sheet", from: c, with: {path: 5}}
        workers: {w: [a, d]}
    """)
    said = problems(text, ["out.pat=1", "out.path=[]", "nope.x=1"])
    starts = [f"g.yaml:{p}: " for p in (
        "3:60", "3:69", "3:78", "4:40", "4:56", "5:58", "6:3", "7:13", "7:46", "9:18",
    )]  # fmt: skip
    starts += ["--set nope.x=1: ", "--set out.pat=1: ", "--set out.path=[]: "]
    assert [s for s, t in zip(starts, said, strict=True) if not t.startswith(s)] == []


def test_cycles_are_told_in_the_direction_of_the_pictures() -> None:
    data = graph(
        camera=CAMERA,
        a=style("c"),
        b=style("a"),
        c=style("b"),
        x=style("y"),
        y=style("x"),
        out=sheet("camera"),
    )
    assert refused(data) == [
        "a.from: the nodes form a cycle: a → b → c → a; pictures flow one way only",
        "x.from: the nodes form a cycle: x → y → x; pictures flow one way only",
    ]


def test_a_source_has_no_inputs() -> None:
    data = graph(camera=CAMERA, two={**CAMERA, "from": "camera"}, out=sheet("two"))
    assert refused(data) == ["two.from: a source takes no pictures; remove 'from'"]


def test_formats_must_meet() -> None:
    gray = {"uses": "graph_kinds:GrayStyle", "from": "style"}
    data = graph(camera=CAMERA, style=style(), gray=gray, out=sheet("gray"))
    assert refused(data) == [
        "gray.from: style makes rgb24, but gray takes gray; put a preprocess between them"
    ]
    two = graph(
        camera=CAMERA, gray={**gray, "from": "camera"}, style=style(), a=sheet("gray"), b=sheet()
    )
    assert refused(two) == [
        "camera: no pixel format suits all that take its pictures: gray (gray), style (rgb24); "
        "put a preprocess before one of them"
    ]


def test_a_node_that_fails_while_planning_is_told_by_name() -> None:
    data = graph(camera={"uses": "graph_kinds:Broken"}, out=sheet("camera"))
    assert refused(data) == ["camera.with: RuntimeError: no idea"]


def test_two_outputs_that_want_the_same_thing_are_told_with_both_places() -> None:
    text = textwrap.dedent("""\
        version: 1
        nodes:
          camera: {uses: "graph_kinds:Camera", with: {url: x}}
          a: {uses: "graph_kinds:Port", from: camera, with: {path: "udp:5004"}}
          b: {uses: "graph_kinds:Port", from: camera, with: {path: "UDP:5004"}}
          c: {uses: "graph_kinds:Port", from: camera, with: {path: "udp:5006"}}
          d: {uses: "graph_kinds:Port", from: camera, with: {path: broken}}
    """)
    assert problems(text, ["c.path=udp:5004"]) == [
        "g.yaml:5:60: b.path: is what a.path names already, at 4:60; one output alone can have it",
        "g.yaml:7:53: d.with: RuntimeError: no idea",
        "--set c.path=udp:5004: c.path: is what a.path names already, at 4:60; one output alone "
        "can have it",
    ]


def test_what_comes_from_the_environment_is_not_shown() -> None:
    text = GOOD.replace("prompt: ink", "prompt: '${P}', seed: '${LONG}', strength: '${API_KEY}'")
    text = text.replace('"rtsp://127.0.0.1/x"', '"gopher://${HOST_AND_PATH}"')
    text = text.replace("path: out.mkv", "password: [x], path: [hunter2]")
    long = "long" * 20
    said = "\n".join(
        problems(text, P="oill", LONG=long, API_KEY="k3y", HOST_AND_PATH="user:hunter2@h/" + long)
    )
    assert "must be one of ink, oil, comic, not 'oill'" in said
    assert "style.with.seed: must be a whole number, not the value of ${LONG}" in said
    assert "style.with.strength: must be a number, not the value of ${API_KEY}" in said
    assert "camera.with.url: cannot open '${HOST_AND_PATH}'; write rtsp://" in said
    for secret in ("k3y", "hunter2", long):
        assert secret not in said


def test_passwords_in_the_file_are_not_shown_either() -> None:
    text = GOOD.replace("prompt: ink", "seed: 'rtsp://u:hunter2@h/'")
    text = text.replace("path: out.mkv", "path: a, password: 12345")
    said = "\n".join(problems(text, ["style.strength=rtsp://u:hunter2@h/", "out.password=77777"]))
    assert "style.with.seed: must be a whole number, not 'rtsp://***@h/'" in said
    assert "--set out.password=***: out.with.password: must be text, not the value given" in said
    for secret in ("hunter2", "12345", "77777"):
        assert secret not in said


def test_an_override_stands_in_for_an_unset_variable() -> None:
    text = GOOD.replace("prompt: ink", "prompt: '${PROMPT}'")
    assert (
        Graph.parse(text, overrides=["style.prompt=oil"], environ={})
        .nodes["style"]
        .params["prompt"]
        == "oil"
    )
    (missed,) = problems(text, ["style.seed=3"])
    assert "the environment variable PROMPT is not set" in missed


def test_a_misspelt_key_hides_no_missing_one_of_another_node() -> None:
    text = "version: 1\nnodes:\n  one: {use: graph_kinds:Camera}\n  two: {with: {url: x}}\n"
    said = problems(text)
    assert any("one.use: is no key" in item for item in said)
    assert any("two.uses: is missing" in item for item in said)


def test_unset_variables_are_told_once_and_hide_nothing_else() -> None:
    text = GOOD.replace("prompt: ink", "prompt: '${PROMPT}', seed: x")
    text = text.replace("from: camera", "from: ${CAMERA}")
    assert [item.partition(": ")[2] for item in problems(text)] == [
        "the environment variable CAMERA is not set; set it, or write ${CAMERA:-default}",
        "the environment variable PROMPT is not set; set it, or write ${PROMPT:-default}",
        "style.with.seed: must be a whole number, not 'x'",
    ]


def test_overrides() -> None:
    made = Graph.parse(
        GOOD,
        overrides=[
            "style.prompt=comic",
            "style.seed=7",
            "camera.options.threads='2'",
            "camera.url=demo:",
            "out.path=a=b",
            "style.size=[640, 480]",
        ],
    )
    assert made.nodes["style"].params == {"prompt": "comic", "seed": 7, "size": [640, 480]}
    assert made.nodes["camera"].params == {"url": "demo:", "options": {"threads": "2"}}
    assert made.nodes["out"].params == {"path": "a=b"}


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("style", "write --set NODE.KEY=VALUE, as in --set style.prompt=comic"),
        ("style=ink", "write --set NODE.KEY=VALUE"),
        (".prompt=ink", "write --set NODE.KEY=VALUE"),
        ("styl.prompt=ink", "unknown node 'styl'; did you mean 'style'?"),
        ("style.promt=ink", "style.with.promt: graph_kinds:Style has no such parameter; did you"),
        ("style.prompt.x=ink", "'prompt' of style holds no keys of its own"),
        ("style.uses=x", "--set gives parameters only; write 'uses' of style in the file"),
        ("style.size=[1", "the value is no valid YAML"),
    ],
)
def test_wrong_overrides(override: str, message: str) -> None:
    said = problems(GOOD, [override])
    assert len(said) == 1
    assert said[0].startswith(f"--set {override}: {message}")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("5", "a graph is a mapping with version, name and nodes"),
        ("- a", "a graph is a mapping with version, name and nodes"),
        ("version: 1", "nodes: is missing (the nodes by name)"),
        ("version: 1\nnodes: {}", "nodes: must have an entry"),
        ("version: 1\nnodes:", "nodes: must be a mapping, not nothing"),
        ("version: 1\nnodes: [a]", "nodes: must be a mapping, not a list"),
        ("version: 1\nnodes: {a: }", "a: must be a mapping, not nothing"),
        ("nodes: {c: {uses: 'graph_kinds:Camera'}}", "version: is missing (version of"),
    ],
)  # fmt: skip
def test_shapes(text: str, message: str) -> None:
    assert any(
        message in said for said in problems(text, ["c.url=x"] if "nodes: {c" in text else [])
    )


def test_python_values() -> None:
    made = Graph.from_dict(
        graph(
            camera=CAMERA,
            style=style(size=(64, 48)),
            out=sheet(path=Path("x.mkv"), password="${X}"),
        ),
        name="built",
        overrides=["style.seed=3"],
    )
    assert made.name == "built"
    assert made.nodes["style"].params == {"size": [64, 48], "seed": 3}
    assert made.nodes["out"].params == {"path": "x.mkv", "password": "${X}"}


def test_python_values_that_no_graph_holds() -> None:
    loop: dict[str, Any] = {}
    loop["again"] = [loop, loop]
    data = graph(camera=CAMERA, style=style(seed=3j), out=sheet(password=loop))
    said = refused(data)
    assert said[0].startswith("nodes.style.with.seed: a complex is no value of a graph")
    assert "nested or repeated too often" in said[1]
    keyed = graph(camera={**CAMERA, "with": {5: "x", "url": "x"}}, out=sheet("camera"))
    assert refused(keyed) == ["nodes.camera.with: a key must be text, not 5"]


def test_the_name_is_that_of_the_file(tmp_path: Path) -> None:
    path = tmp_path / "my graph!.yaml"
    path.write_text(GOOD.replace("name: good\n", ""))
    assert Graph.load(path).name == "my graph-".strip("-")
    assert Graph.load(str(path)).file == str(path)


words = st.sampled_from(
    ["version", "name", "nodes", "workers", "uses", "from", "with", "gpu", "restart", "node",
     "queue", "depth", "policy", "max", "window", "graph_kinds:Camera", "graph_kinds:Style",
     "graph_kinds:Sheet", "graph_kinds:Wall", "a", "b", "c", "url", "seed", "latest", "wait"]
)  # fmt: skip
leaves = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), words, st.text(max_size=8))
values = st.recursive(
    leaves,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(words, inner, max_size=4),
    max_leaves=20,
)


@given(
    st.dictionaries(words, values, max_size=4),
    st.dictionaries(words, st.dictionaries(words, values, max_size=5), max_size=4),
    st.lists(st.text(max_size=12) | st.just("a.seed=3"), max_size=2),
)
def test_any_mapping_is_a_graph_or_refused(
    data: dict[str, Any], nodes: dict[str, Any], overrides: list[str]
) -> None:
    with suppress(GraphError):
        Graph.from_dict({**data, "nodes": nodes or data.get("nodes")}, overrides=overrides)
