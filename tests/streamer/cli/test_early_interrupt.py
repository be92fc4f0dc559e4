"""Ctrl-C while the program is still being loaded."""

from __future__ import annotations

import signal
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
# Does what the console script does, and presses Ctrl-C at the moment at which a module is asked
# for. The console script itself may be of a former installation.
PROGRAM = """
import os, re, signal, sys

class Impatient:
    def find_spec(self, name, path=None, target=None):
        if name == asked:
            os.kill(os.getpid(), signal.SIGINT)

asked = sys.argv.pop(1)
sys.meta_path.insert(0, Impatient())
from {module} import {function}
sys.exit({function}())
"""
GRAPH = """
version: 1
nodes:
  source: {uses: decoder, with: {url: "demo:"}}
  sink: {uses: encoder, from: source, with: {url: "null:"}}
"""


def pressed(tmp_path: Path, asked: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    (tmp_path / "graph.yaml").write_text(GRAPH)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    module, _, function = project["project"]["scripts"]["streamer"].partition(":")
    program = PROGRAM.format(module=module, function=function)
    return subprocess.run(
        [sys.executable, "-c", program, asked, *arguments],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        # Whoever runs the tests may ignore it, as a shell does for what it runs behind.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )


EARLY = ("contextlib", "streamer.cli", "streamer.errors", "streamer.masking", "typer")
COMMANDS = {
    "check": (["graph.yaml"], ("streamer.cli.check", "streamer.graph", "yaml", "nodes.decoder")),
    "graph": (["graph.yaml"], ("streamer.graph.render",)),
    "run": (
        ["graph.yaml"],
        ("streamer.cli.running", "rich.live", "streamer.runtime.supervisor", "zmq"),
    ),
    "style": (["demo:", "out.mp4"], ("streamer.cli.style", "nodes.sdxs.params")),
}
MOMENTS = [("check", module) for module in EARLY]
MOMENTS += [(name, module) for name, (_, modules) in COMMANDS.items() for module in modules]


@pytest.mark.parametrize(("command", "module"), MOMENTS)
def test_ctrl_c_while_a_module_is_loaded_ends_without_a_word(
    tmp_path: Path, command: str, module: str
) -> None:
    done = pressed(tmp_path, module, command, *COMMANDS[command][0])

    assert done.returncode in (-signal.SIGINT, 128 + signal.SIGINT), done
    assert (done.stdout, done.stderr) == ("", "")


def test_the_moments_are_such_that_come(tmp_path: Path) -> None:
    done = pressed(tmp_path, "never.asked.for", "check", "graph.yaml")

    assert done.returncode == 0, done
