"""Model files: configurations, headers of weights, names of adapters, prompts."""

from __future__ import annotations

import atexit
import json
import shutil
import tempfile
from pathlib import Path

from fuzz_target import Run, Target, check_message, text_of

CONFIG = {
    "format": 1, "native_size": [256, 256], "styles": ["ink", "oil"], "multiple": 16,
    "noise_channels": 4, "shrink": 8,
}  # fmt: skip


def _folder() -> Path:
    """A folder in memory, where there is one: inputs are files by the million."""
    shared = Path("/dev/shm")
    folder = tempfile.mkdtemp(prefix="streamer-fuzz-", dir=shared if shared.is_dir() else None)
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return Path(folder)


def _bundle() -> Run:
    from nodes.sdxs.bundle import MADE_FROM, Bundle

    folder = _folder()
    (folder / "openvino").mkdir()

    def run(data: bytes) -> None:
        (folder / "config.json").write_bytes(data)
        (folder / MADE_FROM).write_bytes(data)
        try:
            bundle = Bundle.open(folder)
        except ValueError as error:
            check_message(error)
            return
        assert all(isinstance(style, str) for style in bundle.styles)
        assert bundle.graph_problem() is not None

    return run


def _configuration() -> Run:
    from nodes.sdxs.checkpoint.files import required
    from nodes.sdxs.checkpoint.source import Source
    from nodes.sdxs.names import ModelName

    folder = _folder()
    source = Source(ModelName("folder", str(folder)))

    def run(data: bytes) -> None:
        (folder / "model_index.json").write_bytes(data)
        try:
            index = source.read("model_index.json")
        except ValueError as error:
            check_message(error)
            return
        assert all(len(files) for files in required(index, vae_folder="vae"))

    return run


