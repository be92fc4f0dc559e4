"""The scheduler's priority of this process, which some libraries change without being asked."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator


@contextlib.contextmanager
def ordinary_priority() -> Iterator[None]:
    """Takes back the real-time priority that code inside gives to threads of this process.

    SVT-AV1 gives SCHED_FIFO at 99 to the thread that opens it wherever it may, as root may: its own
    threads have it from there, and so has every process that is started later. Real-time threads
    come before all others, and a few of them stop the rest of a machine.
    """
    if not hasattr(os, "sched_getscheduler"):
        yield
        return
    before = set(_real_time_threads())
    try:
        yield
    finally:
        for thread in _real_time_threads():
            if thread not in before:
                with contextlib.suppress(ProcessLookupError):  # it has ended by now
                    os.sched_setscheduler(thread, os.SCHED_OTHER, os.sched_param(0))


def _real_time_threads() -> Iterator[int]:
    for name in os.listdir("/proc/self/task"):
        with contextlib.suppress(ProcessLookupError):
            policy = os.sched_getscheduler(int(name)) & ~os.SCHED_RESET_ON_FORK
            if policy in (os.SCHED_FIFO, os.SCHED_RR):
                yield int(name)
