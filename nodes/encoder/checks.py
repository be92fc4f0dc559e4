"""Finds out before anything runs whether an output can be written."""

from __future__ import annotations

import socket
import tempfile
import time
from pathlib import Path
from urllib.parse import urlsplit

from nodes.encoder.directives import at_moment, is_pattern
from nodes.encoder.disk import FileLock, Room, bytes_shown
from nodes.encoder.failures import failure
from nodes.encoder.outputs import Output
from nodes.encoder.params import EncoderParams, byte_count
from nodes.encoder.parts import last_segment, pictures_in, segment_path
from nodes.encoder.stand_in import load_slate
from streamer import ParameterError, SinkError


def check(output: Output, params: EncoderParams, *, again: bool) -> None:
    """Finds mistakes before anything runs: no such folder, no permission, an unknown host.

    Args:
        output: where to.
        params: of the node.
        again: whether the node was started again, so that what is there is its own.

    Raises:
        SinkError: the output cannot be written, or another one writes to it.
        ParameterError: the file exists and is not to be overwritten, or the slate's picture cannot
            be read.
    """
    if not again:
        load_slate(params.slate)  # also where nothing like it is shown: behind a file, say
    if output.kind == "network":
        if not again:
            _check_host(output)
    elif output.kind == "device":
        _check_device(output)
    elif output.path is not None:
        path, overwrite = output.path, params.overwrite or again
        if output.kind == "file" and is_pattern(path):
            path = at_moment(path, time.time())
            _make_folder(output, path.parent)
        elif params.segment_seconds is not None or params.segment_megabytes is not None:
            path = segment_path(path, last_segment(path) + 1)
        _check_path(output, path, overwrite=overwrite)
        if output.kind == "images" and not overwrite and (last := pictures_in(path)):
            raise ParameterError(
                f"pictures named {path.name} are in {path.parent} already, up to number {last}, "
                "and overwrite is false; remove them, choose another name, or set overwrite to true"
            )
        if output.kind == "file" and not again:
            _check_room(output, path.parent, byte_count(params.keep_free))


def _make_folder(output: Output, folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise failure(output, "write", error) from error


def _check_room(output: Output, folder: Path, keep_free: int) -> None:
    room = Room(folder, keep_free)
    if not room.enough():
        raise SinkError(
            f"cannot write {output.shown}: {bytes_shown(room.free)} are free on its disk, and "
            f"keep_free wants {bytes_shown(keep_free)} to stay free; free some, write elsewhere, "
            "or set keep_free to less"
        )


def _check_path(output: Output, path: Path, *, overwrite: bool) -> None:
    folder = path.parent
    try:
        if not folder.exists():
            raise SinkError(
                f"cannot write {output.shown}: the folder {folder} does not exist; "
                f"create it (mkdir -p {folder})"
            )
        if not folder.is_dir():
            raise SinkError(f"cannot write {output.shown}: {folder} is not a folder")
        if path.is_dir():
            raise SinkError(f"cannot write {output.shown}: it is a folder; add a file name")
        if path.exists():
            if not overwrite:
                raise ParameterError(
                    f"the file {path} exists already and overwrite is false; "
                    "remove it, choose another name, or set overwrite to true"
                )
            # It asks for the right to write, too, without emptying the file.
            FileLock(output, path).release()
            return
        _check_folder(folder)
    except OSError as error:
        raise failure(output, "write", error) from error


def _check_folder(folder: Path) -> None:
    # Only creating a file tells for sure: access(2) says yes to root on a read-only disk.
    with tempfile.TemporaryFile(dir=folder):
        pass


def _check_device(output: Output) -> None:
    path = Path(output.url)
    if not path.exists():
        raise SinkError(
            f"cannot open {output.shown}: there is no such device; "
            "a virtual camera needs the kernel module v4l2loopback (modprobe v4l2loopback)"
        )
    if not path.is_char_device():
        raise SinkError(f"cannot open {output.shown}: it is not a video device")
    try:
        with path.open("wb", buffering=0):
            pass
    except OSError as error:
        raise failure(output, "open", error) from error


def _check_host(output: Output) -> None:
    host = urlsplit(output.url).hostname or ""
    try:
        socket.getaddrinfo(host, None)
    except (OSError, UnicodeError) as error:
        if getattr(error, "errno", None) == socket.EAI_AGAIN:
            return  # no answer is no refusal: the network may come later
        raise SinkError(
            f"cannot open {output.shown}: the host name {host!r} is not known; "
            "is it spelt right, and is this machine connected?"
        ) from error
