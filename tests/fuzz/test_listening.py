"""What a running graph listens on: nothing beyond this machine, and sockets for its user alone."""

from __future__ import annotations

import json
import os
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest
from fuzz_processes import children

ROOT = Path(__file__).parents[2]
STREAMER = Path(sys.executable).parent / "streamer"
LISTEN = "0A"
"""state of a TCP socket in /proc/net/tcp (TCP_LISTEN)"""


def sockets_of(pid: int) -> set[str]:
    """Inodes of the sockets that a process has open."""
    found = set()
    try:
        for entry in Path(f"/proc/{pid}/fd").iterdir():
            try:
                target = os.readlink(entry)
            except OSError:
                continue
            if target.startswith("socket:["):
                found.add(target[8:-1])
    except OSError:
        pass
    return found


def address_of(text: str) -> tuple[str, int]:
    """Address and port of an entry such as 0100007F:1F90, words in the host's byte order."""
    host, _, port = text.partition(":")
    words = bytes.fromhex(host)
    turned = b"".join(words[at : at + 4][::-1] for at in range(0, len(words), 4))
    return str(ip_address(turned)), int(port, 16)


def listening(pids: list[int]) -> dict[str, list[tuple[str, int]]]:
    """Addresses at which processes take connections or datagrams from others, by protocol."""
    mine = set().union(*(sockets_of(pid) for pid in pids))
    found: dict[str, list[tuple[str, int]]] = {}
    for protocol in ("tcp", "tcp6", "udp", "udp6"):
        for line in Path(f"/proc/net/{protocol}").read_text().splitlines()[1:]:
            _, local, remote, state, *rest = line.split()
            if rest[5] not in mine or (protocol.startswith("tcp") and state != LISTEN):
                continue
            if protocol.startswith("udp") and address_of(remote)[1]:
                continue  # takes nothing but from the one it sends to
            found.setdefault(protocol, []).append(address_of(local))
    return found


def unix_sockets(pids: list[int]) -> set[Path]:
    """Paths of the Unix sockets that processes listen on."""
    mine = set().union(*(sockets_of(pid) for pid in pids))
    found = set()
    for line in Path("/proc/net/unix").read_text().splitlines()[1:]:
        fields = line.split()
        listens = int(fields[3], 16) & 0x10000  # SO_ACCEPTCON
        if fields[6] in mine and listens and len(fields) > 7:
            found.add(Path(fields[7]))
    return found


