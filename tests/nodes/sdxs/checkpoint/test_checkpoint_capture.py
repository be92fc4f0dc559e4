"""The captured picture: the same as by running the networks, and every setting live in it.

Each test runs on the CPU's twin of a CUDA graph, and on a GPU with real graphs (`-m gpu`).
"""

from __future__ import annotations

import gc
import logging
import os
import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from nodes.condition.on_torch import TorchExtractor
from nodes.condition.settings import Setting
from nodes.sdxs import OneStep
from nodes.sdxs.checkpoint.capture import (
    CudaGraph,
    Direct,
    Recorder,
    Traced,
    without_collection,
)
from nodes.sdxs.checkpoint.compiled import compiled
from nodes.sdxs.checkpoint.engine import CheckpointOneStep
from nodes.sdxs.jobs import Job

Write = Callable[..., Path]

HEIGHT, WIDTH = 64, 72
KEY = (1, HEIGHT, WIDTH)
GREY = Setting("luminance", low=0.0, high=255.0, blur=0.0, weight=1.0)
PICTURES = np.random.default_rng(0).integers(0, 256, (3, HEIGHT, WIDTH, 3), np.uint8)


@dataclass
class Place:
    """Where it is tested."""

    device: str
    recorder: Recorder
    within: int
    """grey levels by which a picture may differ: a GPU's libraries choose kernels anew"""


@pytest.fixture(params=["traced", pytest.param("graph", marks=pytest.mark.gpu)])
def place(request: pytest.FixtureRequest) -> Place:
    if request.param == "traced":
        return Place("cpu", Traced, 0)
    if not torch.cuda.is_available():
        pytest.skip("needs an NVIDIA GPU")
    return Place("cuda:0", CudaGraph, 1)


def load(place: Place, folder: Path | str, **more: Any) -> CheckpointOneStep:
    engine = OneStep.load(folder, device=place.device, capture="off", **more)
    assert isinstance(engine, CheckpointOneStep)
    engine.prompt, engine.seed = "a castle at sea", 7
    return engine


def captured(engine: CheckpointOneStep, recorder: Recorder, count: int = 1) -> None:
    """Has the pass for the test's size recorded."""
    engine.painter.recorder = recorder
    settings, outs = engine.snapshot(), np.empty_like(PICTURES)
    engine.paint_jobs([Job(PICTURES[n], outs[n], settings) for n in range(count)])
    key = (count, HEIGHT, WIDTH)
    assert engine.painter.captures.wait(key), engine.painter.captures.failures


def plain(engine: CheckpointOneStep, paint: Callable[[], Any]) -> Any:
    """What comes of it without what was recorded, which is kept."""
    painter = engine.painter
    recorder, painter._recorder = painter._recorder, None
    try:
        return paint()
    finally:
        painter._recorder = recorder


def apart(one: Any, other: Any) -> int:
    return int(np.abs(one.astype(int) - other).max())


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("layout", ["1", "2", "xl"])
@pytest.mark.parametrize("nets", [0, 1, 2])
def test_it_equals_the_networks_run_as_they_stand(
    write: Write, control: Write, place: Place, layout: str, dtype: str, nets: int
) -> None:
    controls = [control(layout, seed=5 + n) for n in range(nets)]
    engine = load(place, write(layout), control=controls, dtype=dtype)
    engine.conditioning_scale = 0.7
    expected = [engine(picture) for picture in PICTURES]
    assert all(one.std() > 5 for one in expected)
    captured(engine, place.recorder)
    for picture, wanted in zip(PICTURES, expected, strict=True):
        assert apart(engine(picture), wanted) <= place.within
    assert engine.painter.captures.keys == (KEY,)


@pytest.fixture
def dtype() -> str:
    return "auto"


@pytest.fixture
def live(write: Write, control: Write, place: Place, dtype: str) -> CheckpointOneStep:
    """A captured engine in the shape of SDXL, whose prompts change the time embedding too."""
    engine = load(place, write("xl"), control=control("xl"), dtype=dtype)
    engine.painter.extract = TorchExtractor([GREY], device=place.device)
    captured(engine, place.recorder)
    return engine


