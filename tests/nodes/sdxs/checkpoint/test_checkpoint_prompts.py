from __future__ import annotations

import math
import threading
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from nodes.sdxs import OneStep, texts
from nodes.sdxs.checkpoint.engine import CheckpointOneStep
from nodes.sdxs.checkpoint.text import (
    KEPT,
    Embedding,
    Encoders,
    Prompts,
    mix,
    short_of_memory,
)

Write = Callable[..., Path]


@pytest.mark.parametrize(
    ("prompt", "parsed"),
    [
        ("a castle", {"a castle": 1.0}),
        ("", {"": 1.0}),
        ("a clock at 12:30", {"a clock at 12:30": 1.0}),
        ("style: ink:0.5", {"style: ink:0.5": 1.0}),
        ("a castle | a forest", {"a castle": 0.5, "a forest": 0.5}),
        ("a castle:3 | a forest:1", {"a castle": 0.75, "a forest": 0.25}),
        ("at 12:30 | noon :1", {"at 12:30": 0.5, "noon": 0.5}),
        ("at 12 :3 | noon", {"at 12": 0.75, "noon": 0.25}),
        ("style: ink | oil:1", {"style: ink": 0.5, "oil": 0.5}),
        ("one | one | two:2", {"one": 0.5, "two": 0.5}),
        ("one:0 | two", {"two": 1.0}),
    ],
)
def test_prompts_are_read(prompt: str, parsed: dict[str, float]) -> None:
    assert dict(texts.parse(prompt)) == pytest.approx(parsed)


@pytest.mark.parametrize(
    ("prompt", "message"),
    [
        ("one |", "a part of the blend 'one |' is empty"),
        ("one | :2", "a part of the blend 'one | :2' is empty"),
        ("one:-1 | two", "the weight in 'one:-1' must be a number from 0"),
        ("one:inf | two", "the weight in 'one:inf' must be a number from 0"),
        ("one:0 | two:0", "add up to 0"),
        ("a" * 4001, "has 4001 characters; at most 4000"),
    ],
)
def test_prompts_that_make_no_sense_are_refused(prompt: str, message: str) -> None:
    with pytest.raises(ValueError, match=message.replace("|", r"\|")):
        texts.parse(prompt)
    with pytest.raises(ValueError, match=message.replace("|", r"\|")):
        OneStep.check_prompt(prompt, "random:tiny")


@given(st.text(max_size=200))
def test_weights_of_any_prompt_add_up_to_one(prompt: str) -> None:
    try:
        parsed = texts.parse(prompt)
    except ValueError:
        return
    assert math.isclose(sum(weight for _, weight in parsed), 1.0)
    assert all(weight > 0 for _, weight in parsed)


def embedding(*values: float) -> Embedding:
    row = torch.tensor(values, dtype=torch.float32)
    return Embedding(row[None, None], row[None])


def test_linear_blends_are_weighted_means() -> None:
    parts = [(embedding(1, 0), 0.2), (embedding(0, 1), 0.3), (embedding(4, 4), 0.5)]
    mixed = mix(parts, blend="linear")
    assert torch.allclose(mixed.tokens, torch.tensor([[[2.2, 2.3]]]))
    assert mixed.pooled is not None
    assert torch.allclose(mixed.pooled, torch.tensor([[2.2, 2.3]]))


def test_spherical_blends_go_along_the_arc_and_lengths_linearly() -> None:
    one, other = embedding(2, 0), embedding(0, 4)
    half = mix([(one, 0.5), (other, 0.5)], blend="spherical")
    expected = torch.tensor([[1.0, 1.0]]) * 3 / math.sqrt(2)
    assert torch.allclose(half.tokens[0], expected, atol=1e-6)
    assert half.pooled is not None
    assert torch.allclose(half.pooled, expected, atol=1e-6)
    assert mix([(one, 1.0)], blend="spherical") is one
    with pytest.raises(ValueError, match="unknown blend 'cubic'"):
        mix([(one, 0.5), (other, 0.5)], blend="cubic")


@pytest.mark.parametrize("blend", ["linear", "spherical"])
def test_the_order_of_a_blend_does_not_matter(blend: str) -> None:
    engine = OneStep.load("random:tiny")
    assert isinstance(engine, CheckpointOneStep)
    engine.blend = blend
    engine.prompt = "a castle:0.5 | a forest:0.2 | a lake:0.3"
    forward = engine.embedding.tokens
    engine.prompt = "a lake:0.3 | a castle:0.5 | a forest:0.2"
    assert torch.allclose(engine.embedding.tokens, forward, atol=1e-5)


class Counted:
    """Real encoders of the tiny model, that count how often they are loaded and asked."""

    def __init__(self, encoders: Encoders) -> None:
        self.encoders, self.loads, self.asked = encoders, 0, 0
        plain = encoders.encode

        def encode(text: str) -> Embedding:
            self.asked += 1
            return plain(text)

        encoders.encode = encode  # type: ignore[method-assign]

    def load(self) -> Encoders:
        self.loads += 1
        return self.encoders


@pytest.fixture
def counted() -> Counted:
    from nodes.sdxs.checkpoint.text import load_encoders
    from nodes.sdxs.names import ModelName

    return Counted(load_encoders(ModelName.parse("random:tiny"), None))


