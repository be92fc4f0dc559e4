"""Every parser that meets bytes from outside, for any bytes: it reads them, or says why not.

`scripts/fuzz` tries the same parsers with inputs by the million, led by coverage.
"""

from __future__ import annotations

from functools import cache

import pytest
from fuzz_target import Run, Target, patience
from fuzz_targets import TARGETS
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

EXAMPLES = 150

quick = settings(
    max_examples=EXAMPLES,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)


@cache
def made(name: str) -> Run:
    return TARGETS[name].make()


@cache
def seeds(name: str) -> list[bytes]:
    return TARGETS[name].seeds()


def feed(target: Target, data: bytes) -> None:
    run = made(target.name)
    with patience():
        run(data)


every = pytest.mark.parametrize("target", TARGETS.values(), ids=TARGETS)


@every
def test_what_is_valid_is_read(target: Target) -> None:
    for seed in seeds(target.name):
        feed(target, seed)


@every
@given(data=st.binary(max_size=256))
@example(data=b"")
@example(data=b"\xff" * 64)
@example(data=b"\0" * 64)
@quick
def test_any_bytes(target: Target, data: bytes) -> None:
    feed(target, data)


@every
@given(text=st.text(max_size=100))
@quick
def test_any_text(target: Target, text: str) -> None:
    feed(target, text.encode("utf-8", errors="surrogatepass"))


@every
@given(data=st.data())
@quick
def test_words_of_its_language_in_any_order(target: Target, data: st.DataObject) -> None:
    pieces = [*target.words, *seeds(target.name), b" ", b"a", b"1"]
    chosen = data.draw(st.lists(st.sampled_from(pieces), max_size=12))
    feed(target, b"".join(chosen))


@every
@given(data=st.data())
@quick
def test_valid_input_with_some_bytes_changed(target: Target, data: st.DataObject) -> None:
    changed = bytearray(data.draw(st.sampled_from(seeds(target.name))))
    for _ in range(data.draw(st.integers(1, 6))):
        at = data.draw(st.integers(0, len(changed)))
        match data.draw(st.sampled_from(["put", "set", "cut", "copy"])):
            case "put":
                word = st.sampled_from(target.words) if target.words else st.nothing()
                changed[at:at] = data.draw(st.binary(min_size=1, max_size=4) | word)
            case "set":
                changed[at : at + 1] = bytes([data.draw(st.integers(0, 255))])
            case "cut":
                del changed[at : at + data.draw(st.integers(1, 20))]
            case _:
                changed[at:at] = changed[at : at + data.draw(st.integers(1, 40))]
    feed(target, bytes(changed))
