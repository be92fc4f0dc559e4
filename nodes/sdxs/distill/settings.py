"""The YAML of a training: one section for each stage, each key checked."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal, TypeVar, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from streamer.errors import GraphError, Problem
from streamer.graph.reading import read_yaml
from streamer.graph.tree import Mapping
from streamer.graph.wording import explain, field_names, near

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
        optimiser: `adamw`, or `muon` for the matrices and AdamW for the rest, at the same rate.
        betas: AdamW's.
        weight_decay: Of both.
        clip: The largest norm of the gradients.
        average: Decay of the moving average of the weights.
        precision: Of the forward pass; the weights are float32. `auto` is bfloat16 where the
            device computes in it, else float32, which is then several times as fast.
        log_every: Steps between lines of the curve.
        keep_every: Steps between checkpoints.
    """

    steps: Positive
    batch: Positive = 8
    accumulate: Positive = 1
    rate: Annotated[float, Field(gt=0)] = 1e-4
    rates: dict[str, float] = Field(default_factory=dict)
    warm_up: int = 50
    optimiser: Literal["adamw", "muon"] = "adamw"
    betas: tuple[float, float] = (0.9, 0.98)
    weight_decay: Weight = 1e-3
    clip: Annotated[float, Field(gt=0)] = 1.0
    average: Share = 0.998
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
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
        ValueError: It is not valid; the message names every mistake at its line and column.
    """
    path = Path(name)
    if path.suffix not in (".yaml", ".yml"):
        path = CONFIGS / f"{name}.yaml"
    if not path.is_file():
        known = ", ".join(sorted(one.stem for one in CONFIGS.glob("*.yaml")))
        raise FileNotFoundError(
            f"no configuration {str(name)!r}: neither a YAML file nor one of {known}"
        )
    problems: list[Problem] = []
    try:
        root = read_yaml(path.read_text(encoding="utf-8"), file=str(path), report=problems.append)
    except UnicodeDecodeError:
        raise ValueError(f"{path} is no YAML: it is not UTF-8 text") from None
    except GraphError as error:
        raise ValueError(str(error)) from None
    if not isinstance(root, Mapping):
        raise ValueError(f"{path} must be a mapping of sections: family, data, a stage each")
    made = None
    try:
        made = kind.model_validate(root.plain())
    except ValidationError as error:
        problems += explain(
            error.errors(include_url=False),
            root,
            place=root.place,
            title=_title,
            unknown=lambda path, key: f"is not known; {near(key, _keys(kind, path))}",
            wanted=lambda path: "",
        )
    if made is None or problems:
        problems.sort(key=lambda problem: (problem.line, problem.column))
        told = [str(problem) for problem in problems]
        raise ValueError("\n".join(told if len(told) == 1 else [f"{len(told)} mistakes", *told]))
    return made


def _title(path: Sequence[str | int]) -> str:
    return "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in path)[1:]


def _keys(kind: type[BaseModel], path: Sequence[str | int]) -> list[str]:
    """The keys that a section of a YAML may have."""
    for step in path:
        field = kind.model_fields.get(str(step))
        inner = None if field is None else field.annotation
        found = [one for one in (inner, *get_args(inner)) if _is_section(one)]
        if not found:
            return []
        kind = found[0]
    return field_names(kind)


def _is_section(kind: object) -> bool:
    return isinstance(kind, type) and issubclass(kind, BaseModel)
