"""Graph files: YAML, the environment in them, and overrides on the command line."""

from __future__ import annotations

import re

from fuzz_target import Run, Target, check_message, text_of

PASSWORD = "hunter2x"
"""stands in the environment alone, so that no input spells it"""
ENVIRON = {
    "A": "x",
    "URL": f"rtsp://anna:{PASSWORD}@10.0.0.7/live",
    "N": "5",
    "E": "",
    "HALF": "\udcff",
}

WORDS = (
    b"version: 1\n", b"nodes:\n", b"workers: ", b"uses: ", b"with: ", b"from: ", b"queue: ",
    b"depth: ", b"restart: ", b"policy: ", b"gpu: ", b"url: ", b"decoder", b"preprocess", b"sdxs",
    b"encoder", b"mosaic", b"${A}", b"${N:-3}", b"$$", b"${", b"&a ", b"*a", b"<<: ", b"!!int ",
    b"!!str ", b"!x ", b"---\n", b"...\n", b"%YAML 1.2\n", b"\xef\xbb\xbf", b"\t", b"\r", b"\0",
    b"- ", b"? ", b": ", b"|\n", b">-\n", b"{", b"}", b"[", b"]", b"'", b'"', b"\\x", b"\\uD800",
    b"\\U00110000", b"0x", b"0o", b".inf", b".nan", b"1e999", b"null", b"~", b"\xc2\x85", b"#",
)  # fmt: skip

GOOD = b"""\
version: 1
name: good
nodes:
  cam: {uses: decoder, with: {url: "${URL}", fps: ${N}}}
  crop: {uses: preprocess, from: cam, with: {size: 256x256}}
  a: {uses: sdxs, from: {node: crop, queue: latest, depth: 2}, with: {prompt: "ink:0.7 oil:0.3"}}
  b: {uses: sdxs, from: crop, with: {<<: &p {prompt: oil}, seed: 3}, restart: {max: 2}}
  both: {uses: mosaic, from: [a, b]}
  out: {uses: encoder, from: both, with: {url: out.mp4, bitrate: 4M}}
workers: {models: [a, b]}
"""

SEEDS = [
    GOOD,
    b"version: 1\nnodes:\n  a:\n    uses: decoder\n    with:\n      url: demo:\n",
    b"base: &b {x: 1}\none: {<<: *b, y: [1, 2.5, ~, true, 'x']}\n",
    b"a: |\n  text\n  more\nb: >-\n  folded\n",
    b'? "k\\u00e9y"\n: !!int 0x1F\n',
    b"%YAML 1.2\n---\na: ${A:-b}\n...\n",
]

_CODE = re.compile(r"[A-Za-z_][\w.]*\s*:\s*[A-Za-z_]\w*")
"""`package.module:Class` names code that a graph file may have imported; not so a fuzzer's."""


def _yaml() -> Run:
    from streamer.errors import GraphError, Problem
    from streamer.graph.reading import read_tree

    def run(data: bytes) -> None:
        problems: list[Problem] = []
        try:
            text = data.decode("utf-8-sig")
            tree = read_tree(text, file="f", environ=ENVIRON, report=problems.append)
            tree.plain()
        except UnicodeDecodeError:
            return  # told by `read_text`, which the other tests try with bytes
        except GraphError as error:
            check_message(error)
        for problem in problems:
            check_message(ValueError(str(problem)))

    return run


def _graph() -> Run:
    from streamer.errors import GraphError
    from streamer.graph import Graph
    from streamer.graph.plan import Plan
    from streamer.graph.render import mermaid, text
    from streamer.graph.svg import svg

    def run(data: bytes) -> None:
        try:
            source = data.decode("utf-8-sig")
        except UnicodeDecodeError:
            return
        if any(_CODE.search(part) for part in source.split("uses")[1:]):
            return
        try:
            graph = Graph.parse(source, environ=ENVIRON)
        except GraphError as error:
            check_message(error, PASSWORD)
            return
        plan = graph.plan()
        assert Plan.from_dict(plan.to_dict()) == plan
        for draw in (text, mermaid, svg):
            assert PASSWORD not in draw(plan)

    return run


def _override() -> Run:
    from streamer.errors import GraphError
    from streamer.graph import Graph

    nodes = {
        "cam": {"uses": "decoder", "with": {"url": ENVIRON["URL"], "options": {"x": 1}}},
        "a": {"uses": "sdxs", "from": "cam", "with": {"prompt": "ink"}},
        "out": {"uses": "encoder", "from": "a", "with": {"url": "out.mp4"}},
    }

    def run(data: bytes) -> None:
        try:
            Graph.from_dict({"nodes": nodes}, overrides=[text_of(data)])
        except GraphError as error:
            check_message(error, PASSWORD)

    return run


def _environment() -> Run:
    from streamer.graph.environment import MAX_TEXT, substitute

    def run(data: bytes) -> None:
        said: list[str] = []
        text = text_of(data)
        done = substitute(text, ENVIRON, said.append)
        assert done.known == (not said)
        assert len(said) <= 2
        assert len(done.text) <= MAX_TEXT
        if "$" not in text:
            assert done.text == text

    return run


def _typed() -> Run:
    from streamer.errors import Problem
    from streamer.graph.reading import read_value
    from streamer.graph.tree import Place

    def run(data: bytes) -> None:
        problems: list[Problem] = []
        read_value(text_of(data), Place("--set a.b=..."), problems.append).plain()
        for problem in problems:
            check_message(ValueError(str(problem)))

    return run


TARGETS = (
    Target("yaml", "YAML as graph files have it", _yaml, lambda: SEEDS, 512, WORDS, True),
    Target("graph", "whole graph files", _graph, lambda: SEEDS, 768, WORDS),
    Target(
        "override",
        "--set NODE.KEY=VALUE",
        _override,
        lambda: [b"a.prompt=oil", b"cam.url=rtsp://u:secret@h/x", b"cam.options={a: [1, 'b']}"],
        256,
        (*WORDS, b"a.", b"cam.", b"out.", b"options.", b"prompt=", b"="),
    ),
    Target(
        "environment",
        "${NAME} in values",
        _environment,
        lambda: [b"${A}", b"x${N:-3}y", b"$$${E:-d}", b"${HALF}", b"${M}", b"$"],
        256,
        (b"${", b"}", b":-", b"$$", b"A", b"URL"),
    ),
    Target(
        "value",
        "values typed on the command line",
        _typed,
        lambda: [b"[640, 480]", b"{a: b, c: {d: 1}}", b"'x'", b'"\\u00e9"', b"0x1F", b"1e3"],
        256,
        WORDS,
    ),
)