def test_a_text_is_encoded_once(counted: Counted) -> None:
    prompts = Prompts(counted.load, release=False)
    first = prompts.embed("a castle")
    assert torch.equal(prompts.embed("a castle").tokens, first.tokens)
    blend = prompts.embed("a castle:1 | a forest:3")
    prompts.embed("a castle:2 | a forest:1", blend="spherical")
    assert (counted.loads, counted.asked) == (1, 2)
    forest = prompts.embed("a forest")
    assert torch.allclose(blend.tokens, torch.lerp(first.tokens, forest.tokens, 0.75), atol=1e-6)
    with pytest.raises(ValueError, match="unknown blend 'cubic'"):
        prompts.embed("a castle", blend="cubic")


def test_embeddings_that_are_kept_are_bounded(counted: Counted) -> None:
    prompts = Prompts(counted.load, release=False)
    for number in range(KEPT + 1):
        prompts.embed(str(number))
    prompts.embed(str(KEPT))
    assert counted.asked == KEPT + 1
    prompts.embed("0")
    assert counted.asked == KEPT + 2


def test_what_is_known_does_not_wait_for_encoders_that_load(counted: Counted) -> None:
    loading, may_load = threading.Event(), threading.Event()

    def load() -> Encoders:
        if counted.loads:
            loading.set()
            assert may_load.wait(60)
        return counted.load()

    prompts = Prompts(load, release=True)
    prompts.embed("a castle")
    other = threading.Thread(target=prompts.embed, args=("a forest",))
    other.start()
    assert loading.wait(60)
    known = prompts.embed("a castle:2 | a castle")
    assert not may_load.is_set()
    may_load.set()
    other.join()
    assert known.tokens.shape[1] == prompts.embed("a forest").tokens.shape[1]
    assert counted.loads == 2


def test_encoders_are_released_and_loaded_again_for_a_new_text(counted: Counted) -> None:
    prompts = Prompts(counted.load, release=True)
    prompts.embed("a castle | a forest")
    assert not prompts.loaded
    assert counted.loads == 1
    prompts.embed("a forest")
    assert counted.loads == 1
    prompts.embed("a lake")
    assert (counted.loads, prompts.loaded) == (2, False)


@pytest.mark.parametrize("text_encoder", ["keep", "release", "auto"])
def test_releasing_changes_no_picture(text_encoder: str) -> None:
    engine = OneStep.load("random:tiny", text_encoder=text_encoder)
    assert isinstance(engine, CheckpointOneStep)
    kept = OneStep.load("random:tiny", text_encoder="keep")
    assert isinstance(kept, CheckpointOneStep)
    for one in (engine, kept):
        one.prompt = "a castle"
        one.release_text_encoder()
        one.prompt = "a forest | a castle"
    assert torch.equal(engine.latents(64, 64), kept.latents(64, 64))


def test_what_a_prompt_comes_to_is_there_before_another_stream_reads_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A node takes its first prompt on torch's own stream, and paints on that of its frames."""
    engine = OneStep.load("random:tiny")
    assert isinstance(engine, CheckpointOneStep)
    waits: list[str] = []
    stream = SimpleNamespace(synchronize=lambda: waits.append("waited"))
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: stream)
    engine.network.device = torch.device("cuda:0")
    engine.prompt = "a castle"
    assert waits == ["waited"]


def test_memory_is_short_where_the_encoder_would_take_much_of_it() -> None:
    assert short_of_memory(1_000, 2_000)
    assert not short_of_memory(1_000, 3_000)


def test_settings_take_effect_with_the_next_picture() -> None:
    engine = OneStep.load("random:tiny", control="random")
    assert isinstance(engine, CheckpointOneStep)
    engine.prompt = "a castle | a forest"
    guide = torch.randint(0, 256, (1, 64, 64, 3), dtype=torch.uint8)

    def painted() -> torch.Tensor:
        return engine.latents(64, 64, control=guide)

    seen = [painted()]
    engine.blend = "spherical"
    seen.append(painted())
    engine.prompt = "a lake"
    seen.append(painted())
    engine.seed = 5
    seen.append(painted())
    engine.conditioning_scale = 0.3
    seen.append(painted())
    for index, one in enumerate(seen):
        for other in seen[:index]:
            assert not torch.allclose(one, other, atol=1e-3)
    engine.prompt, engine.seed, engine.conditioning_scale = "a castle | a forest", 0, 1.0
    engine.blend = "linear"
    assert torch.equal(painted(), seen[0])
    with pytest.raises(ValueError, match="is empty"):
        engine.prompt = "one |"
    assert engine.prompt == "a castle | a forest"
    with pytest.raises(ValueError, match="unknown blend"):
        engine.blend = "cubic"
    assert engine.blend == "linear"
    assert torch.equal(painted(), seen[0])


def test_a_scale_for_each_picture() -> None:
    engine = OneStep.load("random:tiny", control="random")
    assert isinstance(engine, CheckpointOneStep)
    guides = torch.randint(0, 256, (3, 64, 64, 3), dtype=torch.uint8)
    scales = torch.tensor([0.0, 0.5, 2.0]).reshape(-1, 1, 1, 1)
    together = engine.latents(64, 64, control=guides, scale=scales)
    for index in range(3):
        alone = engine.latents(
            64, 64, control=guides[index : index + 1], scale=float(scales[index])
        )
        assert float((together[index] - alone[0]).abs().max()) < 1e-4
