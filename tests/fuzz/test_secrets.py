"""Credentials, wherever they can stand, are in nothing that is printed, written or drawn.

Every secret here holds one of a few words that nothing else holds; every output of real runs is
searched for them.
"""

from __future__ import annotations

import json
import os
import signal
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from fuzz_processes import children
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from streamer.errors import GraphError, ParameterError
from streamer.graph import Graph
from streamer.graph.changing import changed, current
from streamer.graph.render import mermaid, text
from streamer.graph.svg import svg
from streamer.masking import mask

STREAMER = Path(sys.executable).parent / "streamer"
WORDS = ("qzxvkw", "wjkvqx")
"""in every secret"""
PASSWORDS = [
    "qzxvkw", "qzxvkw@wjkvqx", "qzxvkw:wjkvqx", "qzxvkw/wjkvqx", "qzxvkw#wjkvqx", "qzxvkw?wjkvqx",
    "qzxvkw%40wjkvqx%2F", "qzxvkw&wjkvqx=1", "1234/qzxvkw", "12?qzxvkw", "qzxvkw'wjkvqx",
    "qzxvkw+~!$*(),;wjkvqx", "@qzxvkw@", "a:b/c@qzxvkw/d",
]  # fmt: skip


def hidden(*outputs: str) -> None:
    """Asserts that no word of a secret stands in any output."""
    for output in outputs:
        for word in WORDS:
            at = output.find(word)
            assert at < 0, output[max(0, at - 200) : at + 100]


def urls(password: str) -> list[str]:
    """Addresses with a password, in every place that one can stand in."""
    coded = quote(password, safe="/:?!$*(),;@~+%")
    return [
        f"rtsp://anna:{password}@127.0.0.1:9/live",
        f"rtsps://anna:{password}@cam.local/live?x=1",
        f"http://anna:{password}@[::1]:9/x.m3u8",
        f"rtmp://anna:{quote(password, safe='')}@127.0.0.1:9/app/qzxvkw-key",
        f"https://{quote(password, safe='')}@127.0.0.1:9/x",
        f"http://127.0.0.1:9/x.m3u8?token={coded}&n=1",
        f"http://127.0.0.1:9/x?n=1&api_key={coded}",
        f"http://127.0.0.1:9/x?key={coded}",
        f"srt://127.0.0.1:9?passphrase={coded}&mode=caller",
        f"srt://127.0.0.1:9?streamid=#!::u=anna,s={coded}",
    ]


UNKNOWN = "gopherspace://127.0.0.1:9?passphrase=qzxvkw%40wjkvqx&mode=caller"
OPTIONS: list[dict[str, Any]] = [
    {"headers": "Authorization: Basic qzxvkw==\r\nX-Api-Key: wjkvqx"},
    {"cookies": "session=qzxvkw; path=/; domain=wjkvqx"},
    {"passphrase": "qzxvkw"},
    {"rtsp_password": "qzxvkw wjkvqx"},
    {"http_proxy": "http://anna:qzxvkw@proxy.local:3128"},
    {"decryption_key": "qzxvkw"},
]

PIECE = st.sampled_from(WORDS)
JOINT = st.text(alphabet="@:/#?%&=+!$*(),;~.-_09az", max_size=4)
PASSWORD = st.builds(lambda a, x, b, y, c: a + x + b + y + c, JOINT, PIECE, JOINT, PIECE, JOINT)


@given(password=PASSWORD)
@settings(max_examples=300, deadline=None)
def test_a_password_survives_no_mask(password: str) -> None:
    for url in urls(password)[:3]:
        hidden(mask(url), mask(f"{url}: refused"), mask(f"cannot open '{url}', sorry"))
    safe = quote(password, safe="")
    for url in (*urls(safe), *(f"{name}={safe}" for name in ("CAM_PASSWORD", "token", "secret"))):
        hidden(mask(url), mask(repr(url)), mask(f"[http @ 0x1] {url} failed\n"), mask(f'"{url}",'))
    for options in ({"password": safe}, {"headers": f"Authorization: Bearer {safe}"}):
        hidden(mask(repr(options)), mask(json.dumps(options)), mask(f"options: {options}"))


