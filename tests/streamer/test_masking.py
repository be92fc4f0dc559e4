from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamer.masking import is_secret_name, mask


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("rtsp://admin:s3cret@10.0.0.7:554/h264", "rtsp://***@10.0.0.7:554/h264"),
        ("rtsp://admin:p@ss@10.0.0.7/h264", "rtsp://***@10.0.0.7/h264"),
        ("rtsp://admin:p/w@10.0.0.7/h264", "rtsp://***@10.0.0.7/h264"),
        ("rtsp://admin:p1/w?x@10.0.0.7/h264", "rtsp://***@10.0.0.7/h264"),
        ("https://token123@example.org/x", "https://***@example.org/x"),
        ("cannot open 'srt://u:p@h:9', sorry", "cannot open 'srt://***@h:9', sorry"),
        ("two: rtsp://a:b@c/d and http://e:f@g/h", "two: rtsp://***@c/d and http://***@g/h"),
        ("http://h/x?token=abc&n=1", "http://h/x?token=***&n=1"),
        (
            "http://h/x?n=1&X-Amz-Signature=abc&apiKey=d#t",
            "http://h/x?n=1&X-Amz-Signature=***&apiKey=***",
        ),
        ("rtsp://admin:12/3@10.0.0.7/h264", "rtsp://***@10.0.0.7/h264"),
        ("rtsp://admin:12?3@cam.local:554", "rtsp://***@cam.local:554"),
        ("rtsp://admin:it's@10.0.0.7/h264", "rtsp://***@10.0.0.7/h264"),
        ("rtsp://admin:my pass@10.0.0.7/x", "rtsp://***@10.0.0.7/x"),
        ("srt://h:9?streamid=#!::r=live,u=anna,s=abc", "srt://h:9?streamid=***"),
        ("http://h/x?password=a#b:c/d", "http://h/x?password=***"),
        ("CAM_PASSWORD=abc and mode=2", "CAM_PASSWORD=*** and mode=2"),
        ("{'passphrase': 'a\\'b', 'mode': 'c'}", "{'passphrase': '***', 'mode': 'c'}"),
        ('{"api_key": "abc", "n": 1}', '{"api_key": "***", "n": 1}'),
        ("Cookie: session=abc; id=def", "Cookie: ***"),
        ("X-Api-Key: abc, next", "X-Api-Key: ***, next"),
        ('Authorization: Digest username="u", response="abc"', "Authorization: ***"),
        ("srt://h:9?passphrase=abcdefghij&streamid=u", "srt://h:9?passphrase=***&streamid=***"),
        ("rtmp://live.example.org/app/live_123_abc", "rtmp://live.example.org/app/***"),
        ("rtmps://live.example.org:443/app/abc?x=1", "rtmps://live.example.org:443/app/***?x=1"),
        ("headers: Authorization: Bearer abc.def", "headers: Authorization: ***"),
    ],
)
def test_credentials_are_hidden(text: str, masked: str) -> None:
    assert mask(text) == masked


@pytest.mark.parametrize(
    "text",
    [
        "",
        "out/quickstart.mp4",
        "/dev/video0",
        "rtsp://127.0.0.1:8554/camera",
        "http://host:8080/picture@2x.png",
        "http://[::1]:8080/picture@2x.png",
        "udp://127.0.0.1:5004?pkt_size=1316&keyframe=1",
        "mail me@example.org about a=b",
        "rtmp://127.0.0.1/live",
        "[rtsp @ 0x55d1] method DESCRIBE failed",
        "rtsp://127.0.0.1:8554: refused [rtsp @ 0x55d1]",
        "sorted(nodes, key=by_name)",
        "tokens: 12 of 77",
    ],
)
def test_other_text_is_left_alone(text: str) -> None:
    assert mask(text) == text


@given(
    st.from_regex(r"[a-z]{1,6}", fullmatch=True),
    st.from_regex(r"[A-Za-z][A-Za-z0-9@:%!/$*]{3,12}[!$%]", fullmatch=True),
)
def test_no_password_survives(user: str, password: str) -> None:
    shown = mask(f"cannot reach rtsp://{user}:{password}@camera.local/stream (timeout)")
    assert shown == "cannot reach rtsp://***@camera.local/stream (timeout)"


@given(st.text(alphabet="ab:/@?&=# '.*keytoken1"))
def test_masking_twice_changes_nothing(text: str) -> None:
    assert mask(mask(text)) == mask(text)


@pytest.mark.parametrize(
    "name", ["password", "RTSP_PASS", "api_key", "TOKEN", "streamid", "PWD1", "authorization"]
)
def test_secret_names(name: str) -> None:
    assert is_secret_name(name)


@pytest.mark.parametrize("name", ["url", "FPS", "passthrough", "author", "authority", "keyframes"])
def test_other_names(name: str) -> None:
    assert not is_secret_name(name)
