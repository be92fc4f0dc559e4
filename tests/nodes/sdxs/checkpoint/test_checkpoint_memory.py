"""Memory that a model needs and does not get: refused before it is taken, or in words where not."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from nodes.sdxs import loading
from nodes.sdxs.checkpoint import parts
from nodes.sdxs.checkpoint.layouts import LAYOUTS
from nodes.sdxs.checkpoint.memory import Budget, available_bytes, in_words

CPU = torch.device("cpu")
MIB = 2**20


def machine(folder: Path, *, available: int, groups: str = "", **files: str) -> Path:
    """Files as Linux has them, for a process without limits of its own."""
    (folder / "proc/self").mkdir(parents=True)
    (folder / "proc/meminfo").write_text(
        f"MemTotal: {available // 512} kB\nMemAvailable:  {available // 1024} kB\n"
    )
    (folder / "proc/self/statm").write_text("100 50 20 10 0 40 0\n")
    (folder / "proc/self/cgroup").write_text(groups)
    for name, text in files.items():
        path = folder / "sys/fs/cgroup" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder


def group(name: str, limit: str, used: int, stat: str) -> dict[str, str]:
    return {
        f"{name}/memory.max": limit,
        f"{name}/memory.current": str(used),
        f"{name}/memory.stat": stat,
    }


def test_what_is_left_is_the_least_of_machine_and_groups(tmp_path: Path) -> None:
    assert available_bytes(CPU, root=machine(tmp_path / "a", available=900 * MIB)) == 900 * MIB
    stat = f"anon 1\ninactive_file {50 * MIB}\n"
    files = group(".", f"{600 * MIB}\n", 300 * MIB, stat) | group("box/app", "max\n", 1, stat)
    root = machine(tmp_path / "b", available=900 * MIB, groups="0::/box/app\n", **files)
    assert available_bytes(CPU, root=root) == 350 * MIB
    files |= group("box", f"{400 * MIB}\n", 390 * MIB, "inactive_file 0\n")
    root = machine(tmp_path / "c", available=900 * MIB, groups="0::/box/app\n", **files)
    assert available_bytes(CPU, root=root) == 10 * MIB
    old = {
        "memory/box/memory.limit_in_bytes": f"{200 * MIB}",
        "memory/box/memory.usage_in_bytes": f"{300 * MIB}",
        "memory/box/memory.stat": f"total_inactive_file {150 * MIB}\ninactive_file 7\n",
    }
    root = machine(tmp_path / "d", available=MIB * 900, groups="3:cpu:/\n4:memory:/box\n", **old)
    assert available_bytes(CPU, root=root) == 50 * MIB


def test_of_this_machine_something_is_left() -> None:
    assert MIB < available_bytes(CPU) < 2**50


def test_a_network_beyond_the_budget_is_refused_with_both_numbers() -> None:
    unet = parts.build("UNet2DConditionModel", LAYOUTS["sdxs-512-dreamshaper"].unet)
    budget = Budget(CPU, torch.float32, what="model m")
    budget.take(parts.build("AutoencoderTiny", LAYOUTS["tiny"].vae), "decoder")

    def take_them_all() -> None:
        for _ in range(10_000):
            budget.take(unet, "ControlNet")  # on the meta device: none of it is taken

    with pytest.raises(MemoryError) as caught:
        take_them_all()
    said = str(caught.value)
    assert said.startswith("the ControlNet of model m takes 1.2 GiB beside ")
    assert said.endswith(" are left")


@pytest.mark.parametrize(
    "said",
    [
        "CUDA error: out of memory\nCUDA kernel errors might be asynchronously reported",
        "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`",
        "captures_underway.empty() INTERNAL ASSERT FAILED at CUDACachingAllocator.cpp",
    ],
)
def test_a_gpus_ways_of_running_out_of_memory_are_one_error(said: str) -> None:
    with pytest.raises(MemoryError, match=r"^no memory for it$"), in_words("no memory for it"):
        raise RuntimeError(said)


def test_memory_is_given_back_or_kept_where_a_picture_is_being_recorded(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    said = ["captures_underway.empty() INTERNAL ASSERT FAILED", "an illegal memory access"]

    def empty_cache() -> None:
        raise RuntimeError(said.pop(0))

    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.cuda, "empty_cache", empty_cache)
    loading.give_back()
    with pytest.raises(RuntimeError, match="illegal memory access"):
        loading.give_back()


def test_errors_that_are_not_of_memory_stay_what_they_are() -> None:
    with pytest.raises(RuntimeError, match="size of tensor"), in_words("memory"):
        torch.zeros(2) + torch.zeros(3)
    with pytest.raises(FileNotFoundError), in_words("memory"):
        Path("/nowhere").read_text()


LIMITED = """
import resource, sys
import torch
from nodes.sdxs import OneStep
from nodes.sdxs.checkpoint import parts
from nodes.sdxs.checkpoint.memory import in_words
from nodes.sdxs.names import ModelName

def resident():
    return int(open("/proc/self/statm").read().split()[1]) * resource.getpagesize() >> 20

engine = OneStep.load("random:tiny", threads=1)
engine.warm_up(64, 64)
used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + (400 << 20), -1))
before = resident()
try:
    OneStep.load("random:sdxs-512-dreamshaper", threads=1)
except MemoryError as error:
    print(error)
print(resident() - before)
# Nobody asks before: the allocation itself fails, half way.
try:
    with in_words("ran out"):
        parts.load(ModelName.parse("random:sdxs-512-dreamshaper"), vae="tiny")
except MemoryError as error:
    print(error, "|", str(error.__cause__).splitlines()[0][:300])
engine.warm_up(64, 64)
print("paints")
"""


def test_a_process_at_its_limit_refuses_and_goes_on() -> None:
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", LIMITED], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-2000:]
    refused, kept, failed, paints = done.stdout.splitlines()
    said = "the U-Net of model random:sdxs-512-dreamshaper takes 1.2 GiB, and "
    assert re.fullmatch(rf"{said}\d{{3}} MiB are left", refused)
    assert int(kept) < 50  # MiB
    assert failed.startswith("ran out | ")
    assert "allocate memory" in failed
    assert paints == "paints"
