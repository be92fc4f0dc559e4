from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from streamer import Graph, __version__
from streamer.cli import COMMANDS, main
from streamer.cli.check import summary

ROOT = Path(__file__).parents[3]
CONFIGS = sorted((ROOT / "configs").glob("*.yaml"))
BAD = """\
version: 1
nodes:
  source: {uses: decodr, with: {url: "rtsp://me:hunter2@h/"}}
  sink: {uses: encoder, from: sorce, with: {url: 5}}
"""


def streamer(*arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "streamer", *arguments],
        capture_output=True,
        text=True,
        env={**os.environ, "COLUMNS": "100", **environ},
        timeout=60,
    )


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_configs_have_no_mistake(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", str(path)]) == 0
    said = capsys.readouterr()
    assert said.out.startswith(f"{path.stem}: ")
    assert said.out.count("\n") == 1
    assert said.err == ""


def test_the_quickstart_has_the_nodes_that_its_readers_were_promised() -> None:
    graph = Graph.load(ROOT / "configs" / "quickstart.yaml", environ={})
    assert list(graph.nodes) == ["source", "prepare", "style", "sink"]
    assert (
        summary(graph) == "quickstart: 4 nodes, 3 links and sound, 4 workers; no picture is dropped"
    )


def test_live_graphs_say_so() -> None:
    graph = Graph.load(ROOT / "configs" / "webcam-to-obs.yaml", environ={})
    assert summary(graph).endswith("3 workers; live: the newest picture wins")


def test_the_password_of_a_camera_comes_from_the_environment() -> None:
    path = ROOT / "configs" / "rtsp-to-obs.yaml"
    graph = Graph.load(path, environ={"RTSP_URL": "rtsp://u:p@h/x"})
    assert graph.nodes["camera"].params["url"] == "rtsp://u:p@h/x"
    assert "u:p" not in path.read_text("utf-8")


def test_overrides(capsys: pytest.CaptureFixture[str]) -> None:
    path = str(ROOT / "configs" / "quickstart.yaml")
    assert main(["check", path, "--set", "source.url=/dev/video0", "--set", "style.seed=1"]) == 0
    assert "live" in capsys.readouterr().out
    assert main(["check", path, "--set", "style.promt=oil"]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err == (
        "streamer: error: --set style.promt=oil: style.with.promt: sdxs has no such parameter; "
        "did you mean 'prompt'?\n"
    )


def test_mistakes_go_to_stderr_one_in_a_line(tmp_path: Path) -> None:
    path = tmp_path / "bad.yaml"
    path.write_text(BAD)
    done = streamer("check", str(path))
    assert done.returncode == 2
    assert done.stdout == ""
    lines = done.stderr.splitlines()
    assert lines[0] == "streamer: error: 3 mistakes"
    assert [line.split(": ")[0] for line in lines[1:]] == [
        f"{path}:{at}" for at in ("3:18", "4:31", "4:50")
    ]
    assert "hunter2" not in done.stderr


def test_one_mistake_is_one_line(tmp_path: Path) -> None:
    done = streamer("check", str(tmp_path / "none.yaml"))
    assert done.returncode == 2
    assert done.stderr == f"streamer: error: {tmp_path}/none.yaml: there is no such file\n"


def test_a_traceback_is_shown_when_asked_for(tmp_path: Path) -> None:
    done = streamer("check", str(tmp_path / "none.yaml"), STREAMER_DEBUG="1")
    assert done.returncode == 2
    assert "Traceback" in done.stderr
    assert "GraphError" in done.stderr


def test_check_imports_nothing_heavy() -> None:
    code = (
        "import sys; from streamer.cli import main; "
        f"status = main(['check', {str(ROOT / 'configs' / 'three-styles.yaml')!r}]); "
        "heavy = {'torch', 'av', 'cv2', 'zmq', 'diffusers', 'transformers', 'openvino'}; "
        "sys.exit(' '.join(sorted(heavy & set(sys.modules))) or status)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"streamer {__version__}\n"


def test_help_lists_every_command_without_loading_any() -> None:
    code = (
        "import sys; from streamer.cli import main; status = main(['--help']); "
        "loaded = [name for name in sys.modules if name.startswith('streamer.cli.')]; "
        "sys.exit(status or loaded != ['streamer.cli.application'])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    for command in COMMANDS:
        assert f"│ {command.name} " in done.stdout
        assert command.help in done.stdout


def test_an_unknown_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["chek", "x.yaml"]) == 2
    assert "No such command 'chek'" in capsys.readouterr().err


def test_a_command_that_cannot_be_loaded_breaks_no_other(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    broken = COMMANDS[0]._replace(name="broken", module="streamer.cli.absent")
    monkeypatch.setattr("streamer.cli.COMMANDS", (broken, *COMMANDS))
    assert main(["broken"]) == 1
    assert capsys.readouterr().err.startswith(
        "streamer: error: the command 'broken' cannot be loaded: No module named"
    )
    assert main(["check", str(CONFIGS[0])]) == 0


def test_a_defect_is_one_line_too(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fails(path: object, **_: object) -> None:
        raise KeyError("rtsp://u:hunter2@h/")

    monkeypatch.setattr("streamer.graph.graph.Graph.load", fails)
    assert main(["check", "x.yaml"]) == 1
    said = capsys.readouterr().err
    assert said.startswith("streamer: error: a defect of streamer: KeyError: 'rtsp://***@h/'")
    assert said.count("\n") == 1
