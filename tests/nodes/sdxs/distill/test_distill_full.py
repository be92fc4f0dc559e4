"""The stages in full, on random teachers of a few hundred thousand weights, really trained."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import pytest
import torch
import yaml
from diffusers import AutoencoderKL, ControlNetModel, UNet2DConditionModel

from nodes.sdxs.checkpoint.text import Embedding
from nodes.sdxs.distill import curves
from nodes.sdxs.distill import score as scores
from nodes.sdxs.distill.diffusion import Diffusion
from nodes.sdxs.distill.full import backbones, chain, models, shrinking, stepping
from nodes.sdxs.distill.full.models import Models
from nodes.sdxs.distill.full.run import Run
from nodes.sdxs.distill.full.settings import Full
from nodes.sdxs.distill.loop import CURVE, FILE, read
from nodes.sdxs.distill.machines import Machines
from nodes.sdxs.distill.removal import Listening, inherit_control
from nodes.sdxs.distill.settings import CONFIGS

UNet: Any = UNet2DConditionModel
UNET: dict[str, Any] = {
    "sample_size": 8,
    "in_channels": 4,
    "out_channels": 4,
    "block_out_channels": (16, 32, 32),
    "layers_per_block": 2,
    "down_block_types": (*("CrossAttnDownBlock2D",) * 2, "DownBlock2D"),
    "up_block_types": ("UpBlock2D", *("CrossAttnUpBlock2D",) * 2),
    "cross_attention_dim": 16,
    "attention_head_dim": 2,
    "norm_num_groups": 8,
}
VAE: dict[str, Any] = {
    "block_out_channels": (16, 16, 16, 16),
    "down_block_types": ("DownEncoderBlock2D",) * 4,
    "up_block_types": ("UpDecoderBlock2D",) * 4,
    "latent_channels": 4,
    "norm_num_groups": 8,
    "sample_size": 64,
}
QUICK = {"steps": 6, "batch": 2, "rate": 1e-3, "warm_up": 1, "log_every": 1, "average": 0.5}


class Words:
    """Stands for CLIP: an embedding that depends on the text, of the right shape."""

    def encode(self, text: str) -> Embedding:
        generator = torch.Generator().manual_seed(len(text))
        return Embedding(torch.randn(1, 77, 16, generator=generator), None)


@pytest.fixture
def teacher() -> Models:
    return random_teacher()


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Models]:
    """A training whose stages have all run to their ends, and its teacher."""
    folder, teacher = tmp_path_factory.mktemp("finished"), random_teacher()
    torch.set_num_threads(1)
    run = running(folder, teacher)
    for name in chain.FUNCTIONS:
        assert chain.run_stage(run, name)
        assert run.finished(name)
        assert not chain.run_stage(run, name)
    return folder, teacher


def random_teacher() -> Models:
    torch.manual_seed(0)
    unet = UNet(**UNET)
    vae: Any = AutoencoderKL
    nets: Any = ControlNetModel
    control = nets.from_unet(unet, conditioning_embedding_out_channels=(8, 8, 16, 16))
    # A ControlNet begins at nought; this one has something to say.
    for layer in (*control.controlnet_down_blocks, control.controlnet_mid_block):
        torch.nn.init.normal_(layer.weight, std=0.05)
    frozen = [one.eval().requires_grad_(False) for one in (unet, vae(**VAE), control)]
    words: Any = Words()
    return Models(
        teacher=frozen[0],
        straight=frozen[0],
        vae=frozen[1],
        encoders=words,
        diffusion=Diffusion.scaled_linear(),
        velocity=False,
        control=frozen[2],
        pixels=64,
        device=torch.device("cpu"),
    )


def quick(**sections: dict[str, Any]) -> Full:
    fields = yaml.safe_load((CONFIGS / "sd15.yaml").read_text())
    fields["sources"]["straight_steps"] = 2
    for name in chain.FUNCTIONS:
        fields[name] = {
            **{key: value for key, value in fields[name].items() if key not in ("accumulate",)},
            **QUICK,
            **sections.get(name, {}),
        }
    return Full.model_validate(fields)


def running(folder: Path, teacher: Models, settings: Full | None = None) -> Run:
    return Run(
        folder, settings or quick(), teacher, prompts=["a cat", "a castle"], machines=Machines()
    )


def test_every_stage_trains_its_own_network_and_no_other(
    finished: tuple[Path, Models],
) -> None:
    folder, teacher = finished
    for name in ("teacher", "vae", "control"):
        fresh = getattr(random_teacher(), name).state_dict()
        now = getattr(teacher, name).state_dict()
        assert all(torch.equal(now[key], fresh[key]) for key in fresh), name
    for name in chain.FUNCTIONS:
        assert (folder / name / "curve.png").stat().st_size > 0
        # Four prompts, below each other; as the networks are at the end.
        samples = cv2.imread(str(folder / name / f"samples-{QUICK['steps']:06d}.png"))
        assert samples is not None
        assert samples.shape[0] == 2 * 64, name
        assert samples.std() > 1
    begun, ended = read(folder / "unet" / FILE)[0], read(folder / "warmup" / FILE)[0]
    key = "average.student.conv_in.weight"
    assert not torch.equal(begun[key], ended[key])
    # A LoRA of rank 1 moved, and what it is added to did not.
    polished = read(folder / "polish" / FILE)[0]
    score = read(folder / "score" / FILE)[0]
    stem = "network.student.conv_in.parametrizations.weight"
    assert torch.equal(polished[f"{stem}.original"], score[key])
    assert polished[f"{stem}.0.up"].shape == (16, 1)
    assert polished[f"{stem}.0.up"].abs().max() > 0


class _StoppedError(Exception):
    pass


@pytest.mark.parametrize("name", chain.FUNCTIONS)
def test_a_stage_goes_on_to_the_bit(
    finished: tuple[Path, Models], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """Stopped in the middle of the third step, the checkpoint is that of the second."""
    monkeypatch.setattr(shrinking, "STEPS", 2)  # of the samples, which nobody looks at here
    before, teacher = finished
    shutil.copytree(before, tmp_path, dirs_exist_ok=True)
    shutil.rmtree(tmp_path / name)
    settings = quick(**{name: {"steps": 4, "accumulate": 2, "keep_every": 2, "batch": 1}})

    def trained(folder: Path, *, stop: bool) -> dict[str, torch.Tensor]:
        run = running(folder, teacher, settings)
        draw = run.draw

        def stopping(stage: str, step: int, part: int) -> Any:
            if stop and (step, part) == (2, 1):
                raise _StoppedError
            return draw(stage, step, part)

        monkeypatch.setattr(run, "draw", stopping)
        chain.run_stage(run, name)
        return read(folder / name / FILE)[0]

    whole = trained(tmp_path, stop=False)
    lines = (tmp_path / name / CURVE).read_text().splitlines()
    shutil.rmtree(tmp_path / name)
    with pytest.raises(_StoppedError):
        trained(tmp_path, stop=True)
    assert read(tmp_path / name / FILE)[1] == 2
    # Whatever else has drawn numbers in the meantime.
    torch.rand(7)
    again = trained(tmp_path, stop=False)
    assert set(whole) == set(again)
    assert [key for key, one in whole.items() if not torch.equal(one, again[key])] == []
    resumed = (tmp_path / name / CURVE).read_text().splitlines()
    pairs = zip(lines, resumed, strict=True)
    assert [one for one, other in pairs if one != other and ",seconds," not in one] == []


def test_every_part_of_a_step_teaches_the_online_network(
    finished: tuple[Path, Models], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Gradients of two parts add up: which comes first makes no difference."""
    before, teacher = finished
    more = {"steps": 1, "warm_up": 0, "accumulate": 2, "batch": 1, "precision": "float32"}
    made = []
    for order in ((0, 1), (1, 0), (0, 0)):
        folder = tmp_path / f"{order}"
        shutil.copytree(before, folder)
        shutil.rmtree(folder / "score")
        run = running(folder, teacher, quick(score=more))
        draw = run.draw

        def dealt(stage: str, step: int, part: int, d: Any = draw, o: Any = order) -> Any:
            # The two parts have little in common.
            drawn = d(stage, step, o[part])
            return replace(drawn, noise=drawn.noise * (1 + 9 * o[part]))

        monkeypatch.setattr(run, "draw", dealt)
        chain.run_stage(run, "score")
        found = read(folder / "score" / FILE)[0]
        # AdamW's first moment: a tenth of the gradient after one step.
        made.append(
            torch.cat(
                [
                    one.flatten()
                    for key, one in found.items()
                    if key.startswith("optimiser.online.") and key.endswith(".exp_avg")
                ]
            )
        )
    size = made[0].norm()
    assert (made[0] - made[1]).norm() < 0.02 * size
    assert (made[0] - made[2]).norm() > 0.1 * size


