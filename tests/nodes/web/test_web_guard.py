from __future__ import annotations

import asyncio
import http.client
import logging
import os
import stat

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from web_stage import RtcViewer, staged, ts_numbers

from nodes.web.guard import Guard
from nodes.web.token import kept_token, token_path

TOKEN = "a-token-of-some-length"


def asked(stage, path, **headers):
    """The status of a request whose headers are exactly these."""
    connection = http.client.HTTPConnection("127.0.0.1", stage.port, timeout=30)
    try:
        connection.putrequest("GET", path, skip_host=True)
        for name, value in headers.items():
            connection.putheader(name.replace("_", "-"), value)
        connection.endheaders()
        return connection.getresponse().status
    finally:
        connection.close()


def test_names_that_others_can_point_here_are_refused():
    with staged(hosts=["Studio.Example."], token=TOKEN) as stage:
        port, path = stage.port, f"/health?token={TOKEN}"
        for good in (
            "localhost",
            f"localhost:{port}",
            f"127.0.0.1:{port}",
            f"[::1]:{port}",
            "LOCALHOST.",
            f"studio.example:{port}",
        ):
            assert asked(stage, path, Host=good) == 200, good
        for bad in (
            "attacker.example",
            f"127.0.0.1.attacker.example:{port}",
            "localhost.attacker.example",
            "",
            "[::1",
            "127.0.0.1@attacker.example",
        ):
            assert asked(stage, path, Host=bad) in (400, 421), bad


def test_pages_of_other_origins_are_refused():
    with staged() as stage:
        host = f"127.0.0.1:{stage.port}"
        assert asked(stage, "/health", Host=host, Origin=f"http://{host}") == 200
        for origin in ("http://attacker.example", "null", f"http://localhost:{stage.port}"):
            assert asked(stage, "/health", Host=host, Origin=origin) == 403, origin
        for site, mode, status in (
            ("none", "navigate", 200),
            ("same-origin", "cors", 200),
            ("cross-site", "navigate", 200),
            ("cross-site", "no-cors", 403),
            ("same-site", "no-cors", 403),
        ):
            found = asked(stage, "/health", Host=host, Sec_Fetch_Site=site, Sec_Fetch_Mode=mode)
            assert found == status, (site, mode)


def test_a_token_is_demanded_for_everything():
    with staged(token=TOKEN) as stage:
        paths = ("/", "/health", "/snapshot.jpg", "/stream.ts", "/stream.mjpeg", "/nothing")
        for path in paths:
            for query in ("", "?token=", "?token=wrong", f"?token={TOKEN}x", f"?tokens={TOKEN}"):
                status, headers, body = stage.get(path + query)
                assert status == 401, (path, query)
                assert headers["www-authenticate"] == "Bearer"
                assert TOKEN.encode() not in body
            assert stage.get(path, {"authorization": f"Basic {TOKEN}"})[0] == 401
        many = "&".join(f"a{n}=1" for n in range(100))
        assert stage.get(f"/health?{many}&token={TOKEN}")[0] == 401
        assert stage.get(f"/health?token={TOKEN}")[0] == 200
        assert stage.get("/health", {"authorization": f"Bearer {TOKEN}"})[0] == 200
        assert len(ts_numbers(f"http://127.0.0.1:{stage.port}/stream.ts?token={TOKEN}", 2)) == 2


def test_webrtc_needs_the_token_too():
    async def watch(stage):
        refused, admitted = RtcViewer(stage), RtcViewer(stage, query=f"?token={TOKEN}")
        await refused.connect()
        assert refused.status == 401
        await admitted.connect()
        assert len(await admitted.watch(3)) == 3
        await admitted.close()

    with staged(token=TOKEN) as stage:
        asyncio.run(asyncio.wait_for(watch(stage), 60))


