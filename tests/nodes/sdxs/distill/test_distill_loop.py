"""What a loop does when something is wrong: with its disk, its checkpoint, its settings."""

from __future__ import annotations

import os
import resource
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from nodes.sdxs.distill.loop import CURVE, FILE, Average, Loop, finished, read, result
from nodes.sdxs.distill.lora import insert, merged
from nodes.sdxs.distill.settings import Stage


def looped(folder: Path, *, steps: int = 4, width: int = 4, **more: object) -> Loop:
    torch.manual_seed(0)
    settings = Stage.model_validate(
        {"steps": steps, "warm_up": 0, "precision": "float32", "keep_every": 2, "log_every": 1}
        | more
    )
    network = torch.nn.Linear(width, 1)
    loop = Loop(folder, settings, networks={"one": network}, averaged=("one",))
    for _ in loop:
        loop.backward(network(torch.ones(1, width)).sum())
        loop.update("one", loss=loop.step)
    return loop


@contextmanager
def largest_file(size: int) -> Iterator[None]:
    """As on a full disk: writing beyond `size` bytes of a file fails."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)


def test_a_checkpoint_that_cannot_be_written_leaves_the_one_before(tmp_path: Path) -> None:
    loop = looped(tmp_path)
    kept = (tmp_path / FILE).read_bytes()
    loop.step = 5
    wanted = r"the checkpoint of step 5 could not be written to .*takes 0 MiB .*make room and start"
    with largest_file(512), pytest.raises(OSError, match=wanted):
        loop.save()
    assert (tmp_path / FILE).read_bytes() == kept
    assert not list(tmp_path.glob("*.partial"))
    # There is room again.
    loop.save()
    assert read(tmp_path / FILE)[1] == 5


def test_a_checkpoint_that_was_cut_off_is_refused_in_a_sentence(tmp_path: Path) -> None:
    looped(tmp_path)
    whole = (tmp_path / FILE).read_bytes()
    for damaged in (whole[:-40], whole[:4], b"", b"\xff" * 64):
        (tmp_path / FILE).write_bytes(damaged)
        for attempt in (
            lambda: looped(tmp_path),
            lambda: finished(tmp_path, 4),
            lambda: result(tmp_path, "one"),
        ):
            with pytest.raises(ValueError, match=r"is damaged or cut off .*the stage begins anew"):
                attempt()
    save_file({"weight": torch.ones(1)}, tmp_path / FILE)
    with pytest.raises(ValueError, match="is no checkpoint of a stage"):
        finished(tmp_path, 4)


def test_a_checkpoint_of_other_settings_is_refused_in_a_sentence(tmp_path: Path) -> None:
    looped(tmp_path)
    with pytest.raises(ValueError, match=r"does not fit the settings of this stage .*Linear") as no:
        looped(tmp_path, width=5)
    assert "\n" not in str(no.value)
    # Another number of weights for an optimiser.
    network = torch.nn.Linear(4, 1)
    settings = Stage(steps=9)
    with pytest.raises(ValueError, match="more weights than the 1 of the optimiser one"):
        Loop(
            tmp_path,
            settings,
            networks={"one": network},
            averaged=("one",),
            trained={"one": [network.weight]},
        )


def test_muon_goes_on_where_it_was_and_not_where_adamw_was(tmp_path: Path) -> None:
    def trained(folder: Path, *, steps: int, optimiser: str = "muon") -> Loop:
        torch.manual_seed(0)
        network = torch.nn.Sequential(torch.nn.Linear(20, 16), torch.nn.Linear(16, 1))
        settings = Stage.model_validate(
            {"steps": steps, "warm_up": 99, "precision": "float32", "optimiser": optimiser}
        )
        loop = Loop(folder, settings, networks={"one": network})
        for step in loop:
            seen = torch.randn(4, 20, generator=torch.Generator().manual_seed(step))
            loop.backward(network(seen).square().mean())
            loop.update("one")
        return loop

    whole = trained(tmp_path / "whole", steps=6)
    trained(tmp_path / "parted", steps=3)
    parted = trained(tmp_path / "parted", steps=6)
    for name, weight in whole.networks["one"].state_dict().items():
        assert torch.equal(weight, parted.networks["one"].state_dict()[name])
    with pytest.raises(ValueError, match=r"does not fit the settings .*another optimiser"):
        trained(tmp_path / "parted", steps=9, optimiser="adamw")


def test_a_factor_for_no_optimiser_is_a_mistake(tmp_path: Path) -> None:
    wanted = "score.rates names onlin; the optimisers of this stage are one"
    with pytest.raises(ValueError, match=wanted):
        looped(tmp_path / "score", rates={"onlin": 4.0})
    assert looped(tmp_path / "score", rates={"one": 4.0}).step == 4


@pytest.mark.parametrize(
    ("precision", "facts", "mixed"),
    [
        ("auto", {"avx2": True, "avx512_bf16": False, "amx_bf16": False}, False),
        ("auto", {"avx512_bf16": True, "amx_bf16": False}, True),
        ("auto", {"neon": True, "bf16": True}, True),
        ("auto", {}, False),
        ("bfloat16", {"avx512_bf16": False}, True),
        ("float32", {"amx_bf16": True}, False),
    ],
)
def test_bfloat16_is_left_to_processors_that_compute_in_it(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    precision: str,
    facts: dict[str, bool],
    mixed: bool,
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: facts)
    loop = looped(tmp_path, precision=precision)
    with loop.precision():
        made = loop.networks["one"](torch.ones(1, 4))
    assert made.dtype == (torch.bfloat16 if mixed else torch.float32)
    assert loop.networks["one"].weight.dtype == torch.float32


def test_a_curve_says_each_step_once(tmp_path: Path) -> None:
    """Lines after the last checkpoint are of steps that will be done again."""
    looped(tmp_path)
    path = tmp_path / CURVE
    with path.open("a") as file:
        file.write("5,loss,77\n5,seconds,1\n6,lo")
    looped(tmp_path, steps=6)
    rows = [line.split(",") for line in path.read_text().splitlines()]
    assert rows[0] == ["step", "name", "value"]
    assert [row[0] for row in rows[1:] if row[1] == "loss"] == ["1", "2", "3", "4", "5", "6"]
    # A stage that begins anew has a curve of its own.
    (tmp_path / FILE).unlink()
    looped(tmp_path, steps=2)
    rows = [line.split(",") for line in path.read_text().splitlines()]
    assert [row[0] for row in rows[1:] if row[1] == "loss"] == ["1", "2"]


def test_what_is_kept_is_told_after_each_checkpoint(tmp_path: Path) -> None:
    told: list[int] = []
    network = torch.nn.Linear(1, 1)
    loop = Loop(
        tmp_path,
        Stage(steps=5, keep_every=2),
        networks={"one": network},
        kept=lambda loop: told.append(read(tmp_path / FILE)[1]),
    )
    for _ in loop:
        loop.backward(network(torch.ones(1, 1)).sum())
        loop.update("one")
    assert told == [2, 4, 5]


def test_averages_stay_where_their_network_is(tmp_path: Path) -> None:
    """Files are read into the CPU's memory; the meta device stands for a GPU."""
    looped(tmp_path)
    with torch.device("meta"):
        network = torch.nn.Linear(4, 1)
    loop = Loop.__new__(Loop)
    loop.networks, loop.optimisers = {}, {}
    loop.averages = {"one": Average(network, decay=0.5)}
    loop._restore(read(tmp_path / FILE)[0])
    assert {one.device.type for one in loop.averaged("one").values()} == {"meta"}