@pytest.mark.parametrize(("name", "module"), [("decoder", shrinking), ("polish", stepping)])
def test_every_part_of_a_step_is_judged(
    finished: tuple[Path, Models],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    module: Any,
) -> None:
    before, teacher = finished
    shutil.copytree(before, tmp_path, dirs_exist_ok=True)
    shutil.rmtree(tmp_path / name)
    run = running(tmp_path, teacher, quick(**{name: {"steps": 1, "accumulate": 3, "batch": 1}}))
    judged: list[torch.Tensor] = []
    judge = module.judge

    def watched(loop: Any, critic: Any, *, real: torch.Tensor, made: torch.Tensor) -> None:
        # The network's own turn has left nothing in the critic.
        before = [one.grad for one in critic.parameters()]
        assert all(one is None for one in before) == (not judged)
        judge(loop, critic, real=real, made=made)
        assert all(one.grad is not None for one in critic.parameters())
        judged.append(real)

    monkeypatch.setattr(module, "judge", watched)
    chain.run_stage(run, name)
    assert len(judged) == 3
    assert not torch.equal(judged[0], judged[1])
    assert not torch.equal(judged[1], judged[2])


def test_distillation_and_matching_fall(tmp_path: Path, teacher: Models) -> None:
    longer = {"steps": 40, "rate": 3e-3, "log_every": 10}
    run = running(tmp_path, teacher, quick(unet=longer, warmup=longer))
    for name, value in (("unet", "output"), ("warmup", "loss")):
        chain.run_stage(run, name)
        points = [one for _, one in curves.load(tmp_path / name / CURVE)[value]]
        assert points[-1] < points[0], name


