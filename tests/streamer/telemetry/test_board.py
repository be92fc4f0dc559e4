"""The board: counts shared between processes, which outlive whoever counted."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading

import pytest

from streamer.drops import COUNTED, Drop
from streamer.errors import SlabError
from streamer.status import Count
from streamer.telemetry.board import Board

NODES, LINKS = ("source", "sink"), ("source->sink", "source->sink:audio")

COUNTER = """
import os, sys, time
from streamer.drops import Drop
from streamer.telemetry.board import Board
board = Board({nodes}, {links}, fd=int(sys.argv[1]))
board.nodes["sink"].delivered.add(41)
board.nodes["sink"].delivered.add()
board.nodes["sink"].dropped[Drop.RATE].add(7)
board.nodes["sink"].age.add_ns(5_000_000)
board.links["source->sink"].offered.add(3)
board.links["source->sink"].hop.add_ns(100_000)
print("counted", flush=True)
time.sleep(600)
"""


def test_counts_outlive_the_process_that_counted() -> None:
    fd = Board.share(NODES, LINKS)
    board = Board(NODES, LINKS, fd=fd)
    code = COUNTER.format(nodes=NODES, links=LINKS)
    with subprocess.Popen(
        [sys.executable, "-c", code, str(fd)], stdout=subprocess.PIPE, pass_fds=(fd,)
    ) as counter:
        assert counter.stdout is not None
        assert counter.stdout.readline() == b"counted\n"
        counter.send_signal(signal.SIGKILL)
    os.close(fd)  # the mapping is enough
    sink, link = board.nodes["sink"], board.links["source->sink"]
    assert sink.delivered.value == 42
    assert sink.dropped[Drop.RATE].value == 7
    assert sink.age.percentiles_us(50)[0] == pytest.approx(5000, rel=0.01)
    assert (link.offered.value, link.hop.count) == (3, 1)


def test_every_cell_has_a_place_of_its_own() -> None:
    board = Board(NODES, LINKS)
    cells = {}
    for name, node in board.nodes.items():
        plain = {key: cell for key, cell in vars(node).items() if hasattr(cell, "add")}
        assert {"captured", "received", "emitted", "delivered", "copies", "packets"} <= set(plain)
        cells |= {(name, key): cell for key, cell in plain.items()}
        cells |= {(name, str(reason)): cell for reason, cell in node.dropped.items()}
        assert set(node.dropped) == set(COUNTED)
    for key, link in board.links.items():
        cells |= {(key, "offered"): link.offered, (key, "received"): link.received}
        cells |= {(key, str(reason)): cell for reason, cell in link.dropped.items()}
    for number, cell in enumerate(cells.values(), start=1):
        cell.set(number)
    for node in board.nodes.values():
        node.process.add_ns(0)
        node.age.add_ns(10**18)
    for link in board.links.values():
        link.hop.add_ns(0)
        link.hop.add_ns(10**18)
    assert [cell.value for cell in cells.values()] == list(range(1, len(cells) + 1))
    assert all(node.process.count == node.age.count == 1 for node in board.nodes.values())
    assert all(link.hop.count == 2 for link in board.links.values())


def test_threads_of_a_worker_may_count_in_one_cell() -> None:
    cell = Board(("n",), ()).nodes["n"].delivered
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        threads = [
            threading.Thread(target=lambda: [cell.add() for _ in range(5000)]) for _ in range(4)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(before)
    assert cell.value == 20_000


def test_memory_that_cannot_be_had_is_said() -> None:
    # In a process of its own: a limit on descriptors cannot be raised again.
    code = (
        "import resource\n"
        "from streamer.telemetry.board import Board\n"
        "from streamer.errors import SlabError\n"
        "resource.setrlimit(resource.RLIMIT_NOFILE, (3, 3))\n"
        "try:\n    Board.share(['n'], [])\n"
        "except SlabError as error:\n    print(error)\n"
    )
    said = subprocess.check_output([sys.executable, "-c", code], text=True)
    assert said == "no shared memory for counters: Too many open files\n"
    assert issubclass(SlabError, Exception)


def test_passing_pictures_on_is_no_work() -> None:
    node = Board(["style"], []).nodes["style"]
    node.emitted.add(3)
    node.counts[Count.PASSED].add(3)
    assert not node.worked
    node.emitted.add()
    assert node.worked
    node.delivered.add()
    assert node.worked
