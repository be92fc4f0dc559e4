"""Messages of the link and of control, frame headers, and requests of other programs."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

from fuzz_target import Run, Target, check_message

GRAPH = """\
version: 1
name: fuzzed
nodes:
  cam: {uses: decoder, with: {url: "rtsp://anna:hunter2x@127.0.0.1/live", options: {a: 1}}}
  style: {uses: sdxs, from: cam, with: {prompt: ink}}
  out: {uses: encoder, from: style, with: {url: out.mp4}}
"""


def _frame() -> Any:
    from streamer.header import Header, Hop
    from streamer.link import wire

    header = Header(
        stream="cam", seq=7, pts=-12, time_base=Fraction(1, 90000), width=640, height=360,
        format="yuv420p", capture_ns=10**12, wall_ns=10**18, duration=3003, colorspace="bt709",
        full_range=False, generation=2,
        trace=[Hop("cam", 10**12, 10**12 + 5000, 10**12 + 9000)],
    )  # fmt: skip
    return wire.FrameReady(1, 2, 3, 10**12, header)


def _link_seeds() -> list[bytes]:
    from streamer.audio import AudioFormat, Packet
    from streamer.link import wire

    audio = AudioFormat(codec="aac", sample_rate=48000, layout="stereo", extradata=b"\x12\x10")
    packet = Packet(
        stream="cam", pts=5, time_base=Fraction(1, 48000), duration=1024, data=b"abc", audio=audio
    )
    ticket: dict[str, int | str | bytes] = {"pid": 1, "fd": 2, "inode": 3, "slots": 4}
    messages: list[wire.Message] = [
        wire.Hello("sink", 1, 2, "host", 77),
        wire.SlabTicket(1, 1, "memfd", ticket),
        _frame(),
        wire.PacketReady(1, packet),
        wire.Watermark(1, "cam", 4, 400, Fraction(1, 30)),
        wire.End(1),
        wire.Credit(1, 3, True),
    ]
    return [wire.pack(message) for message in messages]


def _link() -> Run:
    from streamer.errors import ProtocolError
    from streamer.link import wire

    def run(data: bytes) -> None:
        try:
            message = wire.unpack(data)
        except ProtocolError as error:
            check_message(error)
            return
        assert wire.unpack(wire.pack(message)) == message

    return run


def _header_seeds() -> list[bytes]:
    import msgpack

    from streamer.link import wire

    _, fields = msgpack.unpackb(wire.pack(_frame()))
    return [msgpack.packb(fields["h"])]


def _header() -> Run:
    import msgpack

    from streamer.errors import ProtocolError
    from streamer.formats import picture_bytes
    from streamer.link import wire

    # A whole message around the header, so that every input reaches it.
    before = b"\x92" + msgpack.packb(int(wire.Kind.FRAME)) + b"\x85"
    before += b"".join(map(msgpack.packb, ("i", 1, "g", 1, "s", 0, "p", 0, "h")))

    def run(data: bytes) -> None:
        try:
            message = wire.unpack(before + data)
        except ProtocolError as error:
            check_message(error)
            return
        assert isinstance(message, wire.FrameReady)
        header = message.header
        assert len(wire.pack(message)) < 1024
        assert isinstance(header.time, float)
        assert isinstance(header.age_ns(), int)
        try:
            assert picture_bytes(header.format, header.width, header.height) > 0
        except ValueError as error:
            check_message(error)

    return run


def _control_seeds() -> list[bytes]:
    from streamer.runtime import control

    of_type = {str: "cam", int: 3, float: 2.5, bool: True, dict: {"cam": 1}}
    return [
        control.pack(kind, **{name: of_type[wanted] for name, wanted in fields.items()})
        for kind, fields in control._FIELDS.items()
    ]


def _control() -> Run:
    from streamer.errors import ProtocolError
    from streamer.runtime import control

    def run(data: bytes) -> None:
        try:
            kind, fields = control.unpack(data)
        except ProtocolError as error:
            check_message(error)
            return
        # Bytes that are no keyword have no field's name either.
        named = {key: value for key, value in fields.items() if isinstance(key, str)}
        assert repr(control.unpack(control.pack(kind, **named))) == repr((kind, named))

    return run


def _request_seeds() -> list[bytes]:
    from streamer.runtime import clients

    return [
        clients.pack("get", path="style.prompt"),
        clients.pack("get", path="cam.url"),
        clients.pack("get", path="cam.options"),
        clients.pack("set", path="style.prompt", value="ink:0.5 oil:0.5"),
        clients.pack("set", path="style.seed", value=[1, {"a": 2.5}, None, True]),
        clients.pack("set", path="out.url", value="x.mp4"),
        clients.pack("report"),
    ]


def _request() -> Run:
    from streamer.errors import ParameterError, ProtocolError
    from streamer.graph import Graph
    from streamer.graph.changing import changed, current
    from streamer.runtime import clients

    plan = Graph.parse(GRAPH, environ={}).plan()

    def run(data: bytes) -> None:
        try:
            kind, fields = clients.unpack(data)
            path = fields.get("path")
            if isinstance(path, str) and kind == "get":
                answer = clients.pack("value", value=current(plan, path))
                assert b"hunter2x" not in answer
            elif isinstance(path, str) and kind == "set":
                node = changed(plan, path, fields.get("value"))
                clients.pack("set", params=node.params)
        except (ProtocolError, ParameterError) as error:
            check_message(error)

    return run


TARGETS = (
    Target("link", "messages between nodes", _link, _link_seeds, 1024),
    Target("header", "headers of pictures", _header, _header_seeds),
    Target("control", "messages between the supervisor and workers", _control, _control_seeds),
    Target("request", "requests of `streamer get` and `set`", _request, _request_seeds),
)
