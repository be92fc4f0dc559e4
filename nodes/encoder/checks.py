"""Finds out before anything runs whether an output can be written."""

from __future__ import annotations

import socket
import tempfile
from pathlib import Path
from urllib.parse import urlsplit

from nodes.encoder.failures import failure
from nodes.encoder.outputs import Output
from streamer import ParameterError, SinkError


def check(output: Output, *, overwrite: bool) -> None:
    """Finds mistakes before anything runs: no such folder, no permission, an unknown host.

    Raises:
        SinkError: the output cannot be written.
        ParameterError: the file exists and is not to be overwritten.
    """
    if output.kind == "network":
        _check_host(output)
    elif output.kind == "device":
        _check_device(output)
    elif output.path is not None:
        _check_path(output, output.path, overwrite=overwrite)


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
            # "ab" asks for the right to write without emptying the file.
            with path.open("ab"):
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
        raise SinkError(
            f"cannot open {output.shown}: the host name {host!r} is not known; "
            "is it spelt right, and is this machine connected?",
            retry=True,
        ) from error
