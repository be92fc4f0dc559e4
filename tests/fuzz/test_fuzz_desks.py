"""Sockets of a run under a rain of nonsense: they go on, and hear what is meant."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import zmq
from fuzz_messages import GRAPH
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import Field

from streamer import Params, Transform
from streamer.errors import GraphError, ParameterError
from streamer.graph import Graph
from streamer.graph.changing import MAX_CHANGE, changed
from streamer.runtime import clients, control
from streamer.runtime.addresses import control_endpoint
from streamer.runtime.changes import Changes
from streamer.runtime.desk import ControlDesk

Socket = zmq.Socket[bytes]
Context = zmq.Context[Socket]

NONSENSE = st.lists(st.binary(max_size=80), min_size=1, max_size=4)
quick = settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


@pytest.fixture(scope="module")
def context() -> Iterator[Context]:
    made: Context = zmq.Context()
    yield made
    made.term()


@pytest.fixture
def peer(context: Context) -> Iterator[Socket]:
    socket = context.socket(zmq.DEALER)
    socket.setsockopt(zmq.LINGER, 0)
    yield socket
    socket.close()


def until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < end, "nothing came in time"


def test_a_supervisor_hears_its_workers_through_nonsense(
    context: Context, peer: Socket, tmp_path: Path
) -> None:
    said: list[str] = []
    desk = ControlDesk(context, str(tmp_path), nodes={"cam"}, complain=said.append)
    peer.connect(control_endpoint(str(tmp_path)))
    heard: list[str] = []

    @given(parts=NONSENSE)
    @quick
    def rain(parts: list[bytes]) -> None:
        peer.send_multipart(parts)
        peer.send(control.pack("closed", node="nobody"))
        peer.send(control.pack("closed", node="cam"))
        before = len(heard)

        def listened() -> bool:
            desk.wait(0.2)
            heard.extend(kind for _, kind, _ in desk.messages())
            return len(heard) > before

        until(listened)

    try:
        rain()
    finally:
        desk.close()
    assert set(heard) == {"closed"}
    assert said
    assert all(len(text) < 500 and "\n" not in text for text in said)


def test_get_and_set_are_served_through_nonsense(
    context: Context, peer: Socket, tmp_path: Path
) -> None:
    plan = Graph.parse(GRAPH, environ={}).plan()
    changes = Changes(plan, lambda *_, **__: None, say=lambda _: None)
    changes.listen(context, str(tmp_path))
    peer.connect(clients.clients_endpoint(tmp_path))
    report = object  # no request here asks for one

    requests = st.one_of(
        st.binary(max_size=80),
        st.builds(
            clients.pack,
            st.sampled_from(["get", "set", "gett", ""]),
            path=st.sampled_from(["cam.url", "style.prompt", "style.", ".", "x.y"]) | st.text(),
            value=st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats()
            | st.text() | st.binary(max_size=9) | st.lists(st.integers(0, 9), max_size=3)
            | st.dictionaries(st.text(max_size=3), st.integers(0, 9), max_size=3),
        ),
    )  # fmt: skip

    @given(request=requests)
    @quick
    def rain(request: bytes) -> None:
        peer.send(request)
        peer.send(clients.pack("get", path="cam.url"))
        answers: list[tuple[str, dict[str, object]]] = []

        def answered() -> bool:
            changes.hear(report)  # type: ignore[arg-type]
            while peer.poll(20):
                answers.append(clients.unpack(peer.recv()))
            return bool(answers) and answers[-1] == ("value", {"value": masked})

        until(answered)
        for kind, fields in answers:
            if kind == "error":
                text = fields["text"]
                assert isinstance(text, str)
                assert text
                assert len(text) < 500
                assert "\n" not in text
            assert "hunter2x" not in repr(fields)

    masked = "rtsp://***@127.0.0.1/live"
    try:
        rain()
    finally:
        changes.close()


@pytest.mark.parametrize("value", [1 << 64, -(1 << 63) - 1, "\ud800", "a\0b"], ids=ascii)
def test_what_no_message_can_hold_is_in_no_graph(value: object) -> None:
    nodes = {
        "cam": {"uses": "decoder", "with": {"url": "demo:", "options": {"a": value}}},
        "out": {"uses": "encoder", "from": "cam", "with": {"url": "null:"}},
    }
    with pytest.raises(GraphError, match=r"64 bits|which is no text"):
        Graph.from_dict({"nodes": nodes})


class TextParams(Params):
    text: str = Field(default="", json_schema_extra={"live": True})


class Text(Transform[TextParams]):
    """A node whose parameter may be longer than a message."""

    Params = TextParams


def test_a_change_that_no_message_can_hold_is_refused() -> None:
    nodes = {
        "cam": {"uses": "decoder", "with": {"url": "demo:"}},
        "long": {"uses": f"{__name__}:Text", "from": "cam"},
        "out": {"uses": "encoder", "from": "long", "with": {"url": "null:"}},
    }
    plan = Graph.from_dict({"nodes": nodes}).plan()
    longest = "x" * (MAX_CHANGE - 100)
    params = changed(plan, "long.text", longest).params
    assert len(control.pack("set", node="long", params=params, generation=1)) < control.MAX_MESSAGE
    with pytest.raises(ParameterError, match="at most 32768 can be sent"):
        changed(plan, "long.text", "x" * MAX_CHANGE)
