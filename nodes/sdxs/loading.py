"""Models as the node loads, tries and frees them; what goes wrong is said in one sentence."""

from __future__ import annotations

import ctypes
import logging
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import streamer
from nodes.sdxs.device import chosen
from nodes.sdxs.names import ModelName

if TYPE_CHECKING:
    from nodes.sdxs.engine import OneStep
    from nodes.sdxs.params import SdxsParams
    from nodes.sdxs.stages import Note


def differ(one: SdxsParams, other: SdxsParams) -> bool:
    """Whether two sets of parameters need two models to be loaded."""
    return _identity(one) != _identity(other)


def load(
    p: SdxsParams,
    *,
    gpu: int | None,
    log: logging.Logger,
    alive: Callable[[], None],
    note: Note,
) -> OneStep:
    """Loads a model, or takes the one that another node of this process has loaded.

    Args:
        p: says which.
        gpu: the node's, which it runs on unless `device` says otherwise.
        log: receives warnings.
        note: told what is being loaded, and later what is being done in the background.
        alive: called about once a second while the model paints for others, and this node waits.

    Returns:
        An engine with settings of its own.

    Raises:
        ParameterError: a parameter does not fit the model.
        NodeError: files are missing, or there is no memory for it.
    """
    from nodes.sdxs import batching

    device = chosen(p.device, gpu)
    # All that is given to `OneStep.load` tells models apart.
    given: dict[str, Any] = {
        "model": p.model,
        "control": tuple(p.controls()),
        "lora": tuple(p.adapters()),
        "vae": p.vae,
        "text_encoder": p.text_encoder,
        "device": device,
        "dtype": p.dtype,
        "backend": p.backend,
        "threads": p.threads,
        "capture": p.capture,
        "compile": p.compile == "on",
    }
    engine = batching.share(
        tuple(given.items()),
        lambda: _loaded(log=log, note=note, **given),
        together=p.batch == "auto",
        alive=alive,
        log=log,
    )
    if not engine.sees_picture:
        log.warning(
            "model %s paints from its prompt alone: without `control` the video does not steer it",
            p.model,
        )
    return engine


def _loaded(*, model: str, **given: Any) -> OneStep:
    from nodes.sdxs.engine import OneStep

    with _in_sentences(model):
        return OneStep.load(model, **given)


def check(p: SdxsParams) -> None:
    """Refuses what can be known of a model at once, without loading anything.

    Raises:
        ParameterError: its folder is not one of a model that can be run.
        NodeError: files are missing.
    """
    if ModelName.parse(p.model).is_bundle:
        return  # the parameters themselves have looked into its folder
    from nodes.sdxs.checkpoint.presence import demand

    with _in_sentences(p.model):
        demand(p.model, control=p.controls(), lora=p.adapters(), vae=p.vae)


@contextmanager
def _in_sentences(model: str) -> Iterator[None]:
    try:
        yield
    except (ValueError, ImportError) as error:
        raise streamer.ParameterError(f"the model {model} cannot be loaded: {error}") from error
    except MemoryError as error:
        raise streamer.NodeError(
            f"there is no memory for the model {model}: {_reason(error)}"
        ) from error
    except FileNotFoundError as error:
        # Its message names what is missing and how to get it.
        raise streamer.NodeError(str(error)) from error
    except OSError as error:
        raise streamer.NodeError(f"model {model} cannot be read: {error}") from error


def adjust(engine: OneStep, p: SdxsParams) -> None:
    """Gives an engine the settings that are its own; what has not changed is left alone.

    Raises:
        ParameterError: the model does not take the prompt.
        NodeError: there is no memory for its text encoder.
    """
    for name in ("prompt", "blend", "seed", "seeds", "conditioning_scale"):
        value = getattr(p, name)
        if getattr(engine, name) == value:
            continue
        try:
            setattr(engine, name, value)
        except ValueError as error:
            raise streamer.ParameterError(str(error)) from None
        except MemoryError as error:
            raise _no_memory_for_prompt(p, error) from None


def embed(engine: OneStep, p: SdxsParams) -> None:
    """Computes what the prompt needs, so that `adjust` takes no time; from any thread.

    Raises:
        ParameterError: the model does not take it.
        NodeError: there is no memory for its text encoder.
    """
    try:
        engine.prefetch(p.prompt)
    except ValueError as error:
        raise streamer.ParameterError(str(error)) from None
    except MemoryError as error:
        raise _no_memory_for_prompt(p, error) from None


def check_size(engine: OneStep, width: int, height: int) -> None:
    """Raises NodeError if the model cannot paint pictures of so many pixels."""
    multiple = engine.multiple
    if width % multiple or height % multiple:
        near = "x".join(str(max(1, round(side / multiple)) * multiple) for side in (width, height))
        raise streamer.NodeError(
            f"the model takes sides that are multiples of {multiple}, not {width}x{height}; "
            f"put a preprocess node with size {near} before it (`streamer style`: --size {near})"
        )


def try_out(engine: OneStep, p: SdxsParams, width: int, height: int) -> None:
    """Paints a picture of a size in pixels, which also does all that only the first one waits for.

    Raises:
        NodeError: it cannot paint it.
    """
    try:
        rehearse(engine, p, width, height)
    except ArithmeticError as error:
        raise streamer.NodeError(
            f"the model {p.model} cannot paint {width}x{height} pixels: {error}"
        ) from None


def rehearse(engine: OneStep, p: SdxsParams, width: int, height: int) -> None:
    """The same for a model that stands in no other's place.

    Raises:
        NodeError: it takes no such size, or there is no memory for it.
        ArithmeticError: its numbers are not finite.
    """
    check_size(engine, width, height)
    size = f"{width}x{height}"
    try:
        engine.warm_up(width, height)
    except MemoryError as error:
        if not p.smaller:  # else the pictures themselves will tell how small
            raise streamer.NodeError(
                f"the model {p.model} fits into memory, but its pictures of {size} do not: "
                f"{_reason(error)}; set smaller: true, or give the node smaller ones"
            ) from None


def tell(engine: OneStep, log: logging.Logger) -> None:
    """Writes to the log how an engine has painted, if it has shared its model."""
    from nodes.sdxs import batching

    if (text := batching.summary(engine)) is not None:
        log.info("%s", text)


def free(former: list[OneStep]) -> None:
    """Frees a model that no longer paints, beside the frame loop: gigabytes take a while.

    Args:
        former: the model, which nothing else holds; emptied.
    """

    def work() -> None:
        former.clear()
        give_back()

    threading.Thread(target=work, name="sdxs-free", daemon=True).start()


def give_back() -> None:
    """Returns freed memory to the system, which allocators keep for the next time."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # of glibc alone
    if trim is not None:
        trim(0)
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_initialized():
        try:
            torch.cuda.empty_cache()
        except RuntimeError as error:
            # torch keeps it while any thread of the process records a picture, until the next time.
            if "captures_underway" not in str(error):
                raise


def _identity(p: SdxsParams) -> tuple[object, ...]:
    return (p.model, tuple(p.controls()), tuple(p.adapters()), p.vae)


def _no_memory_for_prompt(p: SdxsParams, error: MemoryError) -> streamer.NodeError:
    return streamer.NodeError(f"there is no memory for the prompt {p.prompt!r}: {_reason(error)}")


def _reason(error: MemoryError) -> str:
    return str(error) or "the system gave none"
