"""The first model comes while pictures pass: what is marked, refused, waited for and left."""

from __future__ import annotations

import json
import shutil
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import streamer
from nodes.sdxs import OneStep
from nodes.sdxs.arriving import Arriving
from nodes.sdxs.bundle import Bundle
from nodes.sdxs.node import Sdxs, SdxsParams
from nodes.sdxs.small import SmallOneStep
from nodes.sdxs.stages import AbandonedLoadError, Stages
from nodes.sdxs.tokens import read_tokens
from streamer.testing import SoloContext, solo

Picture = np.ndarray[Any, np.dtype[np.uint8]]
PICTURE: Picture = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)


class Gated(Sdxs):
    """Whose first model waits for the test."""

    def open(self) -> None:
        self.gate = threading.Event()
        super().open()

    def _loaded(self, params: SdxsParams, stages: Any) -> OneStep:
        assert self.gate.wait(60)
        return super()._loaded(params, stages)


class Asked(Sdxs):
    """Which only tells where its model would be loaded."""

    where: list[str]

    def _loaded(self, params: SdxsParams, stages: Any) -> OneStep:
        self.where = [threading.current_thread().name]
        raise streamer.NodeError("asked")


def until(condition: Callable[[], Any]) -> None:
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


def processed(node: Sdxs, *, pts: int = 0) -> streamer.Frame:
    frame = node.context.allocate(64, 64, pts=pts, time_base=Fraction(1, 30))
    frame.numpy()[...] = PICTURE
    return node.process(frame)


def expected(prompt: str) -> Picture:
    engine = OneStep.load("bundled", threads=1)
    engine.prompt = prompt
    return np.array(engine(PICTURE))


def gated(**params: Any) -> tuple[Gated, SoloContext]:
    context = SoloContext(name="style", live=True)
    return solo(Gated, context=context, threads=1, **params), context


@pytest.mark.parametrize(
    ("loading", "live", "newest", "incarnation", "passes"),
    [
        ("auto", True, True, 1, True),
        ("auto", True, True, 2, False),
        ("auto", True, False, 1, False),
        ("auto", False, False, 1, False),
        ("auto", False, True, 1, False),
        ("pass", False, False, 2, True),
        ("hold", True, True, 1, False),
    ],
)
def test_where_pictures_pass(
    loading: str, live: bool, newest: bool, incarnation: int, passes: bool
) -> None:
    context = SoloContext(name="style", live=live, newest=newest, incarnation=incarnation)
    node = Asked(SdxsParams(loading=loading))
    node.context = context
    if passes:
        node.open()
        until(lambda: context.calls)
        assert (node.where, context.warm) == (["style-loads"], True)
    else:
        with pytest.raises(streamer.NodeError, match="asked"):
            node.open()
        assert (node.where, context.warm) == ([threading.current_thread().name], False)
    node.close()


def test_pictures_pass_marked_until_the_model_has_come() -> None:
    node, context = gated(prompt="comic")
    for pts in (3, 4):
        out = processed(node, pts=pts)
        assert (out.header.passed, out.header.pts) == (True, pts)
        assert np.array_equal(out.numpy(), PICTURE)
    assert (context.passes, context.calls, context.warm) == (2, [], True)
    node.gate.set()
    until(lambda: context.calls)
    (arrive,) = context.calls
    arrive()
    assert not context.warm
    out = processed(node, pts=5)
    assert not out.header.passed
    assert np.array_equal(out.numpy(), expected("comic"))
    assert context.passes == 2
    assert context.notes == ["loading the model bundled", "painting the first picture of 64x64", ""]
    assert context.progress == [(0, 2), (1, 1 + 1), (0, 0)]
    node.close()
    assert context.left == []


class OnCuda(SmallOneStep):
    """Which says that it computes on a GPU, and does not."""

    device = "cuda:0"  # type: ignore[assignment]


def test_a_gpu_warms_up_at_the_models_own_size_where_none_is_known() -> None:
    class Early(Sdxs):
        def _loaded(self, params: SdxsParams, stages: Any) -> OneStep:
            engine = super()._loaded(params, stages)
            engine.__class__ = OnCuda
            return engine

    context = SoloContext(name="style")
    node = solo(Early, context=context, threads=1, loading="pass")
    until(lambda: context.calls)
    assert context.notes == [
        "loading the model bundled",
        "painting the first picture of 256x256",
        "",
    ]
    assert np.array_equal(processed(node).numpy(), expected("ink"))
    node.close()


def test_without_a_call_the_next_picture_finds_the_model() -> None:
    node, context = gated()
    node.gate.set()
    until(lambda: context.calls)
    assert not processed(node).header.passed
    assert context.passes == 0
    node.close()


