"""A real OBS shows the restyled picture, live: the docs' settings, the true age of what it shows.

The ages of `docs/obs.md` are printed by `pytest -s`; with STREAMER_OBS_PICTURES set to a folder, a
picture of OBS's window on each route is written there.
"""

from __future__ import annotations

import os
import signal
import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import obs_studio
import pytest
import stamping
from e2e_support import frames_of, free_port, wait_for

pytestmark = pytest.mark.skipif(
    bool(obs_studio.MISSING), reason=f"needs {' and '.join(obs_studio.MISSING)}"
)

SIDE = 256
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
    below = np.s_[SIDE // 8 :]
    return min(
        float(np.abs(picture[below].astype(int) - other[below]).mean()) for other in pictures
    )


def watch(shot: Callable[[], Any], *, seconds: float = 6.0) -> tuple[list[int], list[int], Any]:
    """Looks for a while: stamps seen, ages in milliseconds, and the last picture."""
    stamps, ages, last = [], [], None
    wait_for(lambda: (seen := shot()) is not None and stamping.read(seen) is not None)
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        picture = shot()
        value = stamping.read(picture)
        if value is not None:
            stamps.append(value)
            ages.append(stamping.age_ms(value))
            last = picture
        time.sleep(0.1)
    return stamps, ages, last


def is_the_styled_show(stamps: list[int], picture: Any, looks: dict[str, list[Any]]) -> None:
    assert len(set(stamps)) > len(stamps) // 2, "the picture stands still"
    assert stamps == sorted(stamps), "time runs backwards"
    assert nearest(picture, looks["styled"]) < nearest(picture, looks["plain"]) / 2


def test_obs_plays_mpegts_over_udp(
    obs: obs_studio.Obs,
    looks: dict[str, list[Any]],
    started: Callable[..., Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent))
    port = free_port(kind="udp")
    graph = tmp_path / "show.yaml"
    graph.write_text(
        f'{STYLED}  obs: {{uses: encoder, from: stamp, with: {{url: "udp://127.0.0.1:{port}"}}}}\n'
    )
    run = started("run", graph)
    obs.play(
        "udp",
        "ffmpeg_source",
        {
            "is_local_file": False,
            "input": f"udp://127.0.0.1:{port}?fifo_size=5000&overrun_nonfatal=1",
            "input_format": "mpegts",
            "ffmpeg_options": LOW_DELAY,
            "buffering_mb": 0,
            "reconnect_delay_sec": 1,
        },
    )
    stamps, ages, picture = watch(lambda: obs.screenshot("udp", (SIDE, SIDE)))
    keep(obs, "udp", ages)
    obs.remove("udp")
    run.send_signal(signal.SIGINT)
    assert run.wait(60) == 0
    is_the_styled_show(stamps, picture, looks)


def keep(obs: obs_studio.Obs, route: str, ages: list[int]) -> None:
    """Tells the age, and keeps a picture of OBS's window where that is asked for."""
    print(f"\n{route}: age in OBS {statistics.median(ages):.0f} ms")
    if folder := os.environ.get("STREAMER_OBS_PICTURES"):
        obs.picture_of_window(Path(folder) / f"obs-{route}.png")