@pytest.fixture
def folder(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Where runs put their sockets; it must be empty in the end."""
    with tempfile.TemporaryDirectory(prefix="listening-") as made:
        monkeypatch.setenv("TMPDIR", made)
        monkeypatch.setattr(tempfile, "tempdir", made)  # for this process, which asked before
        yield Path(made)
        assert os.listdir(made) == []


@pytest.fixture
def started(tmp_path: Path, folder: Path) -> Iterator[Callable[..., subprocess.Popen[bytes]]]:
    """Starts `streamer run` in a session of its own, and ends it properly."""
    running: list[subprocess.Popen[bytes]] = []

    def start(*arguments: object, **environ: str) -> subprocess.Popen[bytes]:
        log = (tmp_path / "log").open("wb")
        running.append(
            subprocess.Popen(
                [STREAMER, "run", *map(str, arguments)],
                cwd=tmp_path,
                env={**os.environ, **environ},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        )
        log.close()
        return running[-1]

    yield start
    for process in running:
        process.send_signal(signal.SIGINT)
        try:
            assert process.wait(60) == 0, (tmp_path / "log").read_text()
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)


def flowing(tmp_path: Path, run: subprocess.Popen[bytes], sink: str) -> None:
    """Waits until pictures come out of a run, as its report says."""
    from streamer.runtime.remote import Remote, running_graphs

    end = time.monotonic() + 90
    while True:
        assert run.poll() is None, (tmp_path / "log").read_text()
        assert time.monotonic() < end, (tmp_path / "log").read_text()
        for found in running_graphs():
            if found.pid == run.pid:
                with Remote(found) as remote:
                    if remote.report()["sinks"][sink]["delivered"]:
                        return
        time.sleep(0.1)


def free_port(kind: int) -> int:
    with socket.socket(socket.AF_INET, kind) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


GRAPHS: dict[str, tuple[str, tuple[str, ...], bool, int]] = {
    "quickstart": ("sink", ("sink.url=null:", "source.loop=true"), False, 0),
    "webcam-to-obs": ("obs", ("camera.url=demo:", "camera.loop=true"), False, 1),
    "web-page": ("page", ("page.listen=127.0.0.1:0",), True, 0),
}
"""configuration: its sink, overrides, whether it serves, and its sockets that send by UDP"""


@pytest.mark.parametrize("name", GRAPHS)
def test_nothing_listens_beyond_this_machine(
    name: str,
    started: Callable[..., subprocess.Popen[bytes]],
    tmp_path: Path,
    folder: Path,
) -> None:
    sink, overrides, serves, sends = GRAPHS[name]
    given = [part for override in overrides for part in ("--set", override)]
    run = started(
        ROOT / f"configs/{name}.yaml",
        *given,
        OBS_URL=f"udp://127.0.0.1:{free_port(socket.SOCK_DGRAM)}",
        OUTPUT="null:",
    )
    flowing(tmp_path, run, sink)
    family = children(run.pid)
    assert len(family) > 1
    found = listening(family)
    services = [place for kind in ("tcp", "tcp6") for place in found.get(kind, [])]
    assert all(ip_address(host).is_loopback for host, _ in services), found
    # FFmpeg sends by UDP from a socket without an address of its own; it never reads from it.
    assert len(found.get("udp", [])) + len(found.get("udp6", [])) == sends, found
    # No service but the one that was asked for.
    assert bool(found.get("tcp")) == serves
    assert "tcp6" not in found

    (mine,) = folder.iterdir()
    paths = unix_sockets(family)
    assert paths
    assert {path.parent for path in paths} == {mine}
    assert {path.name for path in paths} >= {"control", "clients"}
    assert stat.S_IMODE(mine.stat().st_mode) == 0o700
    assert mine.stat().st_uid == os.getuid()
    for path in mine.iterdir():
        kind = path.stat().st_mode
        assert stat.S_ISSOCK(kind) or stat.S_ISREG(kind), path
        if stat.S_ISREG(kind):
            assert stat.S_IMODE(kind) == 0o600, path
    for pid in family:
        words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        assert not any(word.startswith(b"tcp://") for word in words)


def test_beyond_this_machine_a_token_is_demanded(
    started: Callable[..., subprocess.Popen[bytes]], tmp_path: Path, folder: Path
) -> None:
    import http.client

    nodes: dict[str, Any] = {
        "demo": {"uses": "decoder", "with": {"url": "demo:", "loop": True, "realtime": True}},
        "page": {"uses": "web", "from": "demo", "with": {"listen": "0.0.0.0:0"}},
    }
    graph = tmp_path / "open.yaml"
    graph.write_text(json.dumps({"version": 1, "nodes": nodes}))
    run = started(graph, XDG_STATE_HOME=str(tmp_path / "state"))
    flowing(tmp_path, run, "page")
    places = [place for _, group in listening(children(run.pid)).items() for place in group]
    (port,) = (port for host, port in places if host == "0.0.0.0")
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    connection.request("GET", "/snapshot.jpg")
    assert connection.getresponse().status == 401
    connection.close()
    # It was said at the start, and the file that holds the token is its owner's alone.
    assert "open to everyone who reaches this address" in (tmp_path / "log").read_text()
    kept = tmp_path / "state/streamer/web-token"
    assert stat.S_IMODE(kept.stat().st_mode) == 0o600
