"""`streamer pull`: fetches what a model needs from the Hugging Face hub into its cache."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nodes.sdxs.checkpoint.files import (
    DIFFUSERS_FILE,
    LORA_FILES,
    PEFT_CONFIG,
    PEFT_FILES,
    required,
    weight_files,
)
from nodes.sdxs.names import ModelName


class PullError(Exception):
    """A model could not be fetched; the message is one sentence."""


@dataclass(frozen=True)
class Remote:
    """A repository as the hub describes it.

    Attributes:
        name: As it was asked for.
        commit: Hash of the revision.
        licence: As its card says; empty if it does not.
        sizes: Bytes by file.
        hashes: Of the contents by file: SHA-256, or Git's hash of small files.
    """

    name: ModelName
    commit: str
    licence: str
    sizes: Mapping[str, int]
    hashes: Mapping[str, str]


@dataclass(frozen=True)
class Plan:
    """What to fetch.

    Attributes:
        remote: From where.
        kind: What it is: `model`, `control` or `lora`.
        files: Names, in order.
    """

    remote: Remote
    kind: str
    files: tuple[str, ...]

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(self.remote.sizes[file] for file in self.files)


def look(name: ModelName) -> Remote:
    """Asks the hub about a repository.

    Raises:
        PullError: It cannot be reached, or there is no such repository or revision.
    """
    from huggingface_hub import HfApi

    info = _ask(
        name,
        lambda: HfApi().model_info(name.id, revision=name.revision, files_metadata=True),
    )
    files = info.siblings or []
    card = info.card_data
    licence = (card.get("license") if card is not None else None) or next(
        (tag.removeprefix("license:") for tag in info.tags or () if tag.startswith("license:")), ""
    )
    return Remote(
        name=name,
        commit=str(info.sha),
        licence=str(licence),
        sizes={one.rfilename: int(one.size or 0) for one in files},
        hashes={
            one.rfilename: one.lfs.sha256 if one.lfs is not None else str(one.blob_id or "")
            for one in files
        },
    )


def plan(remote: Remote, *, large: bool = False) -> Plan:
    """Which of a repository's files a model needs.

    Args:
        remote: From `look`.
        large: Whether to fetch the large decoder, too.

    Raises:
        PullError: It is no model, ControlNet or adapter that this engine runs, or files of it are
            missing.
    """
    there = remote.sizes
    if "model_index.json" in there:
        index = json.loads(fetch(remote, "model_index.json").read_text(encoding="utf-8"))
        wanted = required(index, vae_folder="vae")
        if large and "vae_large/config.json" in there:
            wanted += [("vae_large/config.json",), weight_files("vae_large", DIFFUSERS_FILE)]
        extras = ("tokenizer_config.json", "special_tokens_map.json")
        wanted += [
            (f"{folder}/{file}",)
            for folder in ("tokenizer", "tokenizer_2")
            for file in extras
            if f"{folder}/{file}" in there
        ]
        return Plan(remote, "model", _chosen(remote, wanted))
    if PEFT_CONFIG in there:
        return Plan(remote, "lora", _chosen(remote, [(PEFT_CONFIG,), PEFT_FILES]))
    if any(file in there for file in LORA_FILES):
        return Plan(remote, "lora", _chosen(remote, [LORA_FILES]))
    if "config.json" in there:
        wanted = [("config.json",), weight_files("", DIFFUSERS_FILE)]
        return Plan(remote, "control", _chosen(remote, wanted))
    raise PullError(
        f"{remote.name} is neither a model in diffusers' layout, nor a ControlNet, nor a LoRA "
        "adapter: it has no model_index.json, config.json or adapter"
    )


def fetch(remote: Remote, file: str) -> Path:
    """Fetches one file, or what is missing of it, and checks it against the hub's hash.

    Raises:
        PullError: The hub cannot be reached, or what came is not what the hub says it is.
    """
    from huggingface_hub import hf_hub_download

    path = Path(
        _ask(
            remote.name,
            # By its commit: the name of the revision means what it did until all is there.
            lambda: hf_hub_download(remote.name.id, file, revision=remote.commit),
        )
    )
    expected = remote.hashes[file]
    if expected and digest(path, expected) != expected:
        # The cache holds a link to the contents: both go, so that the next try starts anew.
        path.resolve().unlink()
        path.unlink(missing_ok=True)
        raise PullError(
            f"{file} of {remote.name} arrived damaged: its hash is not the hub's; it was removed, "
            "try again"
        )
    return path


def settle(remote: Remote) -> None:
    """Has the name of a revision mean the commit that was fetched, in the hub's cache.

    Raises:
        PullError: It cannot be written there.
    """
    from huggingface_hub import constants
    from huggingface_hub.file_download import repo_folder_name

    revision = remote.name.revision or constants.DEFAULT_REVISION
    if revision == remote.commit:
        return
    folder = repo_folder_name(repo_id=remote.name.id, repo_type="model")
    ref = Path(constants.HF_HUB_CACHE, folder, "refs", revision)
    part = ref.with_name(f".{ref.name}.{os.getpid()}")
    try:
        if ref.is_file() and ref.read_text() == remote.commit:
            return  # the cache may be one that can only be read
        ref.parent.mkdir(parents=True, exist_ok=True)
        part.write_text(remote.commit)
        part.replace(ref)
    except OSError as error:
        with suppress(OSError):
            part.unlink()
        raise PullError(f"{ref} cannot be written: {error.strerror}") from error


def digest(path: Path, like: str) -> str:
    """Hash of a file in hexadecimal, of the kind of another one.

    Args:
        path: The file.
        like: SHA-256 has 64 digits; 40 are Git's hash of a blob.
    """
    if len(like) == 64:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    content = path.read_bytes()
    return hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()


def _chosen(remote: Remote, wanted: Iterable[tuple[str, ...]]) -> tuple[str, ...]:
    chosen: list[str] = []
    missing: list[str] = []
    for candidates in wanted:
        found = next((file for file in candidates if file in remote.sizes), None)
        if found is None:
            missing.append(candidates[0])
        else:
            chosen.append(found)
    if missing:
        raise PullError(f"{remote.name} lacks {', '.join(missing)} on the hub: it cannot be run")
    return tuple(chosen)


def _ask(name: ModelName, question: Callable[[], Any]) -> Any:
    from huggingface_hub import constants, errors

    try:
        return question()
    except errors.GatedRepoError as error:
        raise PullError(
            f"{name} is behind a form: accept its terms at {constants.ENDPOINT}/{name.id} and log "
            "in with: hf auth login"
        ) from error
    except errors.RepositoryNotFoundError as error:
        raise PullError(f"there is no repository {name.id} at {constants.ENDPOINT}") from error
    except errors.RevisionNotFoundError as error:
        raise PullError(f"{name.id} has no revision {name.revision!r}") from error
    except errors.OfflineModeIsEnabled as error:
        raise PullError("the hub is switched off: unset HF_HUB_OFFLINE to fetch models") from error
    except Exception as error:  # the hub's library passes on whatever its HTTP library raises
        raise PullError(
            f"{name} cannot be fetched: {constants.ENDPOINT} cannot be reached or does not answer "
            f"as it should ({_reason(error)}); what has arrived is kept, try again when the "
            "network is there"
        ) from error


def _reason(error: BaseException) -> str:
    """The innermost cause, on one line."""
    while (inner := error.__cause__ or error.__context__) is not None:
        error = inner
    text = str(error).strip()
    return f"{type(error).__name__}: {text.splitlines()[0][:200]}" if text else type(error).__name__
