"""Depth by small models of transformers with random weights, which the tests write themselves."""

from __future__ import annotations

import json
import warnings

import numpy as np
import pytest
import torch

from nodes.condition.depth import Depth
from nodes.condition.on_opencv import OpenCvExtractor
from nodes.condition.on_torch import TorchExtractor
from nodes.condition.settings import setting

COMMON = {"image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225]}


def _dpt():
    from transformers import DPTConfig, DPTForDepthEstimation

    config = DPTConfig(
        hidden_size=16,
        num_hidden_layers=4,
        num_attention_heads=2,
        intermediate_size=32,
        image_size=64,
        patch_size=16,
        backbone_out_indices=[0, 1, 2, 3],
        neck_hidden_sizes=[8, 8, 16, 16],
        fusion_hidden_size=16,
    )
    return DPTForDepthEstimation(config)


def _depth_anything(**options):
    from transformers import DepthAnythingConfig, DepthAnythingForDepthEstimation, Dinov2Config

    backbone = Dinov2Config(
        hidden_size=16,
        num_hidden_layers=4,
        num_attention_heads=2,
        intermediate_size=32,
        image_size=56,
        patch_size=14,
        out_features=["stage1", "stage2", "stage3", "stage4"],
        reshape_hidden_states=False,
    )
    config = DepthAnythingConfig(
        backbone_config=backbone,
        reassemble_hidden_size=16,
        neck_hidden_sizes=[8, 8, 16, 16],
        fusion_hidden_size=16,
        head_hidden_size=8,
        **options,
    )
    return DepthAnythingForDepthEstimation(config)


def _glpn():
    from transformers import GLPNConfig, GLPNForDepthEstimation

    config = GLPNConfig(
        depths=[1, 1, 1, 1],
        hidden_sizes=[8, 8, 16, 16],
        num_attention_heads=[1, 1, 2, 2],
        decoder_hidden_size=16,
        max_depth=10,
    )
    return GLPNForDepthEstimation(config)


def write(folder, make, **images):
    torch.manual_seed(0)
    model = make()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            # Weights as they come from the start give next to nothing; the last bias keeps the
            # final rectifier open.
            parameter.mul_(6.0 if "layer.weight" not in name else 1.0)
        list(model.head.parameters())[-1].fill_(0.5)
    model.save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text(json.dumps(COMMON | images))
    return folder


@pytest.fixture(scope="session")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("depth")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of transformers while it writes; reading is under test
        return {
            "dpt": write(root / "dpt", _dpt, size={"height": 64, "width": 64}),
            "depth_anything": write(
                root / "any",
                _depth_anything,
                size={"height": 56, "width": 56},
                ensure_multiple_of=14,
                keep_aspect_ratio=True,
            ),
            "metric": write(
                root / "metric",
                lambda: _depth_anything(depth_estimation_type="metric", max_depth=10),
                size={"height": 56, "width": 56},
                ensure_multiple_of=14,
                keep_aspect_ratio=True,
            ),
        }


@pytest.fixture
def pixels(photographs):
    return torch.from_numpy(photographs["coffee"]).permute(2, 0, 1)[None]


@pytest.mark.parametrize("kind", ["dpt", "depth_anything"])
def test_depth_is_that_of_transformers(folders, photographs, pixels, kind):
    from transformers import AutoModelForDepthEstimation, DPTImageProcessorPil

    picture = photographs["coffee"]
    made = Depth.load(folders[kind])(pixels)[0, 0].numpy()
    processor = DPTImageProcessorPil.from_pretrained(folders[kind])
    model = AutoModelForDepthEstimation.from_pretrained(folders[kind])
    inputs = processor(images=picture, return_tensors="pt")
    with torch.no_grad():
        outputs = model(**inputs)
    found = processor.post_process_depth_estimation(outputs, target_sizes=[picture.shape[:2]])
    whole = found[0]["predicted_depth"].numpy()
    expected = 255 * (whole - whole.min()) / (whole.max() - whole.min())
    assert expected.std() > 20, "a flat picture would tell nothing"
    # Pillow scales pictures in eight bits, torch does not round on the way.
    assert np.abs(made - expected).mean() < 2
    assert np.corrcoef(made.ravel(), expected.ravel())[0, 1] > 0.995


def test_depth_of_glpn_is_that_of_transformers(photographs, pixels, tmp_path):
    from transformers import AutoModelForDepthEstimation, GLPNImageProcessor

    picture = photographs["coffee"]
    torch.manual_seed(0)
    model = _glpn()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.mul_(3.0 if "norm" not in name else 1.0)
    model.save_pretrained(tmp_path)
    GLPNImageProcessor().save_pretrained(tmp_path)
    made = Depth.load(tmp_path)(pixels)[0, 0].numpy()
    inputs = GLPNImageProcessor.from_pretrained(tmp_path)(images=picture, return_tensors="pt")
    with torch.no_grad():
        found = AutoModelForDepthEstimation.from_pretrained(tmp_path)(**inputs).predicted_depth
    size = picture.shape[:2]
    whole = torch.nn.functional.interpolate(found[:, None], size=size, mode="bicubic")[0, 0].numpy()
    # Metres: what is near is small.
    expected = 255 * (whole.max() - whole) / (whole.max() - whole.min())
    assert expected.std() > 20, "a flat picture would tell nothing"
    # Transformers scales the picture linearly, and in eight bits.
    assert np.corrcoef(made.ravel(), expected.ravel())[0, 1] > 0.98


def test_near_is_white_whichever_way_a_model_counts(folders, pixels):
    inverse, metric = (Depth.load(folders[kind]) for kind in ("depth_anything", "metric"))
    assert inverse(pixels).amax() == 255
    whole = metric._predicted(pixels.float() / 255)
    nearest = whole.flatten().argmin()
    assert metric(pixels).flatten()[nearest] == 255


def test_the_range_follows_slowly(folders, photographs, pixels):
    flat = torch.full_like(pixels, 128)
    depth = Depth.load(folders["dpt"])
    first = depth(pixels)
    torch.testing.assert_close(depth(pixels), first)
    span = first.max() - first.min()
    other = depth(flat)
    # Alone, the flat picture would fill the whole range; behind the other it does not.
    alone = Depth.load(folders["dpt"])(flat)
    assert other.max() - other.min() < 0.9 * span
    assert alone.max() - alone.min() > 250


def test_both_extractors_draw_depth_with_black_and_white_points(folders, photographs, pixels):
    ends = [setting("depth", low=60, high=200)]
    ours = TorchExtractor(ends, depth=Depth.load(folders["dpt"]))(pixels)[0, 0].numpy()
    theirs = OpenCvExtractor(ends, depth=Depth.load(folders["dpt"])).picture(photographs["coffee"])
    assert set(np.unique(ours)) >= {0, 255}
    assert np.abs(ours.astype(int) - theirs).max() <= 1


def change(folder, name, **values):
    path = folder / name
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def copy(folder, target):
    target.mkdir()
    for file in folder.iterdir():
        (target / file.name).write_bytes(file.read_bytes())
    return target


def test_weights_that_do_not_fit_are_an_error(folders, tmp_path):
    from safetensors.torch import load_file, save_file

    for number, (alter, message) in enumerate(
        [
            (lambda t: t.pop("head.head.0.weight"), "1 tensors are missing .head.head.0.weight"),
            (lambda t: t.update(extra=torch.zeros(3)), "1 tensors are not of this model .extra"),
            (
                lambda t: t.update({"head.head.0.bias": torch.zeros(5)}),
                "1 tensors have the wrong shape .head.head.0.bias",
            ),
        ]
    ):
        folder = copy(folders["dpt"], tmp_path / str(number))
        tensors = load_file(folder / "model.safetensors")
        alter(tensors)
        save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
        with pytest.raises(ValueError, match=message):
            Depth.load(folder)


def test_folders_that_hold_no_depth_model_are_refused(folders, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"there is no folder .*nowhere"):
        Depth.load(tmp_path / "nowhere")
    with pytest.raises(FileNotFoundError, match=r"lacks config.json, .*, model.safetensors"):
        Depth.load(tmp_path)
    other = copy(folders["dpt"], tmp_path / "other")
    change(other, "config.json", model_type="clip")
    with pytest.raises(ValueError, match="a model of type 'clip'; known depth models are dpt"):
        Depth.load(other)
    broken = copy(folders["dpt"], tmp_path / "broken")
    (broken / "model.safetensors").write_bytes(b"\x00" * 100)
    with pytest.raises(ValueError, match="cannot be read"):
        Depth.load(broken)
    torn = copy(folders["dpt"], tmp_path / "torn")
    (torn / "config.json").write_text("{")
    with pytest.raises(ValueError, match=r"config\.json is no JSON"):
        Depth.load(torn)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"size": {"height": 64}}, "size is height and width of 16 to 4096 pixels"),
        ({"size": 100000}, "size is height and width"),
        ({"image_mean": [0.5]}, "image_mean is three numbers"),
        ({"image_std": "none"}, "image_std is three numbers"),
        ({"size": {"height": 64, "width": 96}}, "cannot take pictures of the sizes"),
    ],
)
def test_preprocessing_that_makes_no_sense_is_refused(folders, tmp_path, values, message):
    folder = copy(folders["dpt"], tmp_path / "model")
    change(folder, "preprocessor_config.json", **values)
    with pytest.raises(ValueError, match=message):
        Depth.load(folder)
