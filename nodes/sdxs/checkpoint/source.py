"""Where the files of a model are: a folder, or the hub's cache on this machine.

Nothing here goes to the network: `pull` does, and only when it is asked to.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from nodes.sdxs.names import ModelName


class MissingFilesError(FileNotFoundError):
    """Files of a model are not on this machine; the message says which and how to get them."""


class Source:
    """Files of one folder or repository.

    Args:
        name: A folder or a repository of the hub.
    """

    def __init__(self, name: ModelName) -> None:
        self.name = name

    def find(self, *candidates: str) -> Path | None:
        """The first of several files that is there, or None.

        Args:
            candidates: Paths relative to the folder or repository, the best first.
        """
        for candidate in candidates:
            path = self._path(candidate)
            if path is not None:
                return path
        return None

    def need(self, *candidates: str) -> Path:
        """The first of several files that is there.

        Raises:
            MissingFilesError: None is.
        """
        path = self.find(*candidates)
        if path is None:
            raise self.missing([candidates])
        return path

    def need_all(self, wanted: Iterable[tuple[str, ...]]) -> None:
        """Checks for each of several files, given as candidates, and names all that are missing.

        Raises:
            MissingFilesError: At least one is missing.
        """
        absent = [candidates for candidates in wanted if self.find(*candidates) is None]
        if absent:
            raise self.missing(absent)

    def read(self, *candidates: str) -> dict[str, Any]:
        """A JSON file's object.

        Raises:
            MissingFilesError: It is not there.
            ValueError: It holds no JSON object.
        """
        return read_object(self.need(*candidates))

    def missing(self, absent: Iterable[tuple[str, ...]]) -> MissingFilesError:
        """The error that names files which are not there, each by its best name."""
        files = [candidates[0] for candidates in absent]
        shown = ", ".join(files[:6]) + (f" and {len(files) - 6} more" if len(files) > 6 else "")
        if self.name.kind == "hub":
            return MissingFilesError(
                f"model {self.name} is not complete on this machine: {shown} "
                f"{'is' if len(files) == 1 else 'are'} missing; get what is missing with: "
                f"streamer pull {self.name}"
            )
        return MissingFilesError(
            f"{self.name} lacks {shown}; a model's folder has the layout of diffusers"
        )

    def _path(self, file: str) -> Path | None:
        if self.name.kind == "folder":
            path = Path(self.name.id) / file
            return path if path.is_file() else None
        from huggingface_hub import try_to_load_from_cache

        found = try_to_load_from_cache(self.name.id, file, revision=self.name.revision)
        return Path(found) if isinstance(found, str) else None

    def __str__(self) -> str:
        return str(self.name)


def read_object(path: Path) -> dict[str, Any]:
    """A JSON file's object.

    Raises:
        ValueError: It holds none.
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is not JSON: {error}") from error
    if not isinstance(value, dict):
        raise ValueError(f"{path} holds no JSON object")
    return value
