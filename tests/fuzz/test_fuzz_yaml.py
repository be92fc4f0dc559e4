"""Graph files made to hurt: each is refused in words, in bounded time and memory."""

from __future__ import annotations

import resource
import subprocess
import sys
from pathlib import Path

import pytest
from fuzz_target import check_message, patience
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from streamer.errors import GraphError
from streamer.graph import Graph

STREAMER = Path(sys.executable).parent / "streamer"
HEAD = "version: 1\nnodes:\n"
BIG = 900_000
MEMORY = 1 << 30
SECONDS = 30


def node(**parameters: str) -> str:
    given = ", ".join(f"{key}: {value}" for key, value in parameters.items())
    return f"{HEAD}  a: {{uses: encoder, with: {{{given}}}}}\n"


def doubled(first: str, item: str) -> str:
    """Aliases of aliases: 9 to the power of 11 values when written out."""
    lines = [f"x0: &x0 {first}\n"]
    lines += [
        f"x{n}: &x{n} " + item.format(",".join([f"*x{n - 1}"] * 9)) + "\n" for n in range(1, 12)
    ]
    return "".join(lines)


MANY = range(5_000)
TORTURES = {
    "billion laughs in lists": doubled("[a, a]", "[{}]"),
    "billion laughs in merges": doubled("{a: 1}", "{{<<: [{}]}}"),
    "an alias of itself": "a: &a [*a]",
    "a merge of itself": "a: &a {<<: *a}",
    "deep brackets": "[" * 100_000,
    "deep braces": "{a: " * 100_000,
    "deep indentation": "\n".join(" " * n + "a:" for n in range(1000)),
    "deep lists": "- " * 50_000,
    "deep keys": "? " * 50_000,
    "very many nodes": HEAD + "".join(f"  n{n}: {{uses: decodr}}\n" for n in range(3000)),
    "very many parameters": node(**{f"p{n}": "1" for n in MANY}),
    "very many keys": HEAD + "  a: {uses: decoder}\n" + "".join(f"p{n}: 1\n" for n in MANY),
    "very many links": HEAD + f"  a: {{uses: mosaic, from: [{'a,' * 9000}]}}\n",
    "very many workers": HEAD + f"  a: {{uses: decoder}}\nworkers: {{w: [{'a,' * 15_000}]}}\n",
    "very many substitutions": node(url="'" + "${A}" * 200_000 + "'"),
    "very many documents": "---\n" * 200_000,
    "very many comments": "#\n" * 400_000,
    "a huge kind": HEAD + f"  a: {{uses: {'x' * BIG}}}\n",
    "a huge import": HEAD + f"  a: {{uses: '{'x' * 400_000}:{'y' * 400_000}'}}\n",
    "a huge name": HEAD + f"  ? {'x' * BIG}\n  : {{uses: decoder}}\n",
    "a huge url": node(url=f"'{'a' * BIG}://x'"),
    "a url of urls": node(url="'" + "://a:" * 100_000 + "'"),
    "a huge variable": node(url="'${" + "A" * BIG + "}'"),
    "a huge bit rate": node(url="a.mp4", bitrate=f"'{'1' * BIG}'"),
    "a huge number": node(url="a.mp4", fps="9" * BIG),
    "a number beyond 64 bits": node(url="a.mp4", options=f"{{a: {1 << 64}}}"),
    "a huge exponent": node(url="a.mp4", fps="1e999999999"),
    "a huge tag": "!" + "a" * BIG + " x",
    "a huge version": "%YAML " + "1" * 5000 + ".1\n---\na: 1",
    "a huge block": "a: |\n" + " x\n" * 200_000,
    "a very long line": "a: " + "b " * 200_000,
    "a name with line breaks": HEAD + '  "a\\nb\\nc": {uses: decoder}\n',
    "a kind with line breaks": HEAD + '  a: {uses: "b\\nc\\n\\nd"}\n',
    "a value with line breaks": node(url='"x\\ny\\nz"'),
    "duplicate keys": "a: 1\n" * 5000,
    "keys that are no texts": "[1, 2]: 3\n{a: b}: 4\n? [x]\n: y\n",
    "custom tags": "a: !!python/object/apply:os.system [echo]\nb: !mine {c: d}\n",
    "tabs": "version: 1\nnodes:\n\ta: 1\n",
    "a byte order mark inside": "version: 1\n\ufeffnodes: {}\n",
    "a NUL": "version: 1\0\n",
    "an escaped NUL": node(url='"a\\0b"'),
    "half a character": node(url='"\\uD800.mp4"'),
    "a character beyond Unicode": 'a: "\\UFFFFFFFF"',
    "quotes": "'" * 99_999,
}  # fmt: skip


@pytest.mark.parametrize("text", TORTURES.values(), ids=TORTURES)
def test_tortures_are_refused_in_words(text: str) -> None:
    with patience(), pytest.raises(GraphError) as caught:
        Graph.parse(text, environ={})
    check_message(caught.value)


@pytest.mark.parametrize(
    "override",
    ["a.url=" + "x" * BIG, "b" * BIG + ".c=1", "a." + "b." * 50_000 + "c=1",
     "a.url=" + "[" * 50_000, "x" * BIG,
     "a.x\ny\nz=1", "a.url=\0", "a.url='\\", "=", ".", "a.=1", "a.url={a: *x}"],
    ids=lambda text: f"{text[:12]!r} of {len(text)}",
)  # fmt: skip
def test_overrides_made_to_hurt(override: str) -> None:
    with patience(), pytest.raises(GraphError) as caught:
        Graph.parse(node(url="a.mp4"), environ={}, overrides=[override])
    check_message(caught.value)


VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=20)
    | st.sampled_from(["decoder", "encoder", "a", "b", "demo:", "out.mp4", "latest", "256x256"]),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(
                ["uses", "with", "from", "url", "queue", "depth", "restart", "max", "gpu", "a", "b"]
            )
            | st.text(max_size=5),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)
NODES = st.dictionaries(st.sampled_from(["a", "b", "c"]), VALUES, max_size=3)


@given(data=st.fixed_dictionaries({"nodes": NODES}, optional={"workers": VALUES, "name": VALUES}))
@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_any_mapping_is_a_graph_or_refused(data: dict[str, object]) -> None:
    with patience():
        try:
            graph = Graph.from_dict(data)
        except GraphError as error:
            check_message(error)
        else:
            assert graph.nodes


def limits() -> None:
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    resource.setrlimit(resource.RLIMIT_CPU, (SECONDS, SECONDS))


@pytest.mark.parametrize(
    "data",
    [
        b"# " + b"x" * 10_000_000,
        b"[" * 10_000_000,
        doubled("[a, a]", "[{}]").encode(),
        b"\xff\xfe" + "version: 1".encode("utf-16-le"),
        b"a: &a [" + b"1," * 400_000 + b"]",
    ],
    ids=["10 MB of comment", "10 MB of brackets", "billion laughs", "UTF-16", "long list"],
)
def test_the_command_stays_within_memory_and_time(data: bytes, tmp_path: Path) -> None:
    path = tmp_path / "g.yaml"
    path.write_bytes(data)
    done = subprocess.run(
        [STREAMER, "check", path], capture_output=True, text=True, preexec_fn=limits, check=False
    )
    assert done.returncode == 2, done.stderr[-2000:]
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert line.startswith("streamer: error: ")
    assert "g.yaml" in line
    assert len(line) < 500
