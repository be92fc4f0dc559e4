"""Simulated device memory: a file for the bytes, and one for who wrote and who reads each page."""

from __future__ import annotations

import mmap
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

PAGE: Final = 4096
LANES: Final = 64
"""streams of all processes that can be told apart at once"""
_DTYPE: Final = np.dtype([("writer", "<u4"), ("number", "<u8"), ("readers", "<u2", (LANES,))])


def forget_lane(folder: Path, keys: Iterable[str], lane: int) -> None:
    """Takes what a lane's former stream was reading out of the books of all memory."""
    for key in keys:
        pages = np.memmap(folder / f"pages-{key}", dtype=_DTYPE, mode="r+")
        pages["readers"][:, lane] = 0


class Memory:
    """One allocation as one process sees it.

    Attributes:
        key: of the allocation in the books.
        pointer: first byte, as an address of this process.
        nbytes: its size.
        own: whether this process made it.
    """

    def __init__(self, folder: Path, key: str, nbytes: int, *, own: bool) -> None:
        self.key = key
        self.nbytes = nbytes
        self.own = own
        self._bytes = self._map(folder / f"memory-{key}", nbytes, make=own)
        pages = -(-nbytes // PAGE)
        books = self._map(folder / f"pages-{key}", pages * _DTYPE.itemsize, make=own)
        self._pages = books.view(_DTYPE)
        self.pointer = int(self._bytes.__array_interface__["data"][0])

    def view(self, pointer: int, nbytes: int) -> npt.NDArray[np.uint8]:
        """The bytes at an address, to be read and written by work of a stream."""
        start = pointer - self.pointer
        return self._bytes[start : start + nbytes]

    def writers(self, pointer: int, nbytes: int) -> dict[int, int]:
        """The streams that wrote there last, and the number of the last piece of work of each."""
        pages = self._range(pointer, nbytes)
        found: dict[int, int] = {}
        for writer in np.unique(pages["writer"]):
            if writer:
                found[int(writer)] = int(pages["number"][pages["writer"] == writer].max())
        return found

    def written(self, pointer: int, nbytes: int, stream: int, number: int) -> None:
        """Notes that a piece of work of a stream writes there."""
        pages = self._range(pointer, nbytes)
        pages["writer"] = stream
        pages["number"] = number

    def reading(self, pointer: int, nbytes: int, lane: int, more: int) -> None:
        """Notes that a stream will read there (1), or has (-1)."""
        readers = self._range(pointer, nbytes)["readers"][:, lane]
        readers += np.uint16(more & 0xFFFF)

    def readers(self, pointer: int, nbytes: int) -> list[int]:
        """Lanes of the streams that have not done reading there."""
        return [int(n) for n in np.flatnonzero(self._range(pointer, nbytes)["readers"].any(0))]

    def _range(self, pointer: int, nbytes: int) -> npt.NDArray[np.void]:
        start = pointer - self.pointer
        found: npt.NDArray[np.void] = self._pages[start // PAGE : -(-(start + nbytes) // PAGE)]
        return found

    @staticmethod
    def _map(path: Path, nbytes: int, *, make: bool) -> npt.NDArray[np.uint8]:
        flags = os.O_RDWR | os.O_CLOEXEC | (os.O_CREAT | os.O_EXCL if make else 0)
        descriptor = os.open(path, flags, 0o600)
        try:
            if make:
                os.ftruncate(descriptor, nbytes)
            return np.frombuffer(mmap.mmap(descriptor, nbytes), dtype=np.uint8)
        finally:
            os.close(descriptor)
