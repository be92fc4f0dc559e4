from __future__ import annotations

import socket

import pytest
from pydantic import ValidationError
from web_stage import staged

from nodes.web import Web, WebParams
from nodes.web.address import parse_listen
from nodes.web.peers import _addresses
from streamer import ParameterError, SinkError, Status
from streamer.testing import SoloContext, solo


@pytest.mark.parametrize(
    ("text", "shown", "loopback", "everywhere"),
    [
        ("127.0.0.1:8080", "127.0.0.1:8080", True, False),
        ("localhost:1", "127.0.0.1:1", True, False),
        ("127.9.9.9:80", "127.9.9.9:80", True, False),
        ("[::1]:0", "[::1]:0", True, False),
        ("0.0.0.0:65535", "0.0.0.0:65535", False, True),
        ("[::]:80", "[::]:80", False, True),
        ("192.168.1.2:80", "192.168.1.2:80", False, False),
    ],
)
def test_addresses(text, shown, loopback, everywhere):
    address = parse_listen(text)
    assert (str(address), address.loopback, address.everywhere) == (shown, loopback, everywhere)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("8080", "no address to listen on; give IP:PORT"),
        ("", "no address to listen on"),
        ("127.0.0.1", "no address to listen on"),
        ("127.0.0.1:65536", "the port 65536 is outside of 0 to 65535"),
        ("camera.example:80", "'camera.example' in 'camera.example:80' is no IP address"),
        (":80", "'' in ':80' is no IP address"),
        ("1.2.3:80", "is no IP address"),
        ("[::1:80", "no address to listen on"),
        ("http://127.0.0.1:80", "no address to listen on"),
    ],
)
def test_addresses_that_are_none(text, said):
    with pytest.raises(ValidationError, match="listen") as refused:
        WebParams(listen=text)
    assert said in str(refused.value)


@pytest.mark.parametrize(
    "params",
    [
        {"token": "short"},
        {"token": "twelve chars!"},
        {"bitrate": "fast"},
        {"max_viewers": 0},
        {"jpeg_quality": 101},
        {"stall": 0},
        {"codec": "libx265"},
    ],
)
def test_parameters_are_checked(params):
    with pytest.raises(ValidationError):
        WebParams(**params)


def test_a_refused_token_is_not_repeated():
    with pytest.raises(ValidationError) as refused:
        WebParams(token="secret with spaces")
    assert "letters, digits" in str(refused.value.errors()[0]["msg"])
    assert "secret" not in refused.value.errors()[0]["msg"]


def test_a_port_in_use_is_a_sentence():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(SinkError) as refused:
            solo(Web, listen=f"127.0.0.1:{port}")
    assert str(refused.value) == (
        f"cannot listen on 127.0.0.1:{port}: another program uses port {port}; end it, or set "
        "listen to another port (0 takes a free one)"
    )
    assert refused.value.exit_status == 1


def test_an_address_of_another_machine_is_a_sentence():
    with pytest.raises(SinkError, match=r"this machine has no address 203\.0\.113\.7"):
        solo(Web, listen="203.0.113.7:8080", token="a-token-of-some-length")


def test_a_codec_option_that_does_not_open_is_a_sentence():
    with pytest.raises(ParameterError, match="preset=hasty"):
        solo(Web, listen="127.0.0.1:0", preset="hasty", codec="libx264")


def test_port_0_takes_a_free_one_and_says_which():
    context = SoloContext(name="page", live=True)
    with staged(context=context) as stage:
        assert context.statuses == [(Status.LIVE, f"http://127.0.0.1:{stage.port}/")]
        assert stage.port > 0
        assert stage.get("/health")[0] == 200


def test_ipv6_loopback_is_served():
    with staged(listen="[::1]:0") as stage, socket.create_connection(("::1", stage.port)) as viewer:
        viewer.sendall(b"GET /health HTTP/1.1\r\nHost: [::1]\r\nConnection: close\r\n\r\n")
        assert viewer.recv(100).startswith(b"HTTP/1.1 200")


def test_a_node_that_comes_back_serves_on_the_same_port():
    with staged() as stage:
        port = stage.port
        with socket.create_connection(("127.0.0.1", port), timeout=30) as viewer:
            viewer.sendall(b"GET /stream.mjpeg HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert viewer.recv(100).startswith(b"HTTP/1.1 200")
            stage.end()
            stage.node.close()
            # The former connection lingers in the system.
            with staged(listen=f"127.0.0.1:{port}") as again:
                assert again.get("/health")[0] == 200


def test_webrtc_is_offered_where_the_server_listens():
    assert _addresses(parse_listen("127.0.0.1:80")) == ["127.0.0.1"]
    assert _addresses(parse_listen("192.0.2.9:80")) == ["192.0.2.9"]
    assert _addresses(parse_listen("0.0.0.0:80"))[0] == "127.0.0.1"
    assert {"127.0.0.1", "::1"} <= set(_addresses(parse_listen("[::]:80")))


def test_a_port_is_claimed_unless_the_system_chooses_it():
    assert Web.claims(WebParams(listen="localhost:80")) == Web.claims(
        WebParams(listen="127.0.0.1:80")
    )
    assert Web.claims(WebParams(listen="127.0.0.1:80")) != {}
    assert Web.claims(WebParams(listen="127.0.0.1:0")) == {}