def _weights_seeds() -> list[bytes]:
    import torch
    from safetensors.torch import save

    tensors = {"unet.a.lora_A.weight": torch.zeros(2, 3), "unet.a.lora_B.weight": torch.ones(4, 2)}
    header = json.dumps({"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}).encode()
    return [
        save(tensors),
        save(tensors, metadata={"lora_adapter_metadata": '{"unet.lora_alpha": 4}'}),
        len(header).to_bytes(8, "little") + header + bytes(8),
        len(header).to_bytes(8, "little") + header,
        (1 << 60).to_bytes(8, "little") + header,
    ]


def _weights() -> Run:
    from nodes.sdxs.checkpoint import lora, weights
    from nodes.sdxs.names import Lora

    path = _folder() / "w.safetensors"

    def run(data: bytes) -> None:
        path.write_bytes(data)
        try:
            lora.read(Lora(str(path), 0.5))
        except ValueError as error:
            check_message(error)
        try:
            tensors = weights.read(path)
        except ValueError as error:
            check_message(error)
            return
        # What was read lies in the file: nothing is longer than it.
        assert sum(t.numel() * t.element_size() for t in tensors.values()) <= len(data)

    return run


def _adapter_config() -> Run:
    import torch
    from safetensors.torch import save_file

    from nodes.sdxs.checkpoint import lora
    from nodes.sdxs.names import Lora

    folder = _folder()
    tensors = {
        "base_model.model.a.to_q.lora_A.weight": torch.zeros(2, 3),
        "base_model.model.a.to_q.lora_B.weight": torch.ones(4, 2),
    }
    save_file(tensors, folder / "adapter_model.safetensors")

    def run(data: bytes) -> None:
        (folder / "adapter_config.json").write_bytes(data)
        try:
            adapter = lora.read(Lora(str(folder), 1.0))
        except ValueError as error:
            check_message(error)
            return
        for pair in adapter.unet.values():
            assert pair.delta().shape == (4, 3)

    return run


def _pickle_seeds() -> list[bytes]:
    import io
    import pickle

    import torch

    kept = io.BytesIO()
    torch.save({"unet.a.lora_A.weight": torch.zeros(1)}, kept)
    old = io.BytesIO()
    torch.save({"a": torch.zeros(1)}, old, _use_new_zipfile_serialization=False)
    return [
        kept.getvalue(),
        old.getvalue(),
        pickle.dumps({"a": 1}),
        b"cos\nsystem\n(S'true'\ntR.",
        b"\x80\x04c__builtin__\neval\n(V1\ntR.",
    ]


def _pickle() -> Run:
    from nodes.sdxs.checkpoint import weights

    path = _folder() / "w.bin"

    def run(data: bytes) -> None:
        path.write_bytes(data)
        try:
            tensors = weights.read(path)
        except ValueError as error:
            check_message(error)
            return
        assert all(isinstance(name, str) for name in tensors)

    return run


def _adapter() -> Run:
    import torch

    from nodes.sdxs.checkpoint import lora

    down, up, alpha = torch.zeros(2, 3), torch.zeros(4, 2), torch.tensor(2.0)

    def run(data: bytes) -> None:
        tensors = {}
        for name in text_of(data).split("\n"):
            is_up = "_B" in name or "up" in name
            tensors[name] = alpha if name.endswith("alpha") else up if is_up else down
        try:
            pairs = lora._pairs(Path("w"), tensors, prefix="base_model.model.")
        except ValueError as error:
            check_message(error)
            return
        for pair in pairs.values():
            assert pair.delta().shape == (4, 3)

    return run


def _adapter_seeds() -> list[bytes]:
    return [
        b"base_model.model.a.to_q.lora_A.weight\nbase_model.model.a.to_q.lora_B.weight",
        b"a.lora.down.weight\na.lora.up.weight\na.alpha",
        b"a.attn1.processor.to_out_lora.down.weight\na.attn1.processor.to_out_lora.up.weight",
    ]


def _names() -> Run:
    from nodes.sdxs.names import ModelName

    def run(data: bytes) -> None:
        text = text_of(data)
        if not text or "\0" in text:
            return
        for read in (ModelName.parse, lambda name: ModelName.parse_part(name, "lora")):
            try:
                name = read(text)
            except (FileNotFoundError, ValueError) as error:
                check_message(error)
                continue
            assert str(name)

    return run


def _prompts() -> Run:
    from nodes.sdxs import seeds, texts, vocabulary

    def run(data: bytes) -> None:
        text = text_of(data)
        readers = (
            texts.parse,
            seeds.parse,
            lambda given: tuple(vocabulary.parse(given, known=("ink", "oil"), model="m").items()),
        )
        for read in readers:
            try:
                parts = read(text)
            except ValueError as error:
                check_message(error)
                continue
            assert abs(sum(weight for _, weight in parts) - 1) < 1e-6
            assert all(weight > 0 for _, weight in parts)

    return run


_JSON_WORDS = (b'"', b"{", b"}", b"[", b"]", b":", b",", b"null", b"1e999", b"NaN", b"\\ud800")

TARGETS = (
    Target(
        "bundle",
        "config.json of a bundled model",
        _bundle,
        lambda: [json.dumps(CONFIG).encode()],
        512,
        (*_JSON_WORDS, *(f'"{key}"'.encode() for key in CONFIG)),
    ),
    Target(
        "configuration",
        "model_index.json of a checkpoint",
        _configuration,
        lambda: [b'{"text_encoder_2": ["transformers", "CLIPTextModel"], "unet": [null, null]}'],
        512,
        (*_JSON_WORDS, b'"text_encoder_2"', b'"unet"'),
    ),
    Target("safetensors", "weights in safetensors", _weights, _weights_seeds, 2048),
    Target("pickle", "weights in pickles", _pickle, _pickle_seeds, 2048),
    Target(
        "adapter",
        "names of tensors of adapters",
        _adapter,
        _adapter_seeds,
        512,
        (b".lora_A", b".lora_B", b".weight", b".alpha", b".processor.to_q_lora", b"\n", b"."),
    ),
    Target(
        "adapter-config",
        "adapter_config.json",
        _adapter_config,
        lambda: [
            b'{"peft_type": "LORA", "r": 2, "lora_alpha": 4, "use_rslora": true, "bias": "none"}',
            b'{"r": 8, "rank_pattern": {"^a.to_q$": 2}, "alpha_pattern": {"to_*": 1.5}}',
        ],
        512,
        (*_JSON_WORDS, b'"r"', b'"lora_alpha"', b'"rank_pattern"', b'"alpha_pattern"'),
    ),
    Target(
        "model",
        "names of models and adapters",
        _names,
        lambda: [b"bundled", b"random:tiny", b"IDKiro/sdxs-512-0.9@main", b"./m", b"x" * 300],
        512,
        (b"random:", b"/", b"@", b"~", b"."),
    ),
    Target(
        "prompt",
        "prompts and their weights",
        _prompts,
        lambda: [
            b"ink",
            b"ink:0.7 oil:0.3",
            b"a castle:0.7 | a forest:0.3",
            b"7:0.7 42:0.3",
            b"ink:1e308",
        ],
        256,
        (b"ink", b"oil", b":", b"|", b"1e-320", b"inf", b"nan", b"-", b"_"),
    ),
)
