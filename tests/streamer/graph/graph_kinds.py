"""Small real node classes for the tests of graphs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal

import numpy as np
import numpy.typing as npt
from pydantic import Field, field_validator

import streamer
from streamer.audio import Packet
from streamer.frame import Frame


class CameraParams(streamer.Params):
    url: str
    """what to open"""
    live: bool = True
    """whether it is a camera"""
    fps: Annotated[int, Field(ge=1, le=240)] = Field(default=30, json_schema_extra={"unit": "1/s"})
    """pictures a second"""
    options: dict[str, str] = Field(default_factory=dict)
    """passed on"""

    @field_validator("url")
    @classmethod
    def _known_scheme(cls, url: str) -> str:
        if url.startswith("gopher:"):
            raise ValueError(f"cannot open {url!r}; write rtsp://")
        return url


class Camera(streamer.Source[CameraParams]):
    """Makes gray pictures."""

    Params = CameraParams

    @classmethod
    def is_live(cls, params: Any) -> bool:
        return bool(params.live)

    def frames(self) -> Iterator[Frame | Packet]:
        yield from ()


class StyleParams(streamer.Params):
    prompt: Literal["ink", "oil", "comic"] = "ink"
    """style of the picture"""
    strength: Annotated[float, Field(gt=0, le=2)] = 1.0
    """how much of it"""
    seed: int = 0
    """of the noise"""
    size: int | tuple[int, int] = 512
    """side, or width and height, in pixels"""


class Style(streamer.Transform[StyleParams]):
    """Styles a picture."""

    Params = StyleParams

    def process(self, frame: Frame) -> npt.NDArray[np.uint8]:
        return 255 - frame.numpy()


class GrayStyle(Style):
    """Takes and makes gray pictures only."""

    accepts = ("gray",)
    emits = ("gray",)


class Wide(Style):
    """Takes several formats."""

    accepts = ("nv12", "rgb24", "gray")
    emits = ("rgb24", "gray")


class Wall(streamer.Join[streamer.Params]):
    """Puts pictures side by side."""

    def process(self, frames: Mapping[str, Frame | None]) -> Frame | None:
        return next(iter(frames.values()))


class FileParams(streamer.Params):
    path: str
    """where to write"""
    password: str = ""
    """of the server"""


class Sheet(streamer.Sink[FileParams]):
    """Holds pictures; sound too, in an mp4."""

    Params = FileParams
    accepts = ("yuv420p", "rgb24", "gray")

    def takes_audio(self) -> bool:
        return self.params.path.endswith(".mp4")

    def process(self, frame: Frame) -> None:
        pass


class Port(streamer.Sink[FileParams]):
    """Wants a port for itself, and cannot read all of them."""

    Params = FileParams

    @classmethod
    def claims(cls, params: Any) -> dict[str, str]:
        if params.path == "broken":
            raise RuntimeError("no idea")
        return {"path": params.path.lower()}


class Odd(streamer.Node[streamer.Params]):
    """Is none of the four."""


class Broken(streamer.Source[streamer.Params]):
    """Cannot say whether it is live."""

    @classmethod
    def is_live(cls, params: Any) -> bool:
        raise RuntimeError("no idea")


@streamer.node
def invert(frame: Frame, *, amount: float = 1.0) -> npt.NDArray[np.uint8]:
    """Inverts a picture."""
    return (255 - frame.numpy() * amount).astype("uint8")
