"""`streamer doctor`: what it says agrees with what the machine does."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from streamer.cli import main
from streamer.doctor import (
    Finding,
    Status,
    encoders,
    examination,
    examine,
    sharing,
    video_devices,
    worst,
)


@pytest.fixture(scope="module")
def findings() -> dict[str, Finding]:
    return {finding.name: finding for finding in examine()}


def test_everything_essential_works_where_the_tests_run(findings):
    assert [f for f in findings.values() if f.status is Status.FAIL] == []
    for name in ("libx264", "aac", "sealed memory (memfd)", "sockets (ZeroMQ ipc)", "torch"):
        assert findings[name].status is Status.OK
    assert "a second process" in findings["between processes (/proc/PID/fd)"].detail


def test_all_areas_are_looked_at_and_nothing_essential_lacks_advice(findings):
    areas = {finding.area for finding in findings.values()}
    assert areas == {"Versions", "Encode", "Decode", "See", "Share", "Disk"}
    for finding in findings.values():
        assert finding.detail
        assert (finding.status is Status.OK) == (not finding.advice), finding


def test_versions_are_the_installed_ones(findings):
    import av
    import torch

    assert findings["torch"].detail.startswith(torch.__version__)
    assert findings["av"].detail == f"{av.__version__}, FFmpeg {av.ffmpeg_version_info}"


@pytest.mark.skipif(os.path.exists("/dev/nvidia0"), reason="this machine has a GPU")
def test_a_missing_gpu_is_a_warning_with_advice(findings):
    assert findings["GPU"].status is Status.WARN
    assert findings["h264_nvenc"].status is Status.WARN
    assert "NVIDIA" in findings["h264_nvenc"].advice


def test_encoders_are_really_tried(monkeypatch):
    made = encoders._Encoder("no_such_encoder", "nothing", Status.FAIL, "install it")
    monkeypatch.setattr(encoders, "_VIDEO", (made,))
    found = next(encoders.look())
    assert (found.status, found.advice) == (Status.FAIL, "install it")
    assert "does not open" in found.detail


def test_an_area_that_breaks_hides_no_other(monkeypatch):
    areas = (("Odd", "streamer.doctor.no_such_module"), ("Disk", "streamer.doctor.disk"))
    monkeypatch.setattr(examination, "_AREAS", areas)
    seen: list[str] = []
    found = examine(progress=seen.append)
    assert seen == ["Odd", "Disk"]
    assert found[0].status is Status.FAIL
    assert "ModuleNotFoundError" in found[0].detail
    assert {f.name for f in found[1:]} == {"recordings", "temporary files", "models"}
    assert worst(found) is Status.FAIL


def test_worst_of_nothing_is_ok():
    assert worst([]) is Status.OK


def test_video_devices_are_named(tmp_path):
    names, devices = tmp_path / "class", tmp_path / "dev"
    for number in (10, 2):
        (names / f"video{number}").mkdir(parents=True)
        (names / f"video{number}" / "name").write_text(f"Camera {number}\n")
    devices.mkdir()
    (devices / "video2").write_text("")  # a file that is no device
    found = list(video_devices.look(names=names, devices=devices))
    assert [Path(f.name).name for f in found] == ["video2", "video10", "cameras", "virtual cameras"]
    assert found[0].detail.startswith("Camera 2: cannot be opened")
    assert "--device" in found[1].advice
    assert "v4l2loopback" in found[3].advice


def test_memory_limit_of_a_container(tmp_path):
    (tmp_path / "memory.max").write_text("1000\n")
    (tmp_path / "memory.current").write_text("400\n")
    assert sharing._cgroup_left(tmp_path) == 600
    (tmp_path / "memory.max").write_text("max\n")
    assert sharing._cgroup_left(tmp_path) is None
    assert sharing._cgroup_left(tmp_path / "none") is None


def test_table_and_exit_status(capsys):
    assert main(["doctor"]) == 0
    shown = capsys.readouterr().out
    assert "libx264" in shown
    assert "streamer works here" in shown or "everything works here" in shown


def test_json(capsys):
    assert main(["doctor", "--json"]) == 0
    data = json.loads(capsys.readouterr().out)
    assert data["status"] in ("ok", "warn")
    assert {"area", "name", "status", "detail", "advice"} == set(data["findings"][0])


def test_exit_status_1_where_something_essential_fails(monkeypatch, capsys):
    monkeypatch.setattr(examination, "_AREAS", (("Odd", "streamer.doctor.no_such_module"),))
    assert main(["doctor"]) == 1
    assert "1 essential" in capsys.readouterr().out


def test_it_knows_nothing_of_nodes_and_prints_nothing_of_its_own():
    code = (
        "import sys\n"
        "from streamer.doctor import examine\n"
        "examine()\n"
        "assert not [name for name in sys.modules if name.split('.')[0] == 'nodes']\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout == ""
    assert "Svt" not in done.stderr