@pytest.fixture
def state(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    return tmp_path / "state"


def test_a_token_made_at_random_is_kept_for_its_owner_alone(state):
    token, path = kept_token()
    assert path == token_path() == state / "streamer" / "web-token"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert len(token) >= 32
    assert kept_token() == (token, path)
    assert [item.name for item in path.parent.iterdir()] == ["web-token"]


@pytest.mark.parametrize("spoilt", ["", "short", "x" * 5000, "with spaces in it " * 3])
def test_a_token_that_is_none_is_made_anew(state, spoilt):
    _, path = kept_token()
    path.write_text(spoilt)
    token, _ = kept_token()
    assert len(token) >= 32
    assert token != spoilt
    assert kept_token()[0] == token


def test_a_token_that_others_could_read_is_made_anew(state):
    token, path = kept_token()
    path.chmod(0o644)
    fresh, _ = kept_token()
    assert fresh != token
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_token_that_cannot_be_kept_is_good_for_once(state):
    state.write_text("a file where a folder should be")
    token, path = kept_token()
    assert path is None
    assert len(token) >= 32


def test_beyond_this_machine_a_token_is_made_and_said_once(state, caplog):
    caplog.set_level("INFO", "streamer.node.page")
    with staged(listen="0.0.0.0:0") as stage:
        token, path = kept_token()
        assert stage.get("/health")[0] == 401
        assert stage.get(f"/health?token={token}")[0] == 200
        assert token not in repr(stage.node)
        assert token not in stage.context.statuses[-1][1]
    said = [record.message for record in caplog.records]
    assert sum(token in text for text in said) == 1
    assert sum(str(path) in text for text in said) == 1
    assert any("open to everyone who reaches this address and has the token" in s for s in said)


def test_on_this_machine_no_token_is_needed(state, caplog):
    caplog.set_level("INFO", "streamer.node.page")
    with staged() as stage:
        assert stage.get("/health")[0] == 200
    assert any("open to programs of this machine" in r.message for r in caplog.records)
    assert not os.path.exists(state)


def test_names_for_a_proxy_demand_a_token_on_this_machine_too(state, caplog):
    caplog.set_level(logging.INFO)
    with staged(hosts=["show.example.org"]) as stage:
        assert stage.get("/health")[0] == 401
        token, _ = kept_token()
        assert stage.get(f"/health?token={token}")[0] == 200
    assert "open to everyone who reaches this address and has the token" in caplog.text


def test_a_given_token_is_not_shown(caplog):
    caplog.set_level("DEBUG")
    with staged(token=TOKEN) as stage:
        stage.get(f"/health?token={TOKEN}")
        assert TOKEN not in repr(stage.node)
    assert not [r for r in caplog.records if TOKEN in r.getMessage()]


async def _let_in(scope, receive, send):
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b""})


def _status(guard, headers, query=b""):
    """The status that a request with these headers gets, without a server around it."""
    sent = []

    async def send(message):
        sent.append(message)

    async def receive():
        return {"type": "http.request", "body": b"", "more_body": False}

    scope = {
        "type": "http",
        "method": "GET",
        "path": "/",
        "query_string": query,
        "headers": headers,
    }
    asyncio.run(guard(scope, receive, send))
    return sent[0]["status"]


BYTES = st.binary(max_size=40)


@settings(max_examples=200, deadline=None)
@given(
    host=st.one_of(BYTES, st.sampled_from([b"localhost", b"127.0.0.1:80"])),
    others=st.lists(
        st.tuples(
            st.sampled_from([b"host", b"origin", b"authorization", b"sec-fetch-site", b"x"]), BYTES
        ),
        max_size=4,
    ),
    query=BYTES,
)
def test_whatever_comes_is_let_in_only_with_the_token(host, others, query):
    guard = Guard(_let_in, names=(), token=TOKEN)
    assert _status(guard, [(b"host", host), *others], query) in (401, 403, 421)


def test_the_guard_lets_in_whom_it_should():
    guard = Guard(_let_in, names=(), token=TOKEN)
    assert _status(guard, [(b"host", b"localhost")], f"token={TOKEN}".encode()) == 200
