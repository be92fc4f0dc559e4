from __future__ import annotations

from typing import Any
from xml.etree import ElementTree

import pytest

from streamer import Graph
from streamer.graph.layout import lay_out
from streamer.graph.plan import Plan
from streamer.graph.render import mermaid, text
from streamer.graph.svg import svg

SVG = "{http://www.w3.org/2000/svg}"


def node(kind: str, source: Any = None, /, **rest: Any) -> dict[str, Any]:
    made = {"uses": f"graph_kinds:{kind}", **rest}
    return made if source is None else {**made, "from": source}


@pytest.fixture
def plan() -> Plan:
    return Graph.from_dict(
        {
            "name": "fan",
            "nodes": {
                "camera": node("Camera", **{"with": {"url": "x"}}),
                "ink": node("Style", "camera", gpu=0),
                "end": node("Style", {"node": "camera", "queue": "wait", "depth": 12}),
                "wall": node("Wall", {"left": "ink", "right": "end", "raw": "camera"}),
                "out": node("Sheet", "wall", **{"with": {"path": "x.mp4"}}),
            },
            "workers": {"gpu0": ["ink", "end"]},
        }
    ).plan()


def test_text(plan: Plan) -> None:
    assert text(plan).splitlines() == [
        "fan",
        "",
        "camera                    graph_kinds:Camera · live  worker camera",
        "├─ latest 1 ─▶ ink        graph_kinds:Style · gpu 0  worker gpu0",
        "│  └─ latest 1 ─▶ wall    graph_kinds:Wall           worker wall",
        "│     └─ latest 1 ─▶ out  graph_kinds:Sheet          worker out",
        "├─ wait 12 ─▶ end         graph_kinds:Style          worker gpu0",
        "│  └─ latest 1 ─▶ wall.right (another input)",
        "├─ latest 1 ─▶ wall.raw (another input)",
        "└┄ sound ┄▶ out",
    ]


def test_mermaid(plan: Plan) -> None:
    assert mermaid(plan).splitlines() == [
        "---",
        "title: fan",
        "---",
        "flowchart LR",
        '    n0(["<b>camera</b><br/>graph_kinds:Camera · live"])',
        '    subgraph w_ink ["gpu0"]',
        '        n1["<b>ink</b><br/>graph_kinds:Style · gpu 0"]',
        '        n2["<b>end</b><br/>graph_kinds:Style"]',
        "    end",
        '    n3[["<b>wall</b><br/>graph_kinds:Wall"]]',
        '    n4[/"<b>out</b><br/>graph_kinds:Sheet"/]',
        '    n0 -->|"latest 1"| n1',
        '    n0 -->|"wait 12"| n2',
        '    n1 -->|"latest 1"| n3',
        '    n2 -->|"latest 1"| n3',
        '    n0 -->|"latest 1"| n3',
        '    n3 -->|"latest 1"| n4',
        '    n0 -.->|"sound"| n4',
    ]


def test_layers_go_from_left_to_right_and_no_two_things_share_a_cell(plan: Plan) -> None:
    layout = lay_out(plan)
    assert {name: cell[0] for name, cell in layout.cells.items()} == {
        "camera": 0, "ink": 1, "end": 1, "wall": 2, "out": 3,
    }  # fmt: skip
    taken = list(layout.cells.values())
    for route in layout.routes:
        assert route.cells[0] == layout.cells[route.link.source]
        assert route.cells[-1] == layout.cells[route.link.target]
        assert [cell[0] for cell in route.cells] == list(
            range(route.cells[0][0], route.cells[-1][0] + 1)
        )
        taken += route.cells[1:-1]
    assert len(set(taken)) == len(taken)
    assert layout.layers == 4


def test_links_that_need_not_cross_do_not() -> None:
    names = ["a", "b", "c"]
    nodes = {name: node("Camera", **{"with": {"url": "x"}}) for name in names}
    # The sinks stand in the reverse order in the file.
    for name in reversed(names):
        nodes[f"out-{name}"] = node("Sheet", name, **{"with": {"path": "x"}})
    cells = lay_out(Graph.from_dict({"nodes": nodes}).plan()).cells
    assert [cells[name][1] for name in names] == [cells[f"out-{name}"][1] for name in names]


def test_svg_is_xml_with_every_node_and_link_inside_the_picture(plan: Plan) -> None:
    root = ElementTree.fromstring(svg(plan))
    width, height = float(root.attrib["width"]), float(root.attrib["height"])
    said = [item.text for item in root.iter(f"{SVG}text")]
    for name in ("camera", "ink", "end", "wall", "out"):
        assert said.count(name) == 1
    assert said.count("in gpu0") == 2
    assert said.count("latest 1") == 5
    assert said.count("wait 12") == 1
    links = [item for item in root.iter(f"{SVG}path") if "link" in item.get("class", "")]
    assert len(links) == len(plan.links)
    assert sum("sound" in item.attrib["class"] for item in links) == 1
    for box in root.iter(f"{SVG}rect"):
        x, y = float(box.get("x", 0)), float(box.get("y", 0))
        assert 0 <= x <= x + float(box.attrib["width"]) <= width
        assert 0 <= y <= y + float(box.attrib["height"]) <= height


def test_the_largest_graph_is_drawn() -> None:
    nodes = {"camera": node("Camera", **{"with": {"url": "x"}})}
    before = "camera"
    for number in range(254):
        nodes[f"s{number}"] = node("Style", before)
        before = f"s{number}"
    nodes["out"] = node("Sheet", before, **{"with": {"path": "x.mp4"}})
    plan = Graph.from_dict({"nodes": nodes}).plan()
    assert lay_out(plan).layers == 256
    assert len(text(plan).splitlines()) == 259
    ElementTree.fromstring(svg(plan))