def test_the_small_decoder_learns_areas(tmp_path: Path, teacher: Models) -> None:
    run = running(tmp_path, teacher, quick(decoder={"steps": 30, "rate": 2e-3, "log_every": 5}))
    chain.run_stage(run, "decoder")
    areas = [one for _, one in curves.load(tmp_path / "decoder" / CURVE)["areas"]]
    assert areas[-1] < 0.6 * areas[0]


def test_a_teacher_of_velocity_is_understood(teacher: Models) -> None:
    """The same network read as ε and as v must agree on what it predicts itself."""
    noisy = torch.randn(2, 4, 8, 8)
    t = torch.tensor([10, 900])
    text = teacher.embed(["one", "three"])
    with torch.no_grad():
        raw = teacher.teacher(noisy, t, text.tokens, return_dict=False)[0]
        assert torch.equal(models.predicted(teacher, teacher.teacher, noisy, t, text), raw)
    assert torch.equal(models.noise_of(teacher, noisy, raw, t), raw)
    as_velocity = models.velocity_of(teacher, noisy, raw, t)
    teacher.velocity = True
    assert torch.equal(models.velocity_of(teacher, noisy, raw, t), raw)
    assert torch.allclose(models.noise_of(teacher, noisy, as_velocity, t), raw, atol=1e-4)
    # A U-Net that is right about the noise is right about the velocity, too.
    clean, noise = torch.randn(2, 4, 8, 8), torch.randn(2, 4, 8, 8)
    mixed = teacher.diffusion.noised(clean, noise, t)
    wanted = models.asked(teacher, clean, noise, t)
    assert torch.allclose(models.noise_of(teacher, mixed, wanted, t), noise, atol=1e-4)
    teacher.velocity = False
    assert torch.equal(models.asked(teacher, clean, noise, t), noise)
    assert torch.allclose(models.velocity_of(teacher, mixed, noise, t), wanted, atol=1e-4)


def test_guidance_leads_away_from_the_empty_prompt(teacher: Models) -> None:
    noisy, t = torch.randn(1, 4, 8, 8), torch.tensor([500])
    text, empty = teacher.embed(["a castle"]), teacher.embed([""])
    passes: list[Any] = []
    with torch.no_grad():
        plain = models.predicted(teacher, teacher.teacher, noisy, t, empty)
        told = models.predicted(teacher, teacher.teacher, noisy, t, text)
        hook = teacher.teacher.register_forward_hook(lambda *given: passes.append(given[0]))
        guided = models.predicted(teacher, teacher.teacher, noisy, t, text, guidance=3.0)
        hook.remove()
    assert torch.allclose(guided, plain + 3 * (told - plain), atol=1e-5)
    assert not torch.allclose(guided, told, atol=1e-3)
    # With the prompt, and without: not a third time.
    assert len(passes) == 2
    several = teacher.empty(3)
    assert torch.equal(several.tokens, teacher.embed([""] * 3).tokens)


def test_guidance_that_a_model_has_learnt_is_an_input(teacher: Models) -> None:
    """As in diffusers' pipelines of consistency models: one pass, the wave of guidance less one."""
    from diffusers import StableDiffusionPipeline

    kind: Any = StableDiffusionPipeline
    wave = kind.get_guidance_scale_embedding(None, torch.tensor([8.0 - 1]), 32)
    assert torch.allclose(models.guidance_wave(8.0, 32), wave, atol=1e-4)
    torch.manual_seed(0)
    few = UNet(**UNET, time_cond_proj_dim=32).eval()
    noisy, t, text = torch.randn(2, 4, 8, 8), torch.tensor([500, 20]), teacher.embed(["a", "bc"])
    with torch.no_grad():
        wanted = few(noisy, t, text.tokens, timestep_cond=wave.expand(2, -1), return_dict=False)[0]
        found = models.predicted(teacher, few, noisy, t, text, guidance=8.0)
        other = models.predicted(teacher, few, noisy, t, text, guidance=2.0)
    assert torch.allclose(found, wanted, atol=1e-4)
    assert not torch.allclose(other, wanted, atol=1e-4)


