"""Prompts to embeddings: CLIP's tokenizers and text encoders, as diffusers' pipelines use them.

A model of one encoder takes the encoder's last state after its norm (Stable Diffusion 1 and 2).
One of two encoders takes the states before the last layer of both, side by side, and beside them
the second one's pooled projection (SDXL).
"""

from __future__ import annotations

import math
import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from nodes.sdxs import blending, texts
from nodes.sdxs.checkpoint import weights
from nodes.sdxs.checkpoint.files import component_class, text_suffixes, weight_files
from nodes.sdxs.checkpoint.layouts import LAYOUTS, Config
from nodes.sdxs.checkpoint.memory import Budget
from nodes.sdxs.checkpoint.source import Source
from nodes.sdxs.names import ModelName

KEPT = 64
"""Embeddings of texts that stay in memory; the one unused for longest goes first."""

LENGTH = 77


@dataclass(frozen=True)
class Embedding:
    """What a prompt comes to.

    Attributes:
        tokens: float N × 77 × width, N is 1.
        pooled: float N × width of the second encoder, or None where there is one encoder.
    """

    tokens: Tensor
    pooled: Tensor | None

    def to(self, device: torch.device, dtype: torch.dtype) -> Embedding:
        """The same elsewhere."""
        pooled = None if self.pooled is None else self.pooled.to(device, dtype)
        return Embedding(self.tokens.to(device, dtype), pooled)


class Encoders:
    """The tokenizers and text encoders of one model, loaded.

    Args:
        pairs: Tokenizer and encoder, once or twice.
    """

    def __init__(self, pairs: Sequence[tuple[Any, Any]]) -> None:
        self.pairs = list(pairs)

    @torch.inference_mode()
    def encode(self, text: str) -> Embedding:
        """The embedding of one text; what is beyond 77 tokens is cut off."""
        states: list[Tensor] = []
        pooled: Tensor | None = None
        for tokenizer, encoder in self.pairs:
            ids = tokenizer(
                [text],
                padding="max_length",
                max_length=LENGTH,
                truncation=True,
                return_tensors="pt",
            ).input_ids.to(encoder.device)
            if len(self.pairs) == 1:
                states.append(encoder(ids)[0])
                continue
            found = encoder(ids, output_hidden_states=True)
            states.append(found.hidden_states[-2])
            if found[0].ndim == 2:
                pooled = found[0]
        return Embedding(torch.cat(states, dim=-1), pooled)

    def to(self, device: torch.device, dtype: torch.dtype) -> Encoders:
        """The same elsewhere."""
        return Encoders([(one, encoder.to(device, dtype)) for one, encoder in self.pairs])

    def size(self) -> int:
        """Bytes of all weights."""
        return sum(p.nbytes for _, encoder in self.pairs for p in encoder.parameters())


class Prompts:
    """Embeddings of prompts, computed once each and kept; for several threads.

    Args:
        load: Loads the encoders; called when a text is new and they are not in memory.
        release: Whether to let go of the encoders after each new prompt.
        first: The encoders, if they are loaded already.
    """

    def __init__(
        self, load: Callable[[], Encoders], *, release: bool, first: Encoders | None = None
    ) -> None:
        self._load = load
        self._release = release
        self._encoders = first
        # Whoever wants what is there does not wait for encoders that load for others.
        self._lock = threading.Lock()
        self._encoding = threading.Lock()
        self._kept: OrderedDict[str, Embedding] = OrderedDict()

    def embed(self, prompt: str, *, blend: str = "linear") -> Embedding:
        """The embedding of a prompt, or of a blend of several.

        Args:
            prompt: As `nodes.sdxs.texts` reads it.
            blend: How several are mixed: `linear`, or `spherical` along the arcs between them.

        Raises:
            ValueError: The prompt or the kind of blend is not understood.
        """
        blending.check(blend)
        parsed = texts.parse(prompt)
        known = [(one, weight) for text, weight in parsed if (one := self._known(text))]
        if len(known) < len(parsed):
            with self._encoding:
                known = [(self._known(text) or self._encoded(text), w) for text, w in parsed]
                if self._release:
                    self._encoders = None
        return mix(known, blend=blend)

    def release(self) -> None:
        """Lets go of the encoders; the next new text loads them again."""
        with self._encoding:
            self._encoders = None

    @property
    def loaded(self) -> bool:
        """Whether the encoders are in memory."""
        return self._encoders is not None

    def _known(self, text: str) -> Embedding | None:
        with self._lock:
            if text in self._kept:
                self._kept.move_to_end(text)
            return self._kept.get(text)

    def _encoded(self, text: str) -> Embedding:
        if self._encoders is None:
            self._encoders = self._load()
        embedding = self._encoders.encode(text)
        with self._lock:
            self._kept[text] = embedding
            while len(self._kept) > KEPT:
                self._kept.popitem(last=False)
        return embedding