def _other_lines(engine: CheckpointOneStep) -> None:
    extract = engine.painter.extract
    assert isinstance(extract, TorchExtractor)
    extract.change([replace(GREY, low=100.0, high=130.0)])


CHANGES: dict[str, Callable[[CheckpointOneStep], None]] = {
    "prompt": lambda engine: setattr(engine, "prompt", "two dogs in a wood"),
    "blend of prompts": lambda engine: setattr(engine, "prompt", "a dog:0.4 | a tower:0.6"),
    "scale": lambda engine: setattr(engine, "conditioning_scale", 1.7),
    "scale 0": lambda engine: setattr(engine, "conditioning_scale", 0.0),
    "seed": lambda engine: setattr(engine, "seed", 8),
    "seeds": lambda engine: setattr(engine, "seeds", "3:0.5 4:0.5"),
    "turn": lambda engine: setattr(engine, "turn", 0.4),
    "thresholds": _other_lines,
}


@pytest.mark.parametrize("name", list(CHANGES))
def test_a_setting_shows_in_the_next_replay(
    live: CheckpointOneStep, place: Place, name: str
) -> None:
    before = live(PICTURES[0])
    recording = live.painter.captures.get(KEY, pytest.fail)
    CHANGES[name](live)
    after = live(PICTURES[0])
    expected = plain(live, lambda: live(PICTURES[0]))
    assert apart(after, expected) <= place.within
    assert apart(after, before) > max(3, 2 * place.within)
    # By the same recording, with nothing made anew.
    assert live.painter.captures.get(KEY, pytest.fail) is recording
    assert live.painter.captures.keys == (KEY,)


def test_the_picture_itself_shows_in_the_next_replay(live: CheckpointOneStep) -> None:
    assert apart(live(PICTURES[0]), live(np.ascontiguousarray(255 - PICTURES[0]))) > 3


@pytest.mark.parametrize("share", [0.1, 0.35])
def test_feedback_needs_no_other_recording(
    live: CheckpointOneStep, place: Place, share: float
) -> None:
    def video() -> list[Any]:
        past, made = None, []
        for seed in (7, 8, 9):  # whose latents are quite others
            live.seed = seed
            out = np.empty_like(PICTURES[0])
            past = live.paint_after(PICTURES[0], out, past=past, share=share)
            made.append(out)
        made.append(live(PICTURES[0]))
        return made

    mixed, expected = video(), plain(live, video)
    for one, other in zip(mixed, expected, strict=True):
        assert apart(one, other) <= place.within
    assert apart(mixed[2], mixed[3]) > 3  # the last one has no past in it
    assert live.painter.captures.keys == (KEY,)


def test_a_past_that_is_not_finite_leaves_nothing_behind(
    live: CheckpointOneStep, place: Place
) -> None:
    expected, out = live(PICTURES[0]), np.empty_like(PICTURES[0])
    latents = live.paint_after(PICTURES[0], out, past=None, share=0.3)
    job = Job(PICTURES[0], out, live.snapshot(), past=latents * float("nan"), share=0.3)
    live.paint_jobs([job])
    assert job.finite is False
    live.paint_after(PICTURES[0], out, past=None, share=0.3)
    assert apart(out, expected) <= place.within