def test_renewed_noise_is_as_strong_and_partly_the_same() -> None:
    noise = torch.randn(4, 4, 32, 32, generator=torch.Generator().manual_seed(0))
    mixed = stepping.renewed(noise, 0.5, torch.Generator().manual_seed(1))
    assert mixed.std().item() == pytest.approx(1, abs=0.02)
    shared = torch.corrcoef(torch.stack([noise.flatten(), mixed.flatten()]))[0, 1].item()
    assert shared == pytest.approx(0.5**0.5, abs=0.02)
    assert torch.equal(stepping.renewed(noise, 0.0, torch.Generator()), noise)


def test_control_pictures_are_drawn_from_the_teachers_own(tmp_path: Path, teacher: Models) -> None:
    run = running(tmp_path, teacher)
    drawn = run.draw("control", 0, 0)
    pictures = run.control_pictures(run.sample(drawn))
    assert pictures.shape == (2, 3, 64, 64)
    assert pictures.min() >= 0
    assert pictures.max() <= 1
    assert torch.equal(pictures, run.control_pictures(run.sample(run.draw("control", 0, 0))))


def test_stages_that_lack_something_say_so(tmp_path: Path, teacher: Models) -> None:
    teacher.control = None
    run = running(tmp_path, teacher)
    with pytest.raises(ValueError, match="'control' needs an original ControlNet: set sources"):
        chain.run_stage(run, "control")
    with pytest.raises(ValueError, match="no stage 'draft' in full; the stages are decoder, unet"):
        chain.run_stage(run, "draft")
    with pytest.raises(FileNotFoundError, match=r"unet/checkpoint.safetensors is missing: run"):
        chain.run_stage(run, "warmup")
    with pytest.raises(ValueError, match=r"prompts.txt holds no prompts"):
        Run(tmp_path, quick(), teacher, prompts=[], machines=Machines())


def test_features_are_those_of_the_whole_network_and_end_with_the_last(teacher: Models) -> None:
    backbone = backbones.UnetEncoder(teacher)
    latents = torch.randn(2, 4, 8, 8, requires_grad=True)
    text = teacher.embed(["a", "b"])
    modules = backbones.first_half(teacher.teacher)
    with Listening(modules) as listening:
        t = torch.full((2,), scores.FIRST)
        teacher.teacher(latents, t, text.tokens)
    late: list[Any] = []
    hook = teacher.teacher.mid_block.register_forward_hook(lambda *given: late.append(given))
    found = backbone(latents, text)
    hook.remove()
    assert late == []
    assert len(found) == len(modules) == 2
    assert all(torch.equal(one, two) for one, two in zip(found, listening.heard, strict=True))
    found[-1].sum().backward()
    assert latents.grad is not None
    # Nothing ends there any more.
    assert teacher.teacher(latents, t, text.tokens).sample.shape == latents.shape


def test_a_small_control_net_begins_as_the_original(tmp_path: Path, teacher: Models) -> None:
    small, original = running(tmp_path, teacher).small_control(None), teacher.control
    ours, theirs = small.state_dict(), original.state_dict()
    for mine, its in (
        ("conv_in.weight", "conv_in.weight"),
        ("down_blocks.1.resnets.0.conv1.weight", "down_blocks.1.resnets.0.conv1.weight"),
        ("controlnet_cond_embedding.conv_in.weight", "controlnet_cond_embedding.conv_in.weight"),
        # First convolution; of the first stage the last layer and the downsampler; of the second.
        ("controlnet_down_blocks.0.weight", "controlnet_down_blocks.0.weight"),
        ("controlnet_down_blocks.1.weight", "controlnet_down_blocks.2.weight"),
        ("controlnet_down_blocks.2.weight", "controlnet_down_blocks.3.weight"),
        ("controlnet_down_blocks.3.weight", "controlnet_down_blocks.5.weight"),
        ("controlnet_mid_block.weight", "controlnet_mid_block.weight"),
    ):
        assert torch.equal(ours[mine], theirs[its]), mine
        assert ours[mine].abs().max() > 0
    taken = inherit_control(small, theirs, layers=2)
    assert set(taken.taken) | set(taken.new) == set(ours)
    assert len(taken.taken) > 0.9 * len(ours), taken.new
