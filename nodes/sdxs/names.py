"""How models, ControlNets and adapters are named, read without touching any library."""

from __future__ import annotations

import contextlib
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from streamer.masking import mask

BUNDLED = "bundled"
RANDOM = "random"
RANDOM_MODELS = ("sdxs-512-0.9", "sdxs-512-dreamshaper", "sdxs-1024", "tiny")
"""Architectures that can be had with seeded random weights."""

# As the hub has them: letters, digits, '-', '_' and '.', of the owner and of the repository.
_HUB = re.compile(
    r"(?P<id>[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95})(@(?P<revision>[\w./-]{1,200}))?"
)


@dataclass(frozen=True, slots=True)
class ModelName:
    """What a model is called by.

    Attributes:
        kind: `bundle` (a folder in the layout of `nodes.sdxs.bundle`), `folder` (diffusers'
            layout), `hub` (a repository of the Hugging Face hub) or `random`.
        id: `bundled`, the folder, the repository, or what stands behind `random:`.
        revision: branch, tag or commit of a repository; None is its default branch.
    """

    kind: Literal["bundle", "folder", "hub", "random"]
    id: str
    revision: str | None = None

    @classmethod
    def parse(cls, name: str | Path) -> ModelName:
        """Reads a model's name; a folder that exists wins over a repository of that name.

        Raises:
            FileNotFoundError: It is nothing that could be a model.
            ValueError: `random:` is followed by no known architecture.
        """
        text = str(name)
        if text == BUNDLED:
            return cls("bundle", BUNDLED)
        if text == RANDOM or text.startswith(f"{RANDOM}:"):
            architecture = text.partition(":")[2]
            if architecture not in RANDOM_MODELS:
                raise ValueError(
                    f"unknown model {mask(text)!r:.200}: after 'random:' comes "
                    f"{', '.join(RANDOM_MODELS[:-1])} or {RANDOM_MODELS[-1]}"
                )
            return cls("random", architecture)
        found = _locate(name)
        if found is not None:
            if found.kind == "folder" and _is_bundle(Path(found.id)):
                return cls("bundle", found.id)
            return found
        raise FileNotFoundError(
            f"no model {mask(text)!r:.200}: it is neither {BUNDLED!r}, nor "
            f"random:{RANDOM_MODELS[-1]} or the like, nor a folder, nor a repository owner/name of "
            "the Hugging Face hub"
        )

    @classmethod
    def parse_part(cls, name: str | Path, what: str) -> ModelName:
        """Reads the name of a ControlNet or an adapter: a repository, a file or a folder.

        Args:
            name: The name.
            what: What it names, for messages: `control` or `lora`.

        Raises:
            FileNotFoundError: It is nothing that could be one.
        """
        if str(name) == RANDOM and what == "control":
            return cls("random", RANDOM)
        found = _locate(name)
        if found is None:
            raise FileNotFoundError(
                f"no {what} {mask(str(name))!r:.200}: it is neither a file or folder, nor a "
                "repository owner/name of the Hugging Face hub"
            )
        return found

    @property
    def is_bundle(self) -> bool:
        """Whether it is the bundled model or one in its layout."""
        return self.kind == "bundle"

    def __str__(self) -> str:
        if self.kind == "random" and self.id != RANDOM:
            return f"{RANDOM}:{self.id}"
        return self.id if self.revision is None else f"{self.id}@{self.revision}"


@dataclass(frozen=True, slots=True)
class Lora:
    """An adapter and how much of it.

    Attributes:
        source: A folder, a file or a repository of the hub.
        scale: Factor on what it adds to the weights; 1 is as it was trained.
    """

    source: str
    scale: float = 1.0

    @classmethod
    def of(cls, given: str | Path | Lora) -> Lora:
        """The adapter itself, or the one at a path with scale 1."""
        return given if isinstance(given, Lora) else cls(str(given))


def _locate(name: str | Path) -> ModelName | None:
    path = Path(name)
    with contextlib.suppress(RuntimeError):  # ~ of nobody: a file's name like any other
        path = path.expanduser()
    if os.path.exists(path):  # False for names that are too long for a file
        return ModelName("folder", str(path))
    # What looks like a path is one, and then it does not exist.
    match = None if str(name).startswith((".", "/", "~")) else _HUB.fullmatch(str(name))
    return None if match is None else ModelName("hub", match["id"], match["revision"])


def _is_bundle(folder: Path) -> bool:
    return (folder / "config.json").is_file() and not (folder / "model_index.json").is_file()