# In half precision a GPU's kernels for three pictures differ from those for one by more.
@pytest.mark.parametrize("dtype", ["float32"])
def test_pictures_of_one_pass_keep_their_own_settings(
    live: CheckpointOneStep, place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    snapshots = []
    for prompt, seed, scale in (("a dog", 1, 0.5), ("a tower", 2, 1.0), ("a dog", 3, 1.5)):
        live.prompt, live.seed, live.conditioning_scale = prompt, seed, scale
        snapshots.append(live.snapshot())

    def alone(n: int, picture: int) -> Any:
        out = np.empty_like(PICTURES[0])
        live.paint_jobs([Job(PICTURES[picture], out, snapshots[n])])
        return out

    captured(live, place.recorder, count=3)
    for order in ((0, 1, 2), (2, 0, 1)):  # in other places, the pass has to be told anew
        outs = np.empty_like(PICTURES)
        live.paint_jobs([Job(PICTURES[i], outs[i], snapshots[n]) for i, n in enumerate(order)])
        for i, n in enumerate(order):
            assert apart(outs[i], alone(n, i)) <= 1
    assert (3, HEIGHT, WIDTH) in live.painter.captures.keys


class Gate:
    """A recorder that waits until it is let through, and counts what it recorded and replayed."""

    def __init__(self, recorder: Any) -> None:
        self.through = threading.Event()
        self.recorder = recorder
        self.recorded = self.replayed = 0

    def __call__(self, function: Any, device: torch.device) -> Any:
        assert self.through.wait(60)
        self.recorded += 1
        made = self.recorder(function, device)
        replay = made.replay

        def counting() -> None:
            self.replayed += 1
            replay()

        made.replay = counting
        return made


def test_a_new_size_is_painted_at_once_and_captured_meanwhile(
    write: Write, control: Write, place: Place
) -> None:
    engine = load(place, write("1"), control=control("1"))
    larger = np.ascontiguousarray(np.tile(PICTURES[0], (2, 1, 1)))
    expected = [engine(PICTURES[0]), engine(larger)]
    engine.painter.recorder = gate = Gate(place.recorder)
    for picture, wanted in zip((PICTURES[0], larger), expected, strict=True):
        assert apart(engine(picture), wanted) <= place.within
    assert gate.replayed == 0
    gate.through.set()
    # The size that was asked for last is there at last; the other one when it is asked for again.
    assert engine.painter.captures.wait((1, 2 * HEIGHT, WIDTH))
    engine(PICTURES[0])
    assert engine.painter.captures.wait(KEY)
    count = gate.replayed
    for picture, wanted in zip((PICTURES[0], larger), expected, strict=True):
        assert apart(engine(picture), wanted) <= place.within
    assert gate.replayed == count + 2
    assert gate.recorded == 2


def test_only_a_few_sizes_are_kept(write: Write, place: Place) -> None:
    engine = load(place, write("1"))
    engine.painter.recorder = place.recorder
    for side in (64, 72, 80, 88, 96):
        engine.warm_up(side, 64)
        engine.warm_up(64, 64)  # which is used all the time
    assert engine.painter.captures.keys == ((1, 64, 80), (1, 64, 88), (1, 64, 96), (1, 64, 64))


def test_what_cannot_be_captured_is_said_once_and_painted(
    write: Write, place: Place, caplog: pytest.LogCaptureFixture
) -> None:
    engine = load(place, write("1"))
    expected = engine(PICTURES[0])
    # Not a picture's business to ask for a value of a tensor, and refused by a real device too.
    network: Any = engine.network
    decode = network.decode
    network.decode = lambda latents: decode(latents * float(latents.abs().max() > -1))
    engine.painter.recorder = place.recorder
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            assert apart(engine(PICTURES[0]), expected) <= place.within
            engine.painter.captures.wait(KEY)
    lines = [line for line in caplog.messages if "cannot be captured" in line]
    assert len(lines) == 1
    assert lines[0].startswith("a picture of 72x64 cannot be captured: ")
    assert lines[0].endswith("; pictures go on without")
    assert engine.painter.captures.keys == ()


def test_a_closed_engine_captures_nothing(write: Write, place: Place) -> None:
    engine = load(place, write("1"))
    captured(engine, place.recorder)
    engine.close()
    assert engine.painter.captures.keys == ()
    engine(PICTURES[0])
    assert not engine.painter.captures.wait(KEY)


# What torch's compiler imports uses what torch deprecates.
@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")
def test_compiled_networks_paint_the_same(
    write: Write, control: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("TORCHINDUCTOR_CACHE_DIR", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    notes: list[str] = []

    def note(text: str, *, done: int = 0, of: int = 0) -> None:
        if not of:  # of what goes on in the background
            notes.append(text)

    engine = OneStep.load(write("1"), control=control("1"), compile=True, capture="off", note=note)
    assert isinstance(engine, CheckpointOneStep)
    # All of it but the compiler of machine code, which takes minutes on a processor.
    engine.painter.compiler = partial(compiled, backend="eager")
    engine.prompt = "a castle"
    expected = engine(PICTURES[0])
    assert engine.painter.captures.wait(KEY), engine.painter.captures.failures
    assert os.environ["TORCHINDUCTOR_CACHE_DIR"] == str(tmp_path / "streamer" / "inductor")
    assert notes == [f"compiling pictures of {WIDTH}x{HEIGHT}", ""]
    assert apart(engine(PICTURES[0]), expected) <= 1
    engine.prompt, engine.seed, engine.conditioning_scale = "a wood", 5, 0.4
    changed = engine(PICTURES[0])
    assert apart(changed, expected) > 8
    found = engine.painter.captures.get(KEY, pytest.fail)
    assert found is not None
    assert isinstance(found.recording, Direct)
    engine.painter._compile = False
    assert apart(changed, engine(PICTURES[0])) <= 1


def looks_at_a_value(memory: torch.Tensor) -> torch.Tensor:
    return memory * memory.sum().item()


def branches(memory: torch.Tensor) -> torch.Tensor:
    return memory + 1 if bool((memory > 0).all()) else memory


def picks(memory: torch.Tensor) -> torch.Tensor:
    return memory[memory > 0]


def makes_a_tensor_of_numbers(memory: torch.Tensor) -> torch.Tensor:
    return memory * torch.tensor([1.0, 2.0], device=memory.device)


@pytest.mark.parametrize("function", [looks_at_a_value, branches, picks, makes_a_tensor_of_numbers])
def test_what_the_host_decides_is_refused(place: Place, function: Callable[..., Any]) -> None:
    memory = torch.ones(2, device=place.device)
    with pytest.raises(RuntimeError), torch.inference_mode():
        place.recorder(lambda: function(memory), torch.device(place.device))
    if place.device != "cpu":
        # The allocator does not take it for going on: what two streams have used comes back.
        used = "active_bytes.all.current"
        before = torch.cuda.memory_stats()[used]
        lent = torch.ones(1 << 20, device=place.device)
        lent.record_stream(torch.cuda.Stream())
        del lent
        torch.cuda.synchronize()
        torch.ones(1, device=place.device)
        assert torch.cuda.memory_stats()[used] < before + (1 << 20)


def test_no_garbage_is_collected_in_a_thread_that_records() -> None:
    """Its end may be a question to the driver, which would spoil the recording."""

    class Ended:
        def __init__(self) -> None:
            self.itself = self

        def __del__(self) -> None:
            ended.append(threading.get_ident())

    ended: list[int] = []
    with without_collection():
        Ended()
        kept = [[number] for number in range(100_000)]  # enough for several collections
        assert not ended
        del kept
    assert gc.isenabled()
    with pytest.raises(KeyError), without_collection():
        raise KeyError
    assert gc.isenabled()
    gc.collect()
    assert len(ended) == 1
    gc.disable()
    with without_collection():
        pass
    assert not gc.isenabled()
    gc.enable()


def test_what_python_put_in_and_what_was_exchanged_is_not_seen(place: Place) -> None:
    class Holder:
        factor = 2.0
        memory = torch.ones(2, device=place.device)

    kept = Holder.memory
    with torch.inference_mode():
        made = place.recorder(lambda: Holder.memory * Holder.factor, torch.device(place.device))
        kept.fill_(3)
        made.replay()
        assert made.outputs.tolist() == [6, 6]
        Holder.factor, Holder.memory = 5.0, torch.zeros(2, device=place.device)
        made.replay()
        assert made.outputs.tolist() == [6, 6]


def test_capture_is_checked(write: Write) -> None:
    with pytest.raises(ValueError, match="unknown capture 'on'; known are auto and off"):
        OneStep.load(write("1"), capture="on")
    with pytest.raises(ValueError, match="model bundled is not compiled"):
        OneStep.load("bundled", compile=True)
