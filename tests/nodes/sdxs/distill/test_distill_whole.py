"""A training in full as a person starts it: from a teacher on disk to a model that the node takes.

The teacher is a pipeline of diffusers with random weights, saved by diffusers itself.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import save_file

from nodes.sdxs import OneStep
from nodes.sdxs.distill.full import chain, loading, models
from nodes.sdxs.distill.full.run import Run
from nodes.sdxs.distill.full.settings import Full
from nodes.sdxs.distill.loop import FILE, read
from nodes.sdxs.distill.machines import Machines
from nodes.sdxs.distill.settings import CONFIGS, load

WIDTH = 768  # Of the prompts of Stable Diffusion 1, by which a teacher's layout is known.
UNET: dict[str, Any] = {
    "sample_size": 8,
    "block_out_channels": (16, 32, 32),
    "layers_per_block": 2,
    "down_block_types": (*("CrossAttnDownBlock2D",) * 2, "DownBlock2D"),
    "up_block_types": ("UpBlock2D", *("CrossAttnUpBlock2D",) * 2),
    "cross_attention_dim": WIDTH,
    "attention_head_dim": 2,
    "norm_num_groups": 8,
}
QUICK = {
    "steps": 2,
    "batch": 1,
    "accumulate": 2,
    "rate": 1e-3,
    "warm_up": 0,
    "log_every": 1,
    "average": 0.5,
}


def vocabulary(folder: Path) -> Any:
    """CLIP's tokenizer without merges: a token for each byte."""
    from transformers import CLIPTokenizer

    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    letters = [chr(byte) for byte in plain] + [chr(256 + number) for number in range(68)]
    words = [*letters, *(f"{letter}</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
    folder.mkdir()
    (folder / "vocab.json").write_text(json.dumps({word: n for n, word in enumerate(words)}))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    (folder / "tokenizer_config.json").write_text(
        json.dumps({"tokenizer_class": "CLIPTokenizer", "model_max_length": 77})
    )
    kind: Any = CLIPTokenizer
    return kind.from_pretrained(folder)


def scheduler(**more: Any) -> Any:
    from diffusers import DDIMScheduler

    values = {
        "beta_start": 0.00085,
        "beta_end": 0.012,
        "beta_schedule": "scaled_linear",
        "steps_offset": 1,
        "clip_sample": False,
    }
    kind: Any = DDIMScheduler
    return kind(**(values | more))


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `teacher/`, `control/`, `lora/` and `prompts.txt`."""
    import diffusers
    from transformers import CLIPTextConfig, CLIPTextModel

    folder = tmp_path_factory.mktemp("sources")
    torch.manual_seed(0)
    kinds: Any = diffusers
    unet = kinds.UNet2DConditionModel(**UNET)
    text = CLIPTextConfig(
        hidden_size=WIDTH, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2,
        vocab_size=514, bos_token_id=512, eos_token_id=513, pad_token_id=513,
    )  # fmt: skip
    vae = kinds.AutoencoderKL(
        block_out_channels=(8,) * 4,
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        norm_num_groups=4,
        sample_size=64,
    )
    kinds.StableDiffusionPipeline(
        unet=unet,
        vae=vae,
        text_encoder=CLIPTextModel(text),
        tokenizer=vocabulary(folder / "words"),
        scheduler=scheduler(),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    ).save_pretrained(folder / "teacher")
    control = kinds.ControlNetModel.from_unet(
        unet, conditioning_embedding_out_channels=(8, 16, 16, 32)
    )
    for layer in (*control.controlnet_down_blocks, control.controlnet_mid_block):
        torch.nn.init.normal_(layer.weight, std=0.05)
    control.save_pretrained(folder / "control")
    stem = "unet.down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q"
    (folder / "lora").mkdir()
    save_file(
        {
            f"{stem}.lora_A.weight": torch.randn(2, 16),
            f"{stem}.lora_B.weight": torch.randn(16, 2),
        },
        folder / "lora" / "pytorch_lora_weights.safetensors",
    )
    (folder / "prompts.txt").write_text("a cat\n\na castle on a hill\n")
    return folder


def fields(where: Path, /, **sources: Any) -> dict[str, Any]:
    found = yaml.safe_load((CONFIGS / "sd15.yaml").read_text())
    found["resolution"] = 64
    found["sources"] |= {
        "teacher": str(where / "teacher"),
        "straight": str(where / "teacher"),
        "straight_steps": 2,
        "prompts": str(where / "prompts.txt"),
        "controls": str(where / "control"),
        **sources,
    }
    for name in chain.FUNCTIONS:
        found[name] |= QUICK
    return found  # type: ignore[no-any-return]


def written(folder: Path, values: dict[str, Any]) -> Path:
    path = folder / "mine.yaml"
    path.write_text(yaml.safe_dump(values))
    return path


@pytest.fixture(scope="module")
def trained(teacher: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, str]:
    """Two processes of `accelerate launch` run every stage and export the model."""
    folder = tmp_path_factory.mktemp("full")
    config = written(folder, fields(teacher))
    done = subprocess.run(
        [
            *(sys.executable, "-m", "accelerate.commands.launch"),
            *("--cpu", "--num_processes", "2", "--num_machines", "1", "--mixed_precision", "no"),
            *(
                "--dynamo_backend",
                "no",
                "--main_process_port",
                "0",
                "--num_cpu_threads_per_process",
            ),
            *("1", "-m", "nodes.sdxs.distill", "all"),
            *("--config", str(config), "--folder", str(folder / "out")),
        ],
        env={**os.environ, "OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"},
        capture_output=True,
        text=True,
        timeout=1200,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-6000:]
    return config, folder / "out", done.stderr


def test_several_processes_make_one_model(trained: tuple[Path, Path, str]) -> None:
    _, folder, words = trained
    for name in chain.FUNCTIONS:
        assert read(folder / name / FILE)[1] == QUICK["steps"]
        # One of them speaks for all.
        assert sum(line.startswith(f"{name} 2/2") for line in words.splitlines()) == 1
    assert words.count(f"the model is in {folder / chain.MODEL}") == 1


def test_the_node_paints_what_the_student_paints(trained: tuple[Path, Path, str]) -> None:
    config, folder, _ = trained
    settings = load(config, Full)
    teacher = loading.load(settings, device=torch.device("cpu"))
    run = Run(folder, settings, teacher, prompts=["a cat"], machines=Machines())
    engine: Any = OneStep.load(folder / chain.MODEL, dtype="float32")
    engine.prompt = "a cat"
    noise = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        latents = models.one_step(teacher, run.student("polish"), noise, teacher.embed(["a cat"]))
        wanted = run.autoencoder(trained=True).decoder(latents) / 2 + 0.5
    assert torch.allclose(engine.latents(64, 64, noise=noise), latents, rtol=1e-3, atol=1e-2)
    picture = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    assert engine(picture).shape == (64, 64, 3)
    steered = OneStep.load(
        folder / chain.MODEL, control=folder / chain.MODEL / "control", dtype="float32"
    )
    steered.prompt = "a cat"
    assert steered(picture).shape == (64, 64, 3)
    # What it looks like in diffusers, with its own scheduler.
    from diffusers import StableDiffusionPipeline

    kind: Any = StableDiffusionPipeline
    pipeline = kind.from_pretrained(folder / chain.MODEL)
    pipeline.set_progress_bar_config(disable=True)
    shown = pipeline(
        "a cat", latents=noise, num_inference_steps=1, guidance_scale=0.0,
        height=64, width=64, output_type="pt",
    ).images  # fmt: skip
    assert torch.allclose(shown, wanted.clamp(0, 1), atol=2e-2)


def test_an_interrupted_training_says_how_it_goes_on(teacher: Path, tmp_path: Path) -> None:
    values = fields(teacher)
    values["decoder"] |= {"steps": 10**6, "keep_every": 2}
    config = written(tmp_path, values)
    words = ("decoder", "--config", str(config), "--folder", str(tmp_path / "out"))
    said = []
    with subprocess.Popen(
        [sys.executable, "-m", "nodes.sdxs.distill", *words],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stderr=subprocess.PIPE,
        text=True,
        # What runs in a shell's background ignores interrupts, and so would this.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    ) as process:
        assert process.stderr is not None
        for line in process.stderr:
            said.append(line)
            if line.startswith("decoder 3/"):
                process.send_signal(signal.SIGINT)
                break
        said += process.stderr.readlines()
    assert process.returncode == 130, "".join(said)
    assert "interrupted: the same command goes on from the stage's last checkpoint" in said[-1]
    assert "Traceback" not in "".join(said)
    assert read(tmp_path / "out" / "decoder" / FILE)[1] >= 2


def test_an_adapter_is_in_the_offline_network_and_not_in_the_online_one(teacher: Path) -> None:
    lora = str(teacher / "lora")
    name = "down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q.weight"

    def weights(**sources: Any) -> list[torch.Tensor]:
        settings = Full.model_validate(fields(teacher, **sources))
        found = loading.load(settings, device=torch.device("cpu"))
        online = loading.plain_teacher(settings, found)
        assert all(one.requires_grad for one in online.parameters())
        assert not any(one.requires_grad for one in found.teacher.parameters())
        nets = (found.teacher, found.straight, online)
        return [one.state_dict()[name] for one in nets]

    plain = weights()
    assert all(torch.equal(one, plain[0]) for one in plain)
    offline, few, online = weights(lora=lora)
    assert not torch.equal(offline, plain[0])
    assert torch.equal(few, offline)
    assert torch.equal(online, plain[0])
    offline, few, online = weights(straight_lora=lora)
    assert torch.equal(offline, plain[0])
    assert not torch.equal(few, plain[0])
    assert torch.equal(online, plain[0])


def refused(where: Path, folder: Path, /, **sources: Any) -> str:
    config = written(folder, fields(where, **sources))
    with pytest.raises((ValueError, FileNotFoundError)) as caught:
        chain.train(["decoder"], str(config), folder / "out", report=None)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_sources_that_are_not_there_are_named(teacher: Path, tmp_path: Path) -> None:
    absent = str(tmp_path / "absent")
    for key in ("teacher", "straight", "controls"):
        said = refused(teacher, tmp_path, **{key: absent})
        assert said.startswith(f"sources.{key} '{absent}' cannot be loaded: it must be a folder")
    for key in ("lora", "straight_lora"):
        assert refused(teacher, tmp_path, **{key: absent}).startswith(f"sources.{key}: ")
    assert "is missing: sources.prompts is a text" in refused(teacher, tmp_path, prompts=absent)
    (tmp_path / "latin.txt").write_bytes(b"caf\xe9\n")
    said = refused(teacher, tmp_path, prompts=str(tmp_path / "latin.txt"))
    assert "latin.txt is not a text file in UTF-8" in said
    (tmp_path / "none.txt").write_text("\n\n")
    said = refused(teacher, tmp_path, prompts=str(tmp_path / "none.txt"))
    assert "none.txt holds no prompts" in said


@pytest.mark.parametrize(
    ("key", "value", "complaint"),
    [
        ("beta_schedule", "linear", "says beta_schedule: linear, and it must be scaled_linear"),
        ("rescale_betas_zero_snr", True, "says rescale_betas_zero_snr: True, and it must be False"),
        ("prediction_type", "sample", "predicts sample, and it must be epsilon or v_prediction"),
    ],
)
def test_a_teacher_of_another_process_is_refused(
    teacher: Path, tmp_path: Path, key: str, value: Any, complaint: str
) -> None:
    other = tmp_path / "other"
    other.mkdir()
    for part in (teacher / "teacher").iterdir():
        if part.name != "scheduler":
            (other / part.name).symlink_to(part)
    scheduler(**{key: value}).save_pretrained(other / "scheduler")
    assert complaint in refused(teacher, tmp_path, teacher=str(other), straight=str(other))
    if key == "prediction_type":
        scheduler(prediction_type="v_prediction").save_pretrained(other / "scheduler")
        said = refused(teacher, tmp_path, straight=str(other))
        assert "predicts epsilon and sources.straight" in said
        assert said.endswith("predicts v_prediction: both must predict the same")


def test_what_cannot_work_is_said_before_anything_is_loaded(teacher: Path, tmp_path: Path) -> None:
    config = written(tmp_path, fields(teacher, teacher=str(tmp_path / "absent"), controls=None))
    for names, complaint in (
        (["draft"], "no stage 'draft' in full; the stages are decoder, unet"),
        (["one-step-control"], "'one_step_control' needs an original ControlNet"),
    ):
        with pytest.raises(ValueError, match=complaint):
            chain.train(names, str(config), tmp_path / "out", report=None)
    values = fields(teacher, teacher=str(tmp_path / "absent"))
    values["warmup"]["backbone"] = str(tmp_path / "vision")
    with pytest.raises(ValueError, match=r"backbone '.*vision' cannot be loaded: it must"):
        chain.train(None, str(written(tmp_path, values)), tmp_path / "out", report=None)
    values = fields(teacher, teacher=str(teacher / "teacher")) | {"layout": "sd21"}
    with pytest.raises(ValueError, match="is not of layout sd21: its cross_attention_dim is 768"):
        chain.train(["decoder"], str(written(tmp_path, values)), tmp_path / "out", report=None)


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"resolution": 500}, "resolution: must be a multiple of 64, not 500"),
        ({"layout": "vega"}, "layout vega has no stage unet, for no block is removed"),
        ({"unet": None}, "layout sd15 needs a section unet"),
        ({"score": {"steps": 1, "alpha": [1.0, 0.0]}}, "score.alpha[1]: must be more than 0, not"),
        (
            {"score": {"steps": 1, "matching": [1.0, -1]}},
            "score.matching[1]: must be at least 0, not",
        ),
        ({"score": {"steps": 0}}, "score.steps: must be at least 1, not 0"),
    ],
)
def test_settings_that_would_fail_late_are_refused_at_once(
    teacher: Path, tmp_path: Path, change: dict[str, Any], complaint: str
) -> None:
    with pytest.raises(ValueError, match=r"mine\.yaml") as caught:
        load(written(tmp_path, fields(teacher) | change), Full)
    assert complaint in str(caught.value)