def mix(parts: Sequence[tuple[Embedding, float]], *, blend: str) -> Embedding:
    """One embedding out of several, each vector mixed by itself; see `blending.factors`.

    Args:
        parts: Embeddings and weights, which are positive and add up to 1.
        blend: `linear` or `spherical`.
    """
    if len(parts) == 1:
        return parts[0][0]
    weights = [weight for _, weight in parts]
    pooled = [embedding.pooled for embedding, _ in parts if embedding.pooled is not None]
    return Embedding(
        _mixed([embedding.tokens for embedding, _ in parts], weights, blend),
        _mixed(pooled, weights, blend) if len(pooled) == len(parts) else None,
    )


def _mixed(vectors: Sequence[Tensor], weights: Sequence[float], blend: str) -> Tensor:
    stack = torch.stack([one.float() for one in vectors])
    shares = torch.from_numpy(np.array(blending.factors(stack.cpu().numpy(), weights, blend)))
    mixed = (shares.to(stack)[..., None] * stack).sum(0)
    return mixed.to(vectors[0].dtype)


def load_encoders(
    name: ModelName, source: Source | None, *, budget: Budget | None = None
) -> Encoders:
    """Loads tokenizers and encoders on the CPU, in float32 or as the files have them.

    Args:
        name: Of the model.
        source: Of its files; None where the weights are random.
        budget: Of memory; without one, nobody asks whether there is enough.

    Raises:
        MemoryError: The budget does not allow it.
        MissingFilesError: Files are not on this machine.
        ValueError: They do not fit.
    """
    if source is None:
        return Encoders(
            [
                (_byte_tokenizer(config), _random(kind, config, f"text_encoder_{number}", budget))
                for number, (kind, config) in enumerate(LAYOUTS[name.id].text_encoders)
            ]
        )
    index = source.read("model_index.json")
    return Encoders([_pair(source, index, suffix, budget) for suffix in text_suffixes(index)])


def build(kind: str, config: Config) -> Any:
    """A text encoder of transformers on the meta device, without gradients."""
    import transformers

    values = {key: value for key, value in config.items() if key not in _HOUSEKEEPING}
    with torch.device("meta"):
        module: Any = getattr(transformers, kind)(transformers.CLIPTextConfig(**values))
    return module.eval().requires_grad_(False)


# Of the file's making, not of the network.
_HOUSEKEEPING = {"architectures", "dtype", "model_type", "torch_dtype", "transformers_version"}


def _pair(source: Source, index: Config, suffix: str, budget: Budget | None) -> tuple[Any, Any]:
    from transformers import CLIPTokenizer

    folder = f"text_encoder{suffix}"
    encoder = build(component_class(index, folder) or "", source.read(f"{folder}/config.json"))
    if budget is not None:
        budget.take(encoder, "text encoder")
    path = source.need(*weight_files(folder, "model"))
    # The prefix came and went between versions of transformers; very early ones saved positions.
    prefixed = next(iter(encoder.state_dict())).startswith("text_model.")

    def rename(name: str) -> str:
        if name.endswith("embeddings.position_ids"):
            return ""
        bare = name.removeprefix("text_model.")
        return f"text_model.{bare}" if prefixed and bare != "text_projection.weight" else bare

    weights.fill(encoder, weights.read(path), what=str(path), rename=rename)
    tokenizer_folder = source.need(f"tokenizer{suffix}/vocab.json").parent
    return CLIPTokenizer.from_pretrained(tokenizer_folder, local_files_only=True), encoder


def _random(kind: str, config: Config, name: str, budget: Budget | None) -> Any:
    encoder = build(kind, config)
    if budget is not None:
        budget.take(encoder, "text encoder")
    weights.fill_random(encoder, name=name)
    return encoder


def _byte_tokenizer(config: Config) -> Any:
    """CLIP's tokenizer without its merges, so that no file is needed: a token for each letter."""
    from transformers import CLIPTokenizer

    letters = _byte_letters()
    vocabulary = {letter: number for number, letter in enumerate(letters)}
    vocabulary |= {f"{letter}</w>": number + 256 for number, letter in enumerate(letters)}
    vocabulary["<|startoftext|>"] = config["bos_token_id"]
    vocabulary["<|endoftext|>"] = config["eos_token_id"]
    return CLIPTokenizer(vocab=vocabulary, merges=[], model_max_length=LENGTH)


def _byte_letters() -> list[str]:
    """A printable letter for each byte, as in the byte-level BPE of GPT-2, which CLIP uses."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in plain]
    return [chr(byte) for byte in plain] + [chr(256 + number) for number in range(len(others))]


def short_of_memory(needed: int, available: int) -> bool:
    """Whether so many bytes are too many to keep beside a model that grows while it runs."""
    return available < math.ceil(2.5 * needed)
