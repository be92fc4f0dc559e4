"""What each half of the recipe is good for: one step without the one, without the other, with both.

All three students begin with a U-Net that has learnt nothing, take as many steps, and see no pairs,
which a training in full has none of either: what they know in the end, the teacher has told them.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from nodes.sdxs.distill.export import export
from nodes.sdxs.distill.small import chain, stepping
from nodes.sdxs.distill.small.run import Run
from nodes.sdxs.distill.small.settings import Ablation, Score, Small, WarmUp

FOLDER: Final = "ablation"
GIVEN: Final = ("data", "draft", "autoencoder", "teacher")
"""What all of them share."""

VARIANTS: Final[dict[str, tuple[str, ...]]] = {
    "score": ("score",),
    "matching": ("warmup",),
    "both": ("warmup", "score"),
}
"""The stages of each; the last one's student is judged."""


def train(run: Run) -> None:
    """Trains all of them, each from where it stopped.

    Raises:
        FileNotFoundError: A stage that they begin with has not run.
        ValueError: The YAML has no section for it.
    """
    for name, stages in VARIANTS.items():
        one = variant(run, name)
        for stage in stages:
            chain.run_stage(one, stage)


def students(run: Run) -> dict[str, Path]:
    """The models of all, and what they begin with, as folders that the node takes."""
    before = run.folder / FOLDER / "before"
    export(stepping.blank(run), before, styles=run.settings.styles, graph=False)
    made = {"before": before}
    words = {
        "score": "score distillation without feature matching",
        "matching": "feature matching without score distillation",
        "both": "both",
    }
    for name, stages in VARIANTS.items():
        made[words[name]] = chain.export_stage(variant(run, name), stages[-1], graph=False)
    return made


def variant(run: Run, name: str) -> Run:
    """One of `VARIANTS`: a training in a folder of its own, from the stages that all share."""
    folder = run.folder / FOLDER / name
    folder.mkdir(parents=True, exist_ok=True)
    for given in GIVEN:
        link = folder / given
        if not link.is_symlink():
            link.symlink_to(Path("..") / ".." / given)
    return Run(
        folder,
        settings_of(run.settings, name),
        report=run.reporting(f"{FOLDER}, {name}: "),
    )


def settings_of(settings: Small, name: str) -> Small:
    """What a variant is trained with.

    Raises:
        ValueError: The YAML has no section `ablation`.
    """
    ablation = settings.ablation
    if ablation is None:
        raise ValueError("the configuration has no section 'ablation', which says how long")
    own = {"steps", "matching_share", "matching"}
    common = ablation.model_dump(include=set(Ablation.model_fields) - own)
    first = round(ablation.steps * ablation.matching_share)
    of_warmup = ablation.steps if name == "matching" else first
    of_score = ablation.steps if name == "score" else ablation.steps - first
    matching = {key: value for key, value in common.items() if key != "rates"}
    warmup = WarmUp(**matching, steps=of_warmup, start="nothing", matching=1.0, paired=0.0)
    score = settings.score.model_dump() | common
    score |= {"steps": of_score, "start": "warmup", "paired": 0.0, "matching": ablation.matching}
    if name == "score":
        score |= {"start": "nothing", "matching": (0.0, 0.0)}
    return settings.model_copy(update={"warmup": warmup, "score": Score(**score)})
