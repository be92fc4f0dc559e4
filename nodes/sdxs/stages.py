"""What a node says of a model that loads: a line a stage, and how many stages there are."""

from __future__ import annotations

import threading
from collections.abc import Callable
from itertools import count
from typing import Protocol


class Note(Protocol):
    """`streamer.Context.note`, or what stands in its place."""

    def __call__(self, text: str, *, done: int = 0, of: int = 0) -> None:
        """Says what is being done; empty when it is done.

        Args:
            text: in a few words.
            done: stages that are done.
            of: how many there are; 0 if nobody knows.
        """
        ...


def counted(note: Note | None, of: int) -> Callable[[str], None]:
    """Says stages one after another, each time as many done as were said before.

    Args:
        note: told of them; None if nobody is.
        of: how many there are.
    """
    done = count()

    def say(stage: str) -> None:
        if note is not None:
            note(stage, done=next(done), of=of)

    return say


class AbandonedLoadError(BaseException):
    """Ends the loading of a model that nobody waits for any more."""


class Stages:
    """The stages of one load, for the thread that loads; the first picture is the last of them.

    A model says in its own threads, too, what it does: it records and compiles beside. That is
    passed on as it comes, and goes on after the load.

    Args:
        note: told of everything.
        abandoned: whether nobody waits for the model any more; asked at each stage.
    """

    def __init__(self, note: Note, *, abandoned: Callable[[], bool] = lambda: False) -> None:
        self._note = note
        self._abandoned = abandoned
        self._thread = threading.get_ident()
        self._saying = threading.Lock()
        self._done, self._of = 0, 0
        self._ended = False
        self._beside = ""

    def __call__(self, text: str, *, done: int = 0, of: int = 0) -> None:
        """See `Note`.

        Raises:
            AbandonedLoadError: in the thread that loads, if nobody waits for it any more.
        """
        mine = threading.get_ident() == self._thread
        with self._saying:
            if not mine:
                self._beside = text
            elif not self._ended and self._abandoned():
                raise AbandonedLoadError
            if of:
                self._done, self._of = done, of + 1
            if self._ended:
                self._note(text, done=done, of=of)
            elif text:
                self._note(text, done=self._done, of=self._of)

    def first_picture(self, width: int, height: int) -> None:
        """The weights are there; raises as a call does."""
        of = max(self._of - 1, 1)
        self(f"painting the first picture of {width}x{height}", done=of, of=of)

    def end(self) -> None:
        """The model is there, or it will not come; what goes on beside is still said."""
        with self._saying:
            if not self._ended:
                self._ended = True
                self._note(self._beside)
