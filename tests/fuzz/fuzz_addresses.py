"""Addresses of sources and outputs, and the masking of what is secret in them."""

from __future__ import annotations

from fuzz_target import Run, Target, check_message, text_of

WORDS = (
    b"rtsp://", b"rtmp://", b"http://", b"https://", b"udp://", b"srt://", b"file:", b"file://",
    b"demo:", b"null:", b"/dev/video0", b"user:pass@", b"@", b":", b":554", b"[::1]", b"[", b"]",
    b"/live", b"?", b"&", b"#", b"%40", b"%", b"token=", b"key=", b"passphrase=", b"streamid=#!::",
    b"127.0.0.1", b"localhost", b".mp4", b".m3u8", b"%04d.png", b"*.png", b"'", b'"', b"\\", b"\n",
    b"Authorization: Bearer ", b"Cookie: ", b"X-Api-Key: ", b"{'password': '", b"\xc3\xa9", b"\0",
)  # fmt: skip
SEEDS = [
    b"rtsp://admin:s3cret@10.0.0.7:554/h264",
    b"rtsp://admin:p@s/s?w#d@cam.local/x",
    b"https://token@example.org/x.m3u8?token=abc&n=1#f",
    b"srt://h:9?passphrase=abcdefghij&streamid=#!::u=a,s=b",
    b"rtmp://live.example.org/app/live_123_abc",
    b"udp://[::1]:5004?pkt_size=1316",
    b"frames/%04d.png",
    b"/dev/video0",
    b"file:///tmp/a b.mp4",
    b"demo:",
    b"https://cdn.example.org/x.m3u8?policy=" + b"a1" * 150,
    b"Authorization: Digest username=\"u\", response=\"abc\"",
    b"{'api_key': 'abc', \"token\": \"d\"}",
]  # fmt: skip


def _source() -> Run:
    from nodes.decoder.address import parse_address

    def run(data: bytes) -> None:
        url = text_of(data)
        if not url or "\0" in url or "\n" in url:
            return  # refused before it is parsed
        try:
            address = parse_address(url)
        except ValueError as error:
            check_message(error)
            return
        assert isinstance(address.is_live, bool)
        assert address.kind in ("file", "pictures", "device", "network")

    return run


def _source_params() -> Run:
    from pydantic import ValidationError

    from nodes.decoder import Decoder, DecoderParams

    def run(data: bytes) -> None:
        url, _, option = text_of(data).partition("\n")
        try:
            params = DecoderParams(url=url, options={option[:40]: option})
        except ValidationError as error:
            for item in error.errors(include_input=False, include_url=False):
                check_message(ValueError(item["msg"]))
            return
        assert isinstance(Decoder.is_live(params), bool)

    return run


def _output() -> Run:
    from nodes.encoder.outputs import OutputError, parse

    def run(data: bytes) -> None:
        try:
            output = parse(text_of(data))
        except OutputError as error:
            check_message(error)
            return
        assert output.container.muxer
        assert isinstance(output.shown, str)

    return run


def _mask() -> Run:
    from streamer.masking import mask

    def run(data: bytes) -> None:
        text = text_of(data)
        masked = mask(text)
        assert mask(masked) == masked
        # In a known place a password vanishes, whatever surrounds it.
        shown = mask(f"{text} rtsp://anna:hunter2x@camera.local/live {text}")
        assert "hunter2x" not in shown

    return run


TARGETS = (
    Target("source-url", "addresses of sources", _source, lambda: SEEDS, 512, WORDS),
    Target("source", "parameters of a decoder", _source_params, lambda: SEEDS, 512, WORDS),
    Target("output-url", "addresses of outputs", _output, lambda: SEEDS, 512, WORDS),
    Target("mask", "masking of credentials", _mask, lambda: SEEDS, 512, WORDS),
)
