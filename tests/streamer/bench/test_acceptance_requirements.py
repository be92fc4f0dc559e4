"""What the acceptance needs on a machine: packages, metadata of the checkout, tests."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, distributions, entry_points
from pathlib import Path

import pytest

from streamer.bench.acceptance import checkout, machine, requirements, selftests
from streamer.bench.acceptance.requirements import ROOT


def without(monkeypatch: pytest.MonkeyPatch, **versions: str | None) -> None:
    """Has packages be of other versions, or not there."""
    known = {name.replace("_", "-"): found for name, found in versions.items()}
    real = requirements.version

    def version(name: str) -> str:
        if name not in known:
            return real(name)
        found = known[name]
        if found is None:
            raise PackageNotFoundError(name)
        return found

    monkeypatch.setattr(requirements, "version", version)


def test_nothing_is_missing_for_a_trial_where_all_is_installed() -> None:
    assert requirements.missing(fake=True) == []


def test_all_that_is_missing_or_too_old_is_named_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    without(monkeypatch, pyzmq=None, av="17.9", diffusers=None, tokenizers=None)
    lowest = requirements.lowest_versions()
    found = requirements.missing(fake=True)
    assert found == [
        f"Python package pyzmq: pip install 'pyzmq>={lowest['pyzmq']}', or --wheels DIR with its "
        "wheel",
        f"Python package av 17.9 is too old: pip install 'av>={lowest['av']}'",
        f"Python package diffusers: pip install 'diffusers>={lowest['diffusers']}', or --wheels "
        "DIR with its wheel",
        "Python package tokenizers, which transformers needs: pip install tokenizers, or --wheels "
        "DIR with its wheel",
    ]


def test_another_build_of_opencv_will_do(monkeypatch: pytest.MonkeyPatch) -> None:
    without(monkeypatch, opencv_python_headless=None, opencv_python="4.12.0")
    assert requirements.missing(fake=True) == []
    without(monkeypatch, opencv_python_headless=None, opencv_python="4.9")
    assert "opencv-python-headless 4.9 is too old" in requirements.missing(fake=True)[0]


@pytest.mark.parametrize(
    ("found", "lowest", "lower"),
    [
        ("2.11.0+cu130", "2.11", False),
        ("2.9.1", "2.11", True),
        ("18.0", "18.0.1", True),
        ("19.0.0rc1", "18.0", False),
        ("14.2.0", "14.2", False),
        ("1.0", "", False),
    ],
)
def test_versions_are_compared_by_their_numbers(found: str, lowest: str, lower: bool) -> None:
    assert requirements.is_lower(found, lowest) is lower


def test_wheels_are_wanted_for_what_is_missing_or_too_old(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("pyzmq-27.3.0-cp312-abi3-linux", "typing_extensions-4.15.0-py3-none-any",
                 "Made_Up-1.0-py3-none-any", "av-18.1.0-cp311-abi3-linux"):  # fmt: skip
        (tmp_path / f"{name}.whl").touch()
    assert requirements.to_install(tmp_path) == ["made-up"]
    without(monkeypatch, av="17.0.0", pyzmq=None)
    assert requirements.to_install(tmp_path) == ["av", "made-up", "pyzmq"]


def test_a_checkout_says_what_installing_it_would_say(tmp_path: Path) -> None:
    command = [sys.executable, "-I", str(Path(checkout.__file__)), str(tmp_path)]
    subprocess.run(command, check=True)
    (made,) = distributions(path=[str(tmp_path)])
    assert made.metadata["Name"] == "sdxs-streamer"
    groups = {point.group for point in made.entry_points}
    assert {"streamer.nodes", "streamer.commands", "streamer.benches", "streamer.goals"} <= groups
    nodes = {point.name: point.value for point in made.entry_points.select(group="streamer.nodes")}
    installed = {point.name: point.value for point in entry_points(group="streamer.nodes")}
    assert nodes.items() <= installed.items()
    assert nodes["encoder"] == "nodes.encoder:Encoder"
    environment = {**os.environ, "PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}"}
    # Without the site's packages: nothing but the checkout is there.
    told = subprocess.check_output(
        [sys.executable, "-S", "-c",
         "from streamer import plugins; print(sorted(plugins.points('streamer.goals')))"],
        env=environment, text=True,
    )  # fmt: skip
    assert told == "['graph', 'link', 'model']\n"


def test_only_files_with_gpu_tests_are_run_there(tmp_path: Path) -> None:
    mark = "import pytest\npytestmark = pytest.mark." + "gpu\n"
    for name, text in (
        ("one/test_a.py", mark),
        ("one/test_b.py", "# nothing of the kind\n"),
        ("two/conftest.py", mark),
        ("two/test_c.py", ""),
        ("two/deep/test_d.py", mark),
        ("three/test_e.py", ""),
    ):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    assert selftests.gpu_tests(tmp_path) == [tmp_path / "one" / "test_a.py", tmp_path / "two"]
    found = selftests.gpu_tests(ROOT / "tests")
    assert ROOT / "tests" / "streamer" / "link" in found
    assert all(path.exists() for path in found)


def test_the_machine_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from streamer import gpu
    from streamer.gpu import simulated

    monkeypatch.setenv(gpu.SIMULATED, str(simulated.make(tmp_path / "gpu")))
    monkeypatch.setattr(gpu, "_devices", {})
    about = machine.describe(fake=True)
    assert about["GPU"].startswith("Simulated GPU GPU-")
    assert "torch" in about["packages"]
    assert "driver" not in about
    assert all(about[name] for name in ("system", "when", "commit"))


@pytest.mark.parametrize(
    ("body", "passed", "said"),
    [
        ("assert True", True, "1 passed"),
        ("assert 1 == 2", False, "1 failed"),
        ("import warnings; warnings.warn('old', DeprecationWarning)", True, "1 passed, 1 warning"),
        ("import time; time.sleep(1000)", False, "not done within 10 s"),
    ],
)
def test_tests_are_run_and_their_outcome_is_told(
    body: str, passed: bool, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "test_it.py"
    path.write_text(f"def test_it():\n    {body}\n")
    monkeypatch.setattr(selftests, "_SIMULATED", (str(path),))
    done = selftests.run(fake=True, seconds=10.0 if "sleep" in body else 300.0)
    assert done.passed is passed
    assert done.said.startswith(said)
    assert passed or "sleep" in body or "assert 1 == 2" in done.output
    assert passed or "test_it.py::test_it" in done.output  # the one that hangs, too


def test_a_file_that_cannot_be_imported_keeps_no_other_from_being_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, body in (("test_a", "import not_installed_here"), ("test_b", "def test_b(): pass")):
        (tmp_path / f"{name}.py").write_text(body + "\n")
    monkeypatch.setattr(selftests, "_SIMULATED", (str(tmp_path),))
    done = selftests.run(fake=True, seconds=300.0)
    assert not done.passed
    assert done.said.startswith("1 passed, 1 error")
    assert "not_installed_here" in done.output


def test_plugins_of_the_machine_are_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    info = tmp_path / "packages" / "broken_plugin-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: broken-plugin\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[pytest11]\nbroken = not_installed_here\n")
    monkeypatch.setenv("PYTHONPATH", str(info.parent))
    path = tmp_path / "test_it.py"
    path.write_text("def test_it():\n    pass\n")
    monkeypatch.setattr(selftests, "_SIMULATED", (str(path),))
    assert selftests.run(fake=True, seconds=300.0).passed


def test_files_are_run_in_processes_of_their_own_those_of_the_engine_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bodies = {
        "nodes/test_a.py": "import os, signal; os.kill(os.getpid(), signal.SIGKILL)",
        "nodes/test_b.py": "assert 3 == 4",
        "streamer/test_c.py": "print('first of all')",
    }
    marked = "import pytest\npytestmark = pytest.mark." + "gpu\n"
    for name, body in bodies.items():
        path = tmp_path / "tests" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{marked}def test_it():\n    {body}\n")
    (tmp_path / "pytest.ini").write_text("[pytest]\nmarkers = gpu: one\naddopts = -s\n")
    monkeypatch.setattr(selftests, "ROOT", tmp_path)
    log = tmp_path / "tests.log"
    done = selftests.run(fake=False, seconds=300.0, log=log)
    assert not done.passed
    died = tmp_path / "tests" / "nodes" / "test_a.py"
    assert done.said.startswith(f"the process of {died} ended with -9; 1 passed, 1 failed in ")
    assert "assert 3 == 4" in done.output
    assert "first of all" not in done.output  # where nothing failed
    said = log.read_text()
    assert said.index("first of all") < said.index("test_a.py::test_it") < said.index("3 == 4")
