"""What a run needs of the system, asked for before anything is begun."""

from __future__ import annotations

import errno
import os
from typing import Final

from streamer.errors import RunError

BASE: Final = 20
"""descriptors of a supervisor without workers: sockets, their threads', the board, the folder"""
EACH: Final = 7
"""descriptors more for each worker: its pipes, its process, its connection, and while it starts"""


def demand_descriptors(workers: int) -> None:
    """Makes sure that a run can have the descriptors that it needs.

    ZeroMQ ends the whole program, without a word to us, where it gets none for itself.

    Args:
        workers: how many the run has.

    Raises:
        RunError: it cannot.
    """
    _demand(BASE + EACH * workers, f"a run of {workers} workers")


def demand_for_start(worker: str) -> None:
    """Makes sure that the descriptors of one more process can be had, its connections' included.

    Args:
        worker: its name.

    Raises:
        RunError: they cannot.
    """
    _demand(EACH, f"the start of worker {worker}")


def _demand(needed: int, what: str) -> None:
    taken: list[int] = []
    try:
        for _ in range(needed):
            taken.append(os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC))
    except OSError as error:
        whose = "this machine" if error.errno == errno.ENFILE else "this program"
        advice = "" if error.errno == errno.ENFILE else ": raise `ulimit -n`"
        raise RunError(
            f"{error.strerror}: {what} needs {needed} descriptors, "
            f"and {whose} has {len(taken)} left{advice}"
        ) from error
    finally:
        for fd in taken:
            os.close(fd)
