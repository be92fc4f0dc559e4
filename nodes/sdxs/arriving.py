"""A model on its way: loaded in a thread of its own, while pictures pass."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from nodes.sdxs.stages import AbandonedLoadError

if TYPE_CHECKING:
    from nodes.sdxs.engine import OneStep

GRACE: Final = 2.0
"""seconds that a load which is abandoned has to come to its next stage"""


class Arriving:
    """See the module; begins at once.

    Args:
        load: gets this, and gives the model; asks `abandoned` now and then.
        name: of the thread.
        told: called in that thread when the load is over, in either way, unless it is abandoned.
    """

    def __init__(
        self, load: Callable[[Arriving], OneStep], *, name: str, told: Callable[[], None]
    ) -> None:
        self._load = load
        self._told = told
        self._engine: OneStep | None = None
        self._error: BaseException | None = None
        self._over = threading.Event()
        self._waking = threading.Event()
        self._given_up = False
        # A daemon: nothing can end a read that hangs, and a process must be able to end.
        self._thread = threading.Thread(target=self._work, name=name, daemon=True)
        self._thread.start()

    @property
    def over(self) -> bool:
        """Whether the model is there, or will not come."""
        return self._over.is_set()

    def abandoned(self) -> bool:
        """Whether nobody waits for it any more."""
        return self._given_up

    def take(self) -> OneStep:
        """The model, once; after `over`.

        Raises:
            Exception: what loading it raised.
        """
        if self._error is not None:
            raise self._error
        engine, self._engine = self._engine, None
        assert engine is not None
        return engine

    def wait(self) -> bool:
        """Waits until it is over, or abandoned; whether the model has come."""
        self._waking.wait()
        return self._over.is_set() and self._error is None and not self._given_up

    def abandon(self) -> threading.Thread | None:
        """Has nobody wait for it any more.

        Returns:
            The thread, if it is still inside something that does not end.
        """
        self._given_up = True
        self._waking.set()
        self._thread.join(GRACE)
        return self._thread if self._thread.is_alive() else None

    def _work(self) -> None:
        try:
            engine = self._load(self)
            if not self._given_up:
                self._engine = engine
        except AbandonedLoadError:
            return
        except BaseException as error:
            self._error = error
        finally:
            self._over.set()
            self._waking.set()
        if not self._given_up:
            self._told()

    def __repr__(self) -> str:
        return f"<Arriving, {'over' if self.over else 'on its way'}>"
