"""A real OBS shows the restyled picture, live: the docs' settings, the true age of what it shows.

The ages of `docs/obs.md` are printed by `pytest -s`; with STREAMER_OBS_PICTURES set to a folder, a
picture of the viewer's window on each route is written there.
"""

from __future__ import annotations

import os
import signal
import socket
import statistics
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import browser
import numpy as np
import obs_studio
import pytest
import stamping
from e2e_support import frames_of, free_port, wait_for

pytestmark = pytest.mark.skipif(
    bool(obs_studio.MISSING), reason=f"needs {' and '.join(obs_studio.MISSING)}"
)

SIDE = 256
QUEUE = "?fifo_size=5000&overrun_nonfatal=1"
LOW_DELAY = "fflags=nobuffer flags=low_delay probesize=32000 analyzeduration=0 max_delay=0"
STYLED = f"""
version: 1
name: show
nodes:
  camera: {{uses: decoder, with: {{url: "demo:", loop: true, realtime: true}}}}
  crop: {{uses: preprocess, from: camera, with: {{size: {SIDE}x{SIDE}, fit: cover}}}}
  style: {{uses: sdxs, from: crop, with: {{prompt: comic}}}}
  stamp: {{uses: "stamping:Stamp", from: style}}
"""


@pytest.fixture(scope="module")
def obs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[obs_studio.Obs]:
    with obs_studio.Obs(tmp_path_factory.mktemp("obs")) as running:
        yield running


@pytest.fixture(scope="module")
def looks(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Any]]:
    """Pictures of the demo clip as they come and as they are styled."""
    import streamer

    folder = tmp_path_factory.mktemp("looks")
    common = {"quality": 8}
    graph = {
        "version": 1,
        "name": "looks",
        "nodes": {
            "camera": {"uses": "decoder", "with": {"url": "demo:"}},
            "crop": {
                "uses": "preprocess",
                "from": "camera",
                "with": {"size": f"{SIDE}x{SIDE}", "fit": "cover"},
            },
            "style": {"uses": "sdxs", "from": "crop", "with": {"prompt": "comic"}},
            "plain": {
                "uses": "encoder",
                "from": "crop",
                "with": {"url": str(folder / "plain.mkv"), **common},
            },
            "styled": {
                "uses": "encoder",
                "from": "style",
                "with": {"url": str(folder / "styled.mkv"), **common},
            },
        },
    }
    streamer.run(streamer.Graph.from_dict(graph))
    return {
        name: [picture for _, picture in frames_of(folder / f"{name}.mkv")]
        for name in ("plain", "styled")
    }


def nearest(picture: Any, pictures: list[Any]) -> float:
    """Mean difference in grey levels to the most similar picture, below the stamp."""
    # A quarter of the pixels: viewers compute beside this.
    below = np.s_[SIDE // 8 :: 2, ::2]
    return min(
        float(np.abs(picture[below].astype(int) - other[below]).mean()) for other in pictures
    )


def is_styled(picture: Any, looks: dict[str, list[Any]]) -> bool:
    return nearest(picture, looks["styled"]) < nearest(picture, looks["plain"]) / 2


def watch(
    shot: Callable[[], Any], looks: dict[str, list[Any]], *, pictures: int = 15
) -> tuple[list[int], list[int], Any]:
    """Looks until that many different pictures were seen, however long they take.

    The first of them is the first styled one: until the model is loaded, pictures pass it by.
    Gives the stamps seen, with repeats, the ages in milliseconds, and the last picture.
    """
    stamps: list[int] = []
    ages: list[int] = []
    last = None

    def seen() -> bool:
        nonlocal last
        picture = shot()
        value = None if picture is None else stamping.read(picture)
        if value is not None and (stamps or is_styled(picture, looks)):
            stamps.append(value)
            ages.append(stamping.age_ms(value))
            last = picture
        return len(set(stamps)) >= pictures

    wait_for(seen)
    return stamps, ages, last


def is_the_styled_show(stamps: list[int], picture: Any, looks: dict[str, list[Any]]) -> None:
    assert stamps == sorted(stamps), "time runs backwards"
    assert is_styled(picture, looks)


@pytest.fixture
def show(
    started: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[[str], None]]:
    """Runs the styled show into one sink, given as a line of a graph, and ends it properly."""
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent))
    runs = []

    def run(sink: str) -> None:
        graph = tmp_path / "show.yaml"
        graph.write_text(f"{STYLED}  out: {{{sink}}}\n")
        runs.append(started("run", graph))

    yield run
    for process in runs:
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 0


def test_obs_plays_mpegts_over_udp(
    obs: obs_studio.Obs, looks: dict[str, list[Any]], show: Callable[[str], None]
) -> None:
    port = free_port(kind="udp")
    show(f'uses: encoder, from: stamp, with: {{url: "udp://127.0.0.1:{port}"}}')
    obs.play("udp", "ffmpeg_source", media(f"udp://127.0.0.1:{port}{QUEUE}"))
    stamps, ages, picture = watch(lambda: obs.screenshot("udp", (SIDE, SIDE)), looks)
    keep("udp", ages, obs)
    obs.remove("udp")
    is_the_styled_show(stamps, picture, looks)


def test_obs_plays_mpegts_over_http(
    obs: obs_studio.Obs, looks: dict[str, list[Any]], show: Callable[[str], None]
) -> None:
    port = free_port()
    show(f'uses: web, from: stamp, with: {{listen: "127.0.0.1:{port}"}}')
    wait_for(lambda: listens(port))
    obs.play("http", "ffmpeg_source", media(f"http://127.0.0.1:{port}/stream.ts"))
    stamps, ages, picture = watch(lambda: obs.screenshot("http", (SIDE, SIDE)), looks)
    keep("http", ages, obs)
    obs.remove("http")
    is_the_styled_show(stamps, picture, looks)


@pytest.mark.skipif(bool(browser.MISSING), reason=f"needs {' and '.join(browser.MISSING)}")
@pytest.mark.parametrize(
    ("path", "element"), [("", "#video"), ("stream.mjpeg", "img")], ids=["webrtc", "mjpeg"]
)
def test_a_browser_shows_the_page(
    path: str,
    element: str,
    looks: dict[str, list[Any]],
    show: Callable[[str], None],
) -> None:
    port = free_port()
    show(f'uses: web, from: stamp, with: {{listen: "127.0.0.1:{port}"}}')
    wait_for(lambda: listens(port))
    with browser.Browser() as page:
        page.open(f"http://127.0.0.1:{port}/{path}")
        stamps, ages, picture = watch(lambda: page.video(element), looks)
        keep(path or "page", ages, page)
    is_the_styled_show(stamps, picture, looks)


def media(url: str) -> dict[str, Any]:
    """Settings of a Media Source, as `docs/obs.md` gives them."""
    return {
        "is_local_file": False,
        "input": url,
        "input_format": "mpegts",
        "ffmpeg_options": LOW_DELAY,
        "buffering_mb": 0,
        "reconnect_delay_sec": 1,
    }


def listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def keep(route: str, ages: list[int], viewer: obs_studio.Obs | browser.Browser) -> None:
    """Tells the age, and keeps a picture of the viewer's window where that is asked for."""
    print(f"\n{route}: age {statistics.median(ages):.0f} ms")
    if folder := os.environ.get("STREAMER_OBS_PICTURES"):
        viewer.picture_of_window(Path(folder) / f"{route}.png")
