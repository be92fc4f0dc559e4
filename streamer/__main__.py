"""The program: `streamer`, or `python -m streamer` where that is not on the path.

Loading the rest takes some tenths of a second in which Ctrl-C is already pressed now and then. So
this module imports nothing before it has seen to that.
"""

from __future__ import annotations


def main() -> int:
    """Runs the command line of this process and returns its exit status.

    Until the command is loaded, Ctrl-C ends the process as it ends any other: by the signal, which
    shells show as 130, and without a word.
    """
    import signal

    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # a parent may ignore it
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    from streamer import cli

    return cli.main()


if __name__ == "__main__":
    raise SystemExit(main())
