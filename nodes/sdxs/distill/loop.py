"""The loop that every stage runs in: resumable, logged, averaged, accumulated, in mixed precision.

A stage says what a loss is; everything that is the same for all of them is here.
"""

from __future__ import annotations

import csv
import math
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.optim import Optimizer

from nodes.sdxs.distill.machines import Machines, computes_in_bfloat16
from nodes.sdxs.distill.optimisers import optimisers
from nodes.sdxs.distill.settings import Stage

FILE = "checkpoint.safetensors"
CURVE = "curve.csv"


def rate(step: int, *, steps: int, peak: float, warm_up: int) -> float:
    """The learning rate: linear warm-up, then a half cosine down to 2 % of the peak."""
    if step < warm_up:
        return peak * (step + 1) / warm_up
    part = min((step - warm_up) / max(steps - warm_up, 1), 1.0)
    return peak * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * part)))


class Average:
    """An exponential moving average of a network's weights: steadier than the last step's."""

    def __init__(self, network: nn.Module, *, decay: float) -> None:
        self.decay = decay
        self.weights = {key: value.detach().clone() for key, value in network.state_dict().items()}

    @torch.no_grad()
    def update(self, network: nn.Module, step: int) -> None:
        """Moves towards the network's weights, faster at the beginning."""
        decay = min(self.decay, (step + 1) / (step + 10))
        for key, value in network.state_dict().items():
            if value.is_floating_point():
                self.weights[key].lerp_(value, 1 - decay)
            else:
                self.weights[key].copy_(value)


