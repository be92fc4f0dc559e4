"""The slots of an outlet: which are free, who holds the others, and slabs of former sizes.

A slot is free when nobody holds it. A larger picture needs a slab of larger slots: a new
generation. The former slab lives on until the last lease of its slots has ended.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

from streamer.link import slab as slabs
from streamer.link import wire


@dataclass(slots=True)
class Slot:
    """A slot leased to the producing node for writing.

    `generation` is 0 for scratch memory, which a live outlet gives when all slots are in use.
    """

    generation: int
    index: int
    pixels: memoryview


@dataclass(slots=True)
class Generation:
    """A slab and who uses its slots: the number of holders of each."""

    number: int
    slab: slabs.Slab
    holders: list[int]


class SlotPool:
    """Not safe for threads: the outlet's lock guards it, but for `forget_later`."""

    def __init__(self) -> None:
        self._current: Generation | None = None
        self._retired: list[Generation] = []
        self._made = 0
        self._later: deque[Slot] = deque()

    def lease(self, nbytes: int, slots: int) -> Slot | None:
        """A free slot for a picture of `nbytes`, with one holder; None if all are in use.

        Args:
            nbytes: bytes of the picture.
            slots: how many a slab shall have, where a new one is needed.

        Raises:
            SlabError: memory for a larger picture cannot be had.
        """
        generation = self._for(nbytes, slots)
        try:
            index = generation.holders.index(0)
        except ValueError:
            return None
        generation.holders[index] = 1
        return Slot(generation.number, index, generation.slab.slot(index))

    def find(self, number: int) -> Generation | None:
        """The generation of a number, unless its slab has been closed."""
        if self._current is not None and self._current.number == number:
            return self._current
        return next((g for g in self._retired if g.number == number), None)

    def release(self, number: int, slot: int) -> None:
        """Takes one holder from a slot."""
        generation = self.find(number)
        if generation is not None:
            generation.holders[slot] -= 1
            self._retire()

    def forget_later(self, slot: Slot) -> None:
        """Has `settle` release a slot; from any thread, also where garbage is collected."""
        self._later.append(slot)

    def settle(self) -> None:
        """Releases what `forget_later` was given."""
        while self._later:
            slot = self._later.popleft()
            self.release(slot.generation, slot.index)

    @property
    def generations(self) -> tuple[Generation, ...]:
        """Slabs that are not closed yet, the present one last."""
        return (*self._retired, *([self._current] if self._current else []))

    def close(self) -> None:
        """Lets go of all memory."""
        for generation in self.generations:
            generation.slab.close()
        self._retired.clear()
        self._current = None

    def __repr__(self) -> str:
        used = [sum(map(bool, g.holders)) for g in self.generations]
        return f"<SlotPool, slots in use: {used}>"

    def _for(self, nbytes: int, slots: int) -> Generation:
        current = self._current
        if current is not None and nbytes <= current.slab.slot_bytes:
            return current
        made = slabs.create(min(slots, wire.MAX_SLOTS), nbytes)
        self._made += 1
        if current is not None:
            self._retired.append(current)
        self._current = Generation(self._made, made, [0] * made.slots)
        self._retire()
        return self._current

    def _retire(self) -> None:
        """Closes the slabs of former sizes whose last lease has ended."""
        for generation in [g for g in self._retired if not any(g.holders)]:
            generation.slab.close()
            self._retired.remove(generation)