def test_a_lora_is_where_its_layer_is() -> None:
    with torch.device("meta"):
        network = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.Conv2d(2, 3, 3))
    added = insert(network, rank=2, where=lambda name: True)
    assert {one.device.type for one in added} == {"meta"}
    here = torch.nn.Sequential(torch.nn.Linear(3, 4))
    before = here[0].weight.detach().clone()
    added = insert(here, rank=2, where=lambda name: True)
    with torch.no_grad():
        added[1].normal_()
    plain = merged(here.state_dict())
    assert torch.allclose(plain["0.weight"], before + (added[1] @ added[0]))


TOGETHER = """
import sys
from pathlib import Path
import torch
from torch import nn
from nodes.sdxs.distill import machines as machines_module
from nodes.sdxs.distill.loop import Loop
from nodes.sdxs.distill.machines import Machines
from nodes.sdxs.distill.settings import Stage

# Weights and biases on their way separately.
machines_module.BUCKET = 2
machines = Machines()
assert machines.count == 2
machines.agree(7, where=Path("here"))
try:
    machines.agree(machines.rank, where=Path("there"))
except ValueError as error:
    assert "at different steps in there (0, 1): the folder must be one" in str(error)
else:
    raise SystemExit("nobody complained")
torch.manual_seed(machines.rank)
network = nn.Linear(3, 1)
settings = Stage(steps=3, rate=0.1, warm_up=0, precision="float32", average=0.5)
loop = Loop(
    Path(sys.argv[1]), settings, networks={"one": network}, averaged=("one",), machines=machines
)
for step in loop:
    loop.backward((network(torch.full((1, 3), float(machines.rank + step))) ** 2).mean())
    loop.update("one")
Path(sys.argv[1], f"rank{machines.rank}.txt").write_text(
    " ".join(f"{value:.6f}" for value in network.weight.flatten().tolist())
)
machines.wait()
machines.close()
"""


def test_two_processes_keep_the_same_weights(tmp_path: Path) -> None:
    script = tmp_path / "together.py"
    script.write_text(TOGETHER)
    environment = {
        **os.environ,
        "WORLD_SIZE": "2",
        "LOCAL_WORLD_SIZE": "2",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": "0",
        "ACCELERATE_USE_CPU": "true",
        "OMP_NUM_THREADS": "1",
    }
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        environment["MASTER_PORT"] = str(free.getsockname()[1])
    processes = [
        subprocess.Popen(
            [sys.executable, str(script), str(tmp_path)],
            env={**environment, "RANK": str(rank), "LOCAL_RANK": str(rank)},
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    for process in processes:
        _, words = process.communicate(timeout=180)
        assert process.returncode == 0, words
    first, second = ((tmp_path / f"rank{rank}.txt").read_text() for rank in range(2))
    assert first == second
    weights, step = read(tmp_path / FILE)
    assert step == 3
    kept = " ".join(f"{value:.6f}" for value in weights["network.one.weight"].flatten().tolist())
    assert kept == first