def graphs(url: str, options: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Graphs with a secret in each place: a good one, and some that are wrong in its place."""
    cam: dict[str, Any] = {"uses": "decoder", "with": {"url": url, "options": options}}
    out: dict[str, Any] = {"uses": "encoder", "from": "cam", "with": {"url": "out.mp4"}}
    yield {"nodes": {"cam": cam, "out": out}}
    for wrong in (
        {"url": [url]},
        {"url": url, "timeout": url},
        {"url": url, "fps": url, "threads": url},
        {"url": url, "options": url},
        {"url": url, "options": {key: [value] for key, value in options.items()}},
        {"url": url, "size": url},
        {"urls": url, url: 1},
        {"url": f"{url}\n"},
    ):
        yield {"nodes": {"cam": {**cam, "with": wrong}, "out": out}}
    for wrong in ({"url": url + ".xyz"}, {"url": "x." + url}, {"url": "a.mp4", "bitrate": url}):
        yield {"nodes": {"cam": cam, "out": {**out, "with": wrong}}}
    yield {"nodes": {"cam": {**cam, "uses": url}, "out": {**out, "from": url}}}
    yield {"nodes": {url: cam, "out": out}, "workers": {url: [url]}, "name": url, url: 1}


def told(data: dict[str, Any], **options: Any) -> list[str]:
    """All that is said of a graph, drawn of it, and answered to `streamer get` and `set`."""
    try:
        graph = Graph.from_dict(data, **options)
    except GraphError as error:
        return [str(error)]
    plan = graph.plan()
    said = [repr(graph), text(plan), mermaid(plan), svg(plan)]
    for node in plan.nodes:
        for key in ("url", "options", "timeout", "muxer_options", "nothing"):
            try:
                said.append(repr(current(plan, f"{node.name}.{key}")))
            except ParameterError as error:
                said.append(str(error))
        try:
            changed(plan, f"{node.name}.url", node.params["url"])
        except ParameterError as error:
            said.append(str(error))
    return said


@pytest.mark.parametrize("password", PASSWORDS)
def test_graphs_and_their_mistakes_show_no_secret(password: str) -> None:
    for number, url in enumerate(urls(password)):
        for data in graphs(url, OPTIONS[number % len(OPTIONS)]):
            hidden(*told(data))


@given(password=PASSWORD)
@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_mistakes_in_the_text_of_a_file_show_no_secret(password: str) -> None:
    safe = quote(password, safe="")
    environ = {"CAM_PASSWORD": password, "CAM": f"rtsp://anna:{safe}@127.0.0.1/live"}
    for value in (
        f"rtsp://anna:{safe}@h/x: y", f"'rtsp://anna:{safe}@h/x", f"[rtsp://anna:{safe}@h/x",
        f"{{rtsp://anna:{safe}@h/x: ", f"!!int rtsp://anna:{safe}@h/x", "!!int ${CAM_PASSWORD}",
        "!!int ${CAM}", "[${CAM_PASSWORD}]", "{a: '${CAM}'}", "'${CAM}${CA}'", "\t${CAM}",
        f"!rtsp://anna:{safe}@h/x x", f"&a rtsp://anna:{safe}@h/x\n- *b", '"\\q${CAM}"',
    ):  # fmt: skip
        for key in ("url", "fps", "timeout"):
            source = (
                "version: 1\nnodes:\n  cam:\n    uses: decoder\n    with:\n"
                f"      {key}: {value}\n  out: {{uses: encoder, from: cam, with: {{url: a.mp4}}}}\n"
            )
            try:
                Graph.parse(source, environ=environ)
            except GraphError as error:
                hidden(str(error))
    good = {
        "nodes": {
            "cam": {"uses": "decoder", "with": {"url": "demo:"}},
            "out": {"uses": "encoder", "from": "cam", "with": {"url": "a.mp4"}},
        }
    }
    for override in (
        f"cam.url=rtsp://anna:{safe}@h/x", f"cam.fps=rtsp://anna:{safe}@h/x", f"cam.token={safe}",
        f"cam.options.password=[{safe}]", f"cam.options={{passphrase: ['{safe}']}}",
        f"nobody.password={safe}", f"cam.timeout.secret={safe}", f"out.url=http://h?token={safe}",
        f"cam.options={{headers: 'Authorization: Bearer {safe}', x: [1]}}",
    ):  # fmt: skip
        hidden(*told(good, overrides=[override]))


# ---- real processes ----------------------------------------------------------------------------

NODES = '''
import av
import logging
import sys
from fractions import Fraction
import numpy as np
from pydantic import Field
import streamer


class LeakyParams(streamer.Params):
    url: str
    how: str = "raise"
    text: str = Field(default="", json_schema_extra={"live": True})


class Leaky(streamer.Source[LeakyParams]):
    """Tells its address to everybody, as code does that others have written."""

    Params = LeakyParams

    @classmethod
    def is_live(cls, params):
        return True

    def open(self):
        url = self.params.url
        av.logging.set_level(av.logging.DEBUG)
        if self.params.how == "native":
            av.logging.restore_default_callback()
        logging.getLogger().setLevel(logging.DEBUG)
        print("opening", url, flush=True)
        print("opening", repr(url), file=sys.stderr, flush=True)
        self.context.log.warning("opening %s with %r", url, self.params)
        self.context.note(f"opening {url}")
        self.context.status(streamer.Status.CONNECTING, f"to {url}")
        try:
            av.open(url, timeout=5)
        except Exception:
            logging.exception("this did not work: %s", url)
        if self.params.how == "source":
            raise streamer.SourceError(f"cannot open {url}")

    def frames(self):
        for number in range(3 if self.params.how != "go on" else 100_000):
            pixels = np.zeros((64, 64, 3), np.uint8)
            with self.context.allocate(64, 64, pts=number, time_base=Fraction(1, 30)) as frame:
                frame.numpy()[:] = pixels
                yield frame
            self.context.stopping.wait(0.03)
        if self.params.how != "go on":
            options = {"password": "qzxvkw", "url": self.params.url}
            raise RuntimeError(f"no more of {self.params.url}: {options}")

    def prepare(self, params):
        raise ValueError(f"no {params.text} for {params.url}")
'''

Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def folder(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Where runs put their sockets."""
    with tempfile.TemporaryDirectory(prefix="secrets-") as made:
        monkeypatch.setenv("TMPDIR", made)
        yield Path(made)


@pytest.fixture
def streamer(tmp_path: Path, folder: Path) -> Run:
    (tmp_path / "leaky.py").write_text(NODES)

    def run(*arguments: object, **environ: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [STREAMER, *map(str, arguments)],
            cwd=tmp_path,
            env={**os.environ, **environ},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

    return run


def written(path: Path, nodes: dict[str, Any]) -> Path:
    path.write_text(json.dumps({"version": 1, "nodes": nodes}))
    return path


@pytest.mark.parametrize("debug", ["0", "1"])
def test_commands_on_wrong_graphs(streamer: Run, tmp_path: Path, debug: str) -> None:
    nodes: dict[str, Any] = {}
    for number, url in enumerate(url for password in PASSWORDS for url in urls(password)):
        given = [{"url": url, "fps": url}, {"url": url, "size": "1x1"}, {"options": [url]}]
        nodes[f"n{number}"] = {"uses": "decoder", "with": given[number % 3]}
        nodes[f"o{number}"] = {"uses": "encoder", "from": url, "with": {"url": f"x{url}.zip"}}
    few = dict(list(nodes.items())[:100])
    graph = written(tmp_path / "wrong.yaml", few)
    secret = "rtsp://anna:qzxvkw@127.0.0.1:9/x"
    for command in ("check", "run", "graph"):
        done = streamer(command, graph, STREAMER_DEBUG=debug)
        assert done.returncode == 2
        hidden(done.stdout, done.stderr)
    hidden(streamer("style", secret, f"out.{secret}", STREAMER_DEBUG=debug).stderr)
    for path in (f"a={secret}", "a.password=qzxvkw", f"n1.url={secret}"):
        done = streamer("set", path, STREAMER_DEBUG=debug)
        assert done.returncode == 2
        hidden(done.stdout, done.stderr)


@pytest.mark.parametrize("how", ["raise", "source", "native"])
def test_runs_of_a_node_that_tells_everything(streamer: Run, tmp_path: Path, how: str) -> None:
    leaky = {
        "uses": "leaky:Leaky",
        "with": {"url": "${CAMERA}", "how": how},
        "restart": {"policy": "never"},
    }
    out = {"uses": "encoder", "from": "cam", "with": {"url": "null:"}}
    graph = written(tmp_path / "leaky.yaml", {"cam": leaky, "out": out})
    for password in ("qzxvkw@wjkvqx",):
        url = f"rtsp://anna:{password}@127.0.0.1:9/live?token=wjkvqx"
        done = streamer("run", graph, "--report", "r.json", CAMERA=url, STREAMER_DEBUG="1")
        assert done.returncode == 1, done.stderr
        # It did say what it had to say, and all of that was heard.
        assert done.stderr.count("rtsp://***@127.0.0.1:9/live") >= 5, done.stderr
        hidden(done.stdout, done.stderr, (tmp_path / "r.json").read_text())


def test_runs_whose_peers_refuse(streamer: Run, tmp_path: Path) -> None:
    seen = 0
    addresses = urls("qzxvkw%40wjkvqx")
    for url in (addresses[0], addresses[2], addresses[5]):
        cam = {"uses": "decoder", "with": {"url": url, "give_up": 0, "options": OPTIONS[0]}}
        out = {"uses": "encoder", "from": "cam", "with": {"url": "null:"}}
        graph = written(tmp_path / "g.yaml", {"cam": cam, "out": out})
        done = streamer("run", graph, "--report", "r.json", "--duration", "2", STREAMER_DEBUG="1")
        assert done.returncode == 1, (url, done.stderr)
        seen += "***" in done.stderr
        hidden(done.stdout, done.stderr, (tmp_path / "r.json").read_text())
    assert seen
    # No protocol of an FFmpeg: told with the mistakes of the graph.
    graph = written(tmp_path / "g.yaml", {"cam": {**cam, "with": {"url": UNKNOWN}}, "out": out})
    done = streamer("run", graph, STREAMER_DEBUG="1")
    assert done.returncode == 2, done.stderr
    assert "***" in done.stderr
    hidden(done.stdout, done.stderr)
    for url in ("rtmp://anna:qzxvkw@127.0.0.1:9/app/wjkvqx", "tcp://127.0.0.1:9?token=qzxvkw"):
        demo = {"uses": "decoder", "with": {"url": "demo:", "realtime": True}}
        out = {"uses": "encoder", "from": "cam", "with": {"url": url}}
        graph = written(tmp_path / "g.yaml", {"cam": demo, "out": out})
        done = streamer("run", graph, "--report", "r.json", "--duration", "1", STREAMER_DEBUG="1")
        assert "***" in done.stderr, done.stderr
        hidden(done.stdout, done.stderr, (tmp_path / "r.json").read_text())
        wrong = {
            **out,
            "with": {"url": url, "codec": "no-such-codec", "options": {"token": "qzxvkw"}},
        }
        graph = written(tmp_path / "g.yaml", {"cam": demo, "out": wrong})
        done = streamer("run", graph, "--duration", "1", STREAMER_DEBUG="1")
        assert done.returncode != 0
        hidden(done.stdout, done.stderr)


def test_a_run_as_others_see_it(streamer: Run, tmp_path: Path, folder: Path) -> None:
    url = "rtsp://anna:qzxvkw%40@127.0.0.1:9/live"
    nodes = {
        "leaky": {"uses": "leaky:Leaky", "with": {"url": "${CAMERA}", "how": "go on"}},
        "null": {"uses": "encoder", "from": "leaky", "with": {"url": "null:"}},
        "tcp": {
            "uses": "encoder",
            "from": "leaky",
            "with": {"url": "tcp://127.0.0.1:9?key=wjkvqx"},
        },
        "cam": {"uses": "decoder", "with": {"url": "${CAMERA}", "options": OPTIONS[0]}},
        "out": {"uses": "encoder", "from": "cam", "with": {"url": "null:"}},
    }
    graph = written(tmp_path / "live.yaml", nodes)
    log = tmp_path / "log"
    with log.open("w") as lines:
        run = subprocess.Popen(
            [STREAMER, "run", graph, "--report", "r.json"],
            cwd=tmp_path,
            env={**os.environ, "CAMERA": url, "STREAMER_DEBUG": "1"},
            stdin=subprocess.DEVNULL,
            stdout=lines,
            stderr=lines,
            start_new_session=True,
        )
    try:
        end = time.monotonic() + 60
        while streamer("get", "leaky.how", "--run", run.pid).stdout != "go on\n":
            assert run.poll() is None, log.read_text()
            assert time.monotonic() < end, log.read_text()
        for command in (
            ("get", "cam.url"), ("get", "cam.options"), ("get", "tcp.url"), ("get", "leaky.url"),
            ("get", f"cam.{url}"), ("get", url), ("set", f"cam.url={url}"), ("status",),
            ("set", f"leaky.text={url}"), ("set", "leaky.text={password: qzxvkw}"),
        ):  # fmt: skip
            done = streamer(*command, *(() if command == ("status",) else ("--run", run.pid)))
            assert done.stdout or done.stderr
            hidden(done.stdout, done.stderr)
        assert (
            streamer("get", "cam.url", "--run", run.pid).stdout == "rtsp://***@127.0.0.1:9/live\n"
        )

        family = children(run.pid)
        assert len(family) >= 6
        for pid in family:
            hidden(Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace"))
        (mine,) = folder.glob("streamer-*")
        assert stat.S_IMODE(mine.stat().st_mode) == 0o700
        about = mine / "run.json"
        assert stat.S_IMODE(about.stat().st_mode) == 0o600
        hidden(about.read_text())
    finally:
        run.send_signal(signal.SIGINT)
        try:
            run.wait(60)
        finally:
            if run.poll() is None:
                os.killpg(run.pid, signal.SIGKILL)
    hidden(log.read_text(), (tmp_path / "r.json").read_text())
    assert "***" in log.read_text()


def test_the_doctor_tells_no_secret_of_the_environment(streamer: Run) -> None:
    done = streamer(
        "doctor", "--json", CAM_PASSWORD="qzxvkw", HTTP_PROXY="http://anna:wjkvqx@127.0.0.1:9"
    )
    assert json.loads(done.stdout)["findings"]
    hidden(done.stdout, done.stderr)
