"""The program: `streamer`, or `python -m streamer` where that is not on the path.

Loading the rest takes some tenths of a second in which Ctrl-C is already pressed now and then. So
this module imports nothing before it has seen to that, but for what Python has loaded already.
"""

from __future__ import annotations

import os
import sys


def main() -> int:
    """Runs the command line of this process and returns its exit status.

    Until the command is loaded, Ctrl-C ends the process as it ends any other: by the signal, which
    shells show as 130, and without a word.
    """
    import signal

    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # a parent may ignore it
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    _fill_standard_descriptors()
    from streamer import cli

    return cli.main()


def _fill_standard_descriptors() -> None:
    """Opens the null device where standard input, output or error is closed (`<&-` in a shell).

    Whatever is opened first would take their numbers otherwise, memory for pictures, say, and be
    lost where a worker gets a standard input of its own.
    """
    for descriptor, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest number that is free, which is this
            os.set_inheritable(descriptor, True)
            if getattr(sys, name) is None:
                stream = open(descriptor, "r" if descriptor == 0 else "w", closefd=False)  # noqa: SIM115
                setattr(sys, name, stream)


if __name__ == "__main__":
    raise SystemExit(main())
