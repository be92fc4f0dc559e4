"""Standard error that nobody reads for a while, or ever again."""

from __future__ import annotations

import fcntl
import io
import os
import re
from collections.abc import Iterator
from typing import TextIO

import pytest

from streamer.cli.unhurried import Unhurried

PIPE = 4096


@pytest.fixture
def pipe() -> Iterator[tuple[int, TextIO]]:
    reading, writing = os.pipe()
    fcntl.fcntl(writing, fcntl.F_SETPIPE_SZ, PIPE)
    with open(writing, "w", encoding="utf-8") as stream:
        yield reading, stream
    os.close(reading)


def read(descriptor: int, until: str) -> str:
    text = ""
    while until not in text:
        text += os.read(descriptor, 65536).decode()
    return text


def test_text_comes_whole_and_in_order(pipe: tuple[int, TextIO]) -> None:
    reading, stream = pipe
    unhurried = Unhurried(stream)
    for number in range(100):
        print(number, file=unhurried)
    unhurried.settle()
    assert read(reading, "99\n").split() == [str(number) for number in range(100)]


def test_whoever_writes_does_not_wait_and_is_told_what_was_left_out(
    pipe: tuple[int, TextIO],
) -> None:
    reading, stream = pipe
    unhurried = Unhurried(stream, room=4 * PIPE)
    for number in range(1000):
        unhurried.write(f"{number:99}\n")  # nobody reads: this would wait for ever
    # Where the writing thread was slow to start, there is more than one gap.
    text, numbers, gaps = "", list[int](), 0
    while len(numbers) < 1000:
        text += os.read(reading, 65536).decode()
        *lines, text = text.split("\n")
        for line in lines:
            if gap := re.fullmatch(r"streamer: (\d+) characters were left out here", line):
                gaps += 1
                numbers += [-1] * (int(gap[1]) // 100)
            else:
                assert int(line) == len(numbers)  # a gap is told of where it is
                numbers.append(int(line))
    assert len(numbers) == 1000
    assert gaps >= 1
    unhurried.write("again\n")
    assert read(reading, "again\n") == "again\n"


def test_a_reader_that_has_gone_is_told_to_the_writer() -> None:
    reading, writing = os.pipe()
    with open(writing, "w", encoding="utf-8") as stream:
        unhurried = Unhurried(stream)
        os.close(reading)
        unhurried.write("anyone?\n")
        unhurried.settle()
        with pytest.raises(BrokenPipeError):
            unhurried.write("no\n")


def test_what_a_full_disk_does_not_take_is_lost_and_no_more() -> None:
    with open("/dev/full", "w", encoding="utf-8") as stream:
        unhurried = Unhurried(stream)
        for _ in range(3):
            unhurried.write("lost\n")
            unhurried.settle()


def test_what_has_no_descriptor_is_written_to_at_once() -> None:
    stream = io.StringIO()
    unhurried = Unhurried(stream)
    unhurried.write("ü\n")
    assert stream.getvalue() == "ü\n"


def test_what_the_encoding_lacks_is_escaped() -> None:
    reading, writing = os.pipe()
    with open(writing, "w", encoding="ascii") as stream:
        unhurried = Unhurried(stream)
        unhurried.write("ü\n")
        assert read(reading, "\n") == "\\xfc\n"
    os.close(reading)
