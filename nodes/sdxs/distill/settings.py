"""The YAML of a training: one section for each stage, each key checked."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

CONFIGS = Path(__file__).parent / "configs"

Positive = Annotated[int, Field(ge=1)]
Share = Annotated[float, Field(ge=0, le=1)]
Weight = Annotated[float, Field(ge=0)]


class Section(BaseModel):
    """Base of all sections: unknown keys are mistakes."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Family(BaseModel):
    """Which kind of training a YAML is of; everything else in it is looked at later.

    Attributes:
        family: `small`, from nothing, or `full`, from a teacher.
    """

    family: Literal["small", "full"]


class Stage(Section):
    """What every stage has.

    Attributes:
        steps: Updates of the weights.
        batch: Pictures in each part of a step.
        accumulate: Parts whose gradients make one step.
        rate: The peak of the learning rate.
        rates: Factors on it, by optimiser.
        warm_up: Steps until the peak.
        betas: AdamW's.
        weight_decay: AdamW's.
        clip: The largest norm of the gradients.
        average: Decay of the moving average of the weights.
        precision: Of the forward pass; the weights are float32.
        log_every: Steps between lines of the curve.
        keep_every: Steps between checkpoints.
    """

    steps: Positive
    batch: Positive = 8
    accumulate: Positive = 1
    rate: Annotated[float, Field(gt=0)] = 1e-4
    rates: dict[str, float] = Field(default_factory=dict)
    warm_up: int = 50
    betas: tuple[float, float] = (0.9, 0.98)
    weight_decay: Weight = 1e-3
    clip: Annotated[float, Field(gt=0)] = 1.0
    average: Share = 0.998
    precision: Literal["float32", "bfloat16"] = "bfloat16"
    log_every: Positive = 50
    keep_every: Positive = 250


S = TypeVar("S", bound=BaseModel)


def load(name: str | Path, kind: type[S]) -> S:
    """Reads a configuration.

    Args:
        name: Of a configuration that comes with the package (`tiny`), or a file.
        kind: What it must be.

    Raises:
        FileNotFoundError: There is no such configuration.
        ValueError: It is not valid; the message names every mistake.
    """
    path = Path(name)
    if path.suffix not in (".yaml", ".yml"):
        path = CONFIGS / f"{name}.yaml"
    if not path.is_file():
        known = ", ".join(sorted(one.stem for one in CONFIGS.glob("*.yaml")))
        raise FileNotFoundError(
            f"no configuration {str(name)!r}: neither a YAML file nor one of {known}"
        )
    try:
        fields = yaml.safe_load(path.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise ValueError(f"{path} is not YAML: {error}") from error
    return check(fields, kind, where=path)


def check(fields: Any, kind: type[S], *, where: Path) -> S:
    """Makes a section out of what YAML gave.

    Raises:
        ValueError: It is not valid; the message names every mistake.
    """
    if not isinstance(fields, Mapping):
        raise ValueError(f"{where} must be a mapping of sections, not {type(fields).__name__}")
    try:
        return kind.model_validate(dict(fields))
    except ValidationError as error:
        mistakes = "; ".join(
            f"{'.'.join(str(part) for part in one['loc'])}: {one['msg']}" for one in error.errors()
        )
        raise ValueError(f"{where}: {mistakes}") from None