def test_files_that_are_not_there_are_refused_before_any_picture(tmp_path: Path) -> None:
    context = SoloContext(live=True)
    for given in (
        {"model": str(tmp_path)},
        {"model": "random:tiny", "control": str(tmp_path)},
        {"model": "random:tiny", "lora": [str(tmp_path)]},
    ):
        with pytest.raises(streamer.NodeError, match=r"lacks \w+(_index|_config|)\.json"):
            solo(Sdxs, context=context, **given)
    (tmp_path / "model_index.json").write_text("{}")
    with pytest.raises(streamer.ParameterError, match="must name UNet2DConditionModel as unet"):
        solo(Sdxs, context=context, model=str(tmp_path))
    assert not context.warm


def test_a_change_waits_for_the_first_model_and_is_not_lost() -> None:
    node, _ = gated(prompt="ink")
    params = SdxsParams(**{**node.params.model_dump(), "prompt": "oil"})
    with ThreadPoolExecutor(1) as pool:
        asked = pool.submit(node.prepare, params)
        assert processed(node).header.passed
        assert not asked.done()
        node.gate.set()
        prepared = asked.result(60)
        node.update(params, prepared)  # before any picture has found the model
        assert np.array_equal(processed(node).numpy(), expected("oil"))
    node.close()


def test_what_loading_finds_out_is_the_nodes_error(tmp_path: Path) -> None:
    model = shutil.copytree(Bundle.open("bundled").folder, tmp_path / "model")
    config = json.loads((model / "config.json").read_text())
    config["styles"].append("charcoal")  # of which the weights know nothing
    (model / "config.json").write_text(json.dumps(config))
    node, context = gated(model=str(model), prompt="ink")
    params = SdxsParams(**{**node.params.model_dump(), "prompt": "charcoal"})
    with ThreadPoolExecutor(1) as pool:
        asked = pool.submit(node.prepare, params)
        node.gate.set()
        with pytest.raises(streamer.NodeError, match="could not be loaded"):
            asked.result(60)
    said = r"the model .* cannot be loaded: .* holds tokens of shape .* for 7 styles"
    with pytest.raises(streamer.ParameterError, match=said):
        context.calls[0]()
    with pytest.raises(streamer.ParameterError, match=said):
        processed(node)
    node.close()


def test_closing_does_not_wait_for_a_load_that_hangs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nodes.sdxs.arriving.GRACE", 0.05)
    node, context = gated()
    params = SdxsParams(**{**node.params.model_dump(), "prompt": "oil"})
    with ThreadPoolExecutor(1) as pool:
        asked = pool.submit(node.prepare, params)
        node.close()
        with pytest.raises(streamer.NodeError, match="could not be loaded"):
            asked.result(60)
    (thread,) = context.left
    assert thread.is_alive()
    assert thread.daemon
    node.gate.set()
    thread.join(60)
    assert not thread.is_alive()
    # It has stopped at its next stage, with nothing loaded and nobody told.
    assert (context.notes, context.calls, hasattr(node, "_ahead")) == ([], [], False)


def test_a_model_that_comes_too_late_is_not_kept() -> None:
    begun, go = threading.Event(), threading.Event()

    def load(arriving: Arriving) -> Any:
        begun.set()
        assert go.wait(60)
        return "an engine"

    told: list[int] = []
    arriving = Arriving(load, name="late", told=lambda: told.append(1))
    begun.wait(60)
    threading.Timer(0.05, go.set).start()
    assert arriving.abandon() is None
    assert arriving.over
    assert (arriving.wait(), told, arriving._engine) == (False, [], None)


def test_stages_count_up_and_what_goes_on_beside_goes_on() -> None:
    said: list[tuple[str, int, int]] = []
    gone = threading.Event()

    def note(text: str, *, done: int = 0, of: int = 0) -> None:
        said.append((text, done, of))

    def beside(text: str) -> None:
        thread = threading.Thread(target=stages, args=(text,))
        thread.start()
        thread.join()

    stages = Stages(note, abandoned=gone.is_set)
    stages("loading the U-Net", done=0, of=2)
    stages("loading the decoder", done=1, of=2)
    stages.first_picture(64, 32)
    beside("capturing")
    beside("")
    beside("compiling")
    gone.set()
    beside("compiling on")  # another thread is not torn out of its work
    with pytest.raises(AbandonedLoadError):
        stages("more")
    stages.end()
    stages("later")
    assert said == [
        ("loading the U-Net", 0, 3),
        ("loading the decoder", 1, 3),
        ("painting the first picture of 64x32", 2, 3),
        ("capturing", 2, 3),
        ("compiling", 2, 3),
        ("compiling on", 2, 3),
        ("compiling on", 0, 0),
        ("later", 0, 0),
    ]


def test_damaged_tokens_are_said_in_a_sentence(tmp_path: Path) -> None:
    folder = shutil.copytree(Bundle.open("bundled").folder, tmp_path / "model")
    path = folder / "style/diffusion_pytorch_model.safetensors"
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(ValueError, match=r"style/diffusion_pytorch_model\.safetensors is damaged"):
        read_tokens(Bundle.open(folder))
