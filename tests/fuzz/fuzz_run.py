"""Runs parsers under Atheris, each in a process of its own, and prints what was found.

    scripts/fuzz                          a million inputs for every parser
    scripts/fuzz --only link --inputs 1e5
    scripts/fuzz --blind                  without coverage: many times as fast, less deep
    scripts/fuzz --list

Inputs that led somewhere new are kept in a corpus outside of the repository and are the start of
the next run; what crashed or took long is kept beside them. Exit status 1 if anything did.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import re
import subprocess
import sys
import time
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fuzz_target import Target

SLOW = 1.0
"""seconds of processor time above which an input counts as a hang"""
_DONE = re.compile(r"stat::number_of_executed_units: (\d+)")
MOST_KEPT = 50
"""inputs that are kept of one parser's crashes"""
WARM_UP = 0.1
"""share of the inputs after which memory should not grow any more"""


def corpus_folder() -> Path:
    """Where inputs are kept between runs."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "streamer-fuzz"


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="scripts/fuzz", description=__doc__.partition("\n")[0])
    parser.add_argument("--inputs", type=float, default=1e6, help="of each parser (1e6)")
    parser.add_argument("--seconds", type=float, default=0, help="of each parser at most")
    parser.add_argument("--only", action="append", metavar="NAME", help="this parser; repeatable")
    parser.add_argument("--list", action="store_true", help="list the parsers")
    parser.add_argument("--blind", action="store_true", help="change inputs without coverage")
    parser.add_argument("--corpus", type=Path, default=corpus_folder(), help="%(default)s")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.worker:
        fuzz(options)
        return 0

    from fuzz_targets import TARGETS

    if options.list:
        for target in TARGETS.values():
            print(f"{target.name:16} {target.about}")
        return 0
    unknown = [name for name in options.only or () if name not in TARGETS]
    if unknown:
        parser.error(f"unknown parser {', '.join(unknown)}; known: {', '.join(TARGETS)}")
    print(f"{'parser':16}{'inputs':>10}{'inputs/s':>10}{'crashes':>9}{'hangs':>7}{'RSS +MiB':>10}")
    bad = False
    for name in options.only or TARGETS:
        found = run_worker(name, options)
        bad |= bool(found["crashes"] or found["hangs"])
        print(
            f"{name:16}{found['inputs']:>10}{found['rate']:>10.0f}{found['crashes']:>9}"
            f"{found['hangs']:>7}{found['growth']:>10.1f}",
            flush=True,
        )
        for line in found["said"]:
            print(f"  {line}", flush=True)
    if bad:
        print(f"what crashed or hung lies in {options.corpus}/NAME-found")
    return int(bad)


def run_worker(name: str, options: argparse.Namespace) -> dict[str, Any]:
    """One parser in a process of its own; a process that dies is a crash, too."""
    folder: Path = options.corpus / f"{name}-found"
    folder.mkdir(parents=True, exist_ok=True)
    result = folder / "result.json"
    result.unlink(missing_ok=True)
    command = [
        *(sys.executable, "-W", "error", __file__, "--worker", name),
        *("--inputs", str(options.inputs), "--seconds", str(options.seconds)),
        *("--corpus", str(options.corpus)),
        *(["--blind"] if options.blind else []),
    ]
    with (folder / "log").open("wb") as log:
        done = subprocess.run(command, stdout=log, stderr=log, stdin=subprocess.DEVNULL)
    empty = {"inputs": 0, "rate": 0.0, "crashes": 0, "hangs": 0, "growth": 0.0, "said": []}
    found: dict[str, Any] = {**empty, **(json.loads(result.read_text()) if result.exists() else {})}
    end = (folder / "log").read_text(errors="replace")[-20_000:]
    if units := _DONE.search(end):  # the process ends without another word
        found["inputs"] = int(units[1])
    if done.returncode or not result.exists():
        hung = "timeout" in end
        found["hangs" if hung else "crashes"] += 1
        found["said"].append(f"its process ended with {done.returncode}: see {folder / 'log'}")
    return found


class Watch:
    """Feeds inputs, counts, and keeps what crashed or took long.

    Args:
        run: feeds one input.
        folder: for what was found.
        inputs: how many there will be.
    """

    def __init__(self, run: Any, folder: Path, inputs: int) -> None:
        self.run, self.folder, self.inputs = run, folder, inputs
        self.count = self.hangs = 0
        self.crashes: dict[str, str] = {}
        self.warm_rss = 0.0
        self.due = 0.0
        self.began = time.monotonic()

    def __call__(self, data: bytes) -> None:
        self.count += 1
        if time.monotonic() > self.due:
            self.save()
        if self.count == max(1, int(self.inputs * WARM_UP)):
            self.warm_rss = rss_mib()
        began = time.process_time()
        try:
            self.run(data)
        except Exception as error:
            self.crash(error, data)
        if time.process_time() - began > SLOW:
            self.hangs += 1
            self.keep(f"slow-{self.hangs}", data)

    def crash(self, error: Exception, data: bytes) -> None:
        """Keeps the first input of each kind of error."""
        last = traceback.extract_tb(error.__traceback__)[-1]
        kind = f"{type(error).__name__} in {Path(last.filename).name}:{last.lineno}"
        if kind not in self.crashes:
            self.crashes[kind] = f"{kind}: {str(error)[:120]!r} for {data[:60]!r}"
            self.keep(f"crash-{len(self.crashes)}", data)

    def keep(self, name: str, data: bytes) -> None:
        if len(self.crashes) + self.hangs <= MOST_KEPT:
            (self.folder / name).write_bytes(data)

    def save(self) -> None:
        """Writes what is known so far; a parser that ends the process leaves that much."""
        seconds = time.monotonic() - self.began
        self.due = time.monotonic() + 1.0
        found = {
            "inputs": self.count,
            "rate": self.count / max(seconds, 1e-9),
            "crashes": len(self.crashes),
            "hangs": self.hangs,
            "growth": rss_mib() - self.warm_rss if self.warm_rss else 0.0,
            "said": list(self.crashes.values()),
        }
        part = self.folder / ".result.json"
        part.write_text(json.dumps(found))
        part.replace(self.folder / "result.json")


def rss_mib() -> float:
    """Resident memory of this process."""
    with open("/proc/self/statm", encoding="ascii") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20


def fuzz(options: argparse.Namespace) -> None:
    """Fuzzes one parser; ends the process where it is led by coverage."""
    name, inputs = options.worker, int(options.inputs)
    from fuzz_targets import TARGETS

    target = TARGETS[name]
    folder: Path = options.corpus / f"{name}-found"
    kept: Path = options.corpus / name
    kept.mkdir(parents=True, exist_ok=True)
    for number, seed in enumerate(target.seeds()):
        (kept / f"seed-{number}").write_bytes(seed)
    if options.blind:
        change_blindly(Watch(target.make(), folder, inputs), target, kept, options.seconds)
        return
    import atheris

    # Torch and the like are too large to be looked into; C and Rust are not seen at all.
    looked = ["streamer", "nodes", *(["yaml"] if target.looks_into_yaml else [])]
    with atheris.instrument_imports(include=looked, enable_loader_override=False):
        run = target.make()
    watch = Watch(run, folder, inputs)
    flags = [
        sys.argv[0],
        f"-runs={inputs}",
        f"-max_len={target.longest}",
        "-timeout=60",
        "-rss_limit_mb=4096",
        f"-artifact_prefix={folder}/",
        "-print_final_stats=1",
        "-reload=0",
    ]
    if options.seconds:
        flags.append(f"-max_total_time={int(options.seconds)}")
    if target.words:
        words = folder / "words"
        words.write_text("".join(f'"{_escaped(word)}"\n' for word in target.words))
        flags.append(f"-dict={words}")
    atheris.Setup([*flags, str(kept)], watch, enable_python_coverage=True)
    atheris.Fuzz()


def change_blindly(watch: Watch, target: Target, kept: Path, seconds: float) -> None:
    """Feeds what is in a corpus, each time with a few changes, until there were enough."""
    chance = random.Random(time.time_ns())
    corpus = [path.read_bytes() for path in sorted(kept.iterdir())]
    end = time.monotonic() + (seconds or float("inf"))
    while watch.count < watch.inputs and time.monotonic() < end:
        data = bytearray(chance.choice(corpus))
        for _ in range(chance.randint(1, 6)):
            at, length = chance.randint(0, len(data)), chance.randint(1, 32)
            match chance.randrange(6):
                case 0:
                    data[at : at + 1] = bytes([chance.randrange(256)])
                case 1:
                    del data[at : at + length]
                case 2:
                    data[at:at] = data[at : at + length]
                case 3:
                    data[at:at] = chance.randbytes(chance.randint(1, 4))
                case 4 if target.words:
                    data[at:at] = chance.choice(target.words)
                case _:
                    other = chance.choice(corpus)
                    start = chance.randint(0, len(other))
                    data[at : at + length] = other[start : start + length]
        watch(bytes(data[: target.longest]))
    watch.save()


def _escaped(word: bytes) -> str:
    return "".join(f"\\x{byte:02x}" for byte in word)


if __name__ == "__main__":
    sys.exit(main())