class Loop:
    """One stage's training.

        loop = Loop(folder, settings, networks={"student": student}, averaged=("student",))
        for step in loop:
            for _ in loop.parts():
                with loop.precision():
                    error = ...
                loop.backward(error)
            loop.update("student", loss=error)

    Args:
        folder: The stage's own; made if it is not there.
        settings: Of the stage.
        networks: Everything that is saved, by name.
        averaged: Which of them are averaged.
        trained: The parameters that each optimiser changes, by its name; those of the networks
            that ask for gradients where left out.
        machines: The processes that train together; this one alone where left out.
        form: What its networks predict, where that might have been another thing: kept in the
            checkpoint, and one that says another or nothing is refused.
        report: Called with (step, steps, values) after each logged step.
        kept: Called with the loop after each checkpoint, by the process that wrote it.
    """

    def __init__(
        self,
        folder: Path,
        settings: Stage,
        *,
        networks: Mapping[str, nn.Module],
        averaged: Iterable[str] = (),
        trained: Mapping[str, Iterable[nn.Parameter]] | None = None,
        machines: Machines | None = None,
        form: str | None = None,
        report: Callable[[int, int, dict[str, float]], None] | None = None,
        kept: Callable[[Loop], None] | None = None,
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.settings = settings
        self.networks = dict(networks)
        self.machines = machines
        self.form = form
        self.device = torch.device("cpu") if machines is None else machines.device
        self._report = report
        self._kept = kept
        chosen = trained or {name: one.parameters() for name, one in networks.items()}
        if strange := sorted(set(settings.rates) - set(chosen)):
            raise ValueError(
                f"{folder.name}.rates names {', '.join(strange)}; the optimisers of this stage are "
                f"{', '.join(chosen)}"
            )
        self.optimisers = {
            name: optimisers(parameters, settings) for name, parameters in chosen.items()
        }
        self.averages = {
            name: Average(self.networks[name], decay=settings.average) for name in averaged
        }
        self.step = 0
        self._sums: dict[str, float] = {}
        self._counts: dict[str, int] = {}
        self._resume()
        if machines is not None:
            machines.agree(self.step, where=folder)
            machines.same(self.networks.values())

    @property
    def first(self) -> bool:
        """Whether this process writes logs and checkpoints."""
        return self.machines is None or self.machines.first

    def __iter__(self) -> Iterator[int]:
        started, first = time.monotonic(), self.step
        while self.step < self.settings.steps:
            yield self.step
            self.step += 1
            for name, average in self.averages.items():
                average.update(self.networks[name], self.step - 1)
            steps = self.settings.steps
            if not self.first:
                continue
            if self.step % self.settings.log_every == 0 or self.step == steps:
                pace = (time.monotonic() - started) / (self.step - first)
                self._log(pace)
            if self.step % self.settings.keep_every == 0 or self.step == steps:
                self.save()
                if self._kept is not None:
                    self._kept(self)
        if self.machines is not None:
            self.machines.wait()

    def parts(self) -> Iterator[int]:
        """The batches whose gradients add up to one step."""
        yield from range(self.settings.accumulate)

    def precision(self) -> AbstractContextManager[Any]:
        """Mixed precision, if the stage asks for it."""
        kind = self.settings.precision
        mixed = kind == "bfloat16" or (kind == "auto" and computes_in_bfloat16(self.device))
        return torch.autocast(self.device.type, torch.bfloat16, enabled=mixed)

    def backward(self, error: Tensor) -> None:
        """Adds a part's gradients."""
        (error / self.settings.accumulate).backward()  # type: ignore[no-untyped-call]

    def update(self, name: str, **values: Tensor | float) -> None:
        """Changes the weights of one name, clears their gradients, and notes `values` for the log.

        Raises:
            FloatingPointError: The gradients are not finite; nothing was changed.
        """
        together = self.optimisers[name]
        settings = self.settings
        pace = rate(self.step, steps=settings.steps, peak=settings.rate, warm_up=settings.warm_up)
        factor = settings.rates.get(name, 1.0)
        groups = [group for optimiser in together for group in optimiser.param_groups]
        parameters = [one for group in groups for one in group["params"]]
        if self.machines is not None:
            self.machines.average(parameters)
        size = nn.utils.clip_grad_norm_(parameters, settings.clip)
        if not torch.isfinite(size):
            raise FloatingPointError(
                f"{self.folder.name}: the gradients of {name} are not finite at step {self.step}; "
                "lower the stage's rate, or set precision: float32"
            )
        for group in groups:
            group["lr"] = pace * factor
        for optimiser in together:
            optimiser.step()
            optimiser.zero_grad(set_to_none=True)
        self.note(**values)

    def note(self, **values: Tensor | float) -> None:
        """Values for the next line of the log, which shows their means."""
        for key, value in values.items():
            self._sums[key] = self._sums.get(key, 0.0) + float(value)
            self._counts[key] = self._counts.get(key, 0) + 1

    def averaged(self, name: str) -> dict[str, Tensor]:
        """The averaged weights of a network."""
        return self.averages[name].weights

    def save(self) -> None:
        """Writes everything that is needed to go on, in one file, whole or not at all."""
        tensors: dict[str, Tensor] = {}
        for name, network in self.networks.items():
            tensors |= {f"network.{name}.{key}": one for key, one in network.state_dict().items()}
        for name, average in self.averages.items():
            tensors |= {f"average.{name}.{key}": one for key, one in average.weights.items()}
        for prefix, optimiser in self._prefixed():
            for index, state in optimiser.state_dict()["state"].items():
                for key, value in state.items():
                    tensors[f"{prefix}{index}.{key}"] = torch.as_tensor(value)
        path = self.folder / FILE
        partial = path.with_suffix(".partial")
        # Copies are made in the CPU's memory: a GPU that trains has no room for a second of each.
        kept = {key: one.detach().contiguous().to("cpu", copy=True) for key, one in tensors.items()}
        metadata = {
            "step": str(self.step),
            "steps": str(self.settings.steps),
            **({} if self.form is None else {"form": self.form}),
        }
        try:
            save_file(kept, partial, metadata=metadata)
            with partial.open("rb+") as file:
                os.fsync(file.fileno())
            partial.replace(path)
        except (OSError, SafetensorError) as error:
            partial.unlink(missing_ok=True)
            size = sum(one.nbytes for one in kept.values()) / 2**20
            raise OSError(
                f"the checkpoint of step {self.step} could not be written to {path} ({error}); it "
                f"takes {size:.0f} MiB beside the one before, which is kept: make room and start "
                "again"
            ) from error

    def _resume(self) -> None:
        path = self.folder / FILE
        if path.exists():
            tensors, self.step = read(path, form=self.form)
            try:
                self._restore(tensors)
            except (RuntimeError, ValueError, KeyError) as error:
                # torch names every tensor; the first line says of which network.
                raise ValueError(
                    f"{path} does not fit the settings of this stage "
                    f"({str(error).splitlines()[0].rstrip(':')}): give those that it was begun "
                    f"with, or move {self.folder} away, and it begins anew"
                ) from error
        if self.first:
            _trim(self.folder / CURVE, self.step)

    def _restore(self, tensors: Mapping[str, Tensor]) -> None:
        for name, network in self.networks.items():
            network.load_state_dict(part_of(tensors, f"network.{name}."))
        for name, average in self.averages.items():
            saved = part_of(tensors, f"average.{name}.")
            # Where the network is, which need not be where files are read to.
            average.weights = {
                key: saved[key].to(one.device) for key, one in average.weights.items()
            }
        names = tuple(f"optimiser.{name}." for name in self.optimisers)
        prefixes = tuple(prefix for prefix, _ in self._prefixed())
        if any(key.startswith(names) and not key.startswith(prefixes) for key in tensors):
            raise ValueError("it was trained with another optimiser")
        for prefix, optimiser in self._prefixed():
            state: dict[int, dict[str, Tensor]] = {}
            for key, tensor in part_of(tensors, prefix).items():
                index, what = key.split(".", 1)
                state.setdefault(int(index), {})[what] = tensor
            groups = optimiser.state_dict()["param_groups"]
            known = len(groups[0]["params"])
            if state and max(state) >= known:
                name = prefix.split(".")[1]
                raise ValueError(f"it has more weights than the {known} of the optimiser {name}")
            optimiser.load_state_dict({"state": state, "param_groups": groups})

    def _prefixed(self) -> Iterator[tuple[str, Optimizer]]:
        """All optimisers, each with what the names of its tensors begin with in a checkpoint."""
        for name, together in self.optimisers.items():
            for optimiser in together:
                yield f"optimiser.{name}.{type(optimiser).__name__.lower()}.", optimiser

    def _log(self, pace: float) -> None:
        values = {key: total / self._counts[key] for key, total in self._sums.items()}
        self._sums.clear()
        self._counts.clear()
        path = self.folder / CURVE
        new = not path.exists()
        with path.open("a", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            if new:
                writer.writerow(["step", "name", "value"])
            for name, value in {**values, "seconds": pace}.items():
                writer.writerow([self.step, name, f"{value:.6g}"])
        if self._report is not None:
            self._report(self.step, self.settings.steps, {"seconds a step": pace, **values})


def read(path: Path, *, form: str | None = None) -> tuple[dict[str, Tensor], int]:
    """A checkpoint's tensors, and the step that it was written after.

    Args:
        path: Of the checkpoint.
        form: What its networks have to predict; anything where left out.

    Raises:
        FileNotFoundError: It is not there: the stage has not run.
        ValueError: Its networks predict something else.
    """
    if not path.exists():
        raise FileNotFoundError(
            f"{path} is missing: run the stage {path.parent.name!r} before those that build on it"
        )
    with _opened(path) as file:
        names = file.keys()
        _check(path, file.metadata(), form)
        return {name: file.get_tensor(name) for name in names}, int(file.metadata()["step"])


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    # safetensors has no types.
    try:
        opened: Any = safe_open(path, framework="pt")
    except SafetensorError as error:
        raise ValueError(
            f"{path} is damaged or cut off ({error}): move it away, and the stage begins anew"
        ) from error
    with opened as file:
        if "step" not in (file.metadata() or {}):
            raise ValueError(f"{path} is no checkpoint of a stage: move it away")
        yield file


def _check(path: Path, metadata: Mapping[str, str], form: str | None) -> None:
    if form is not None and metadata.get("form") != form:
        raise ValueError(
            f"{path} holds networks that predict {metadata.get('form', 'something unsaid')}, "
            f"and this stage's predict {form}: move {path.parent} away, and it begins anew"
        )


def part_of(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The tensors whose names begin with `prefix`, without it."""
    return {key.removeprefix(prefix): one for key, one in tensors.items() if key.startswith(prefix)}


def result(folder: Path, name: str, *, form: str | None = None) -> dict[str, Tensor]:
    """What a finished stage hands on: a network's averaged weights, or its last ones.

    Raises:
        FileNotFoundError: The stage has not run.
        ValueError: Its networks predict something else than `form`.
    """
    tensors, _ = read(folder / FILE, form=form)
    return part_of(tensors, f"average.{name}.") or part_of(tensors, f"network.{name}.")


def finished(folder: Path, steps: int, *, form: str | None = None) -> bool:
    """Whether a stage has run to its last step.

    Raises:
        ValueError: It has begun, but its networks predict something else than `form`.
    """
    path = folder / FILE
    if not path.exists():
        return False
    with _opened(path) as file:
        _check(path, file.metadata(), form)
        return int(file.metadata()["step"]) >= steps


def _trim(curve: Path, step: int) -> None:
    """Takes out of a curve what came after the checkpoint, for it will be logged again."""
    if not curve.exists():
        return
    with curve.open(newline="", encoding="utf-8") as file:
        head, *rows = list(csv.reader(file)) or [[]]
    # A line that was cut off in the middle goes, too.
    kept = [row for row in rows if len(row) == 3 and row[0].isdecimal() and int(row[0]) <= step]
    if len(kept) == len(rows):
        return
    partial = curve.with_suffix(".partial")
    with partial.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([head, *kept])
    partial.replace(curve)
