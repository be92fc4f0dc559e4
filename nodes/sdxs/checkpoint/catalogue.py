"""What is known of the published models, to tell people; loading does not depend on it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

RAIL = "openrail++"
"""The licence that the cards of all SDXS repositories name: CreativeML Open RAIL++-M."""

LICENCES = {
    RAIL: (
        "CreativeML Open RAIL++-M: free to use and to pass on, also for money, but not for the "
        "purposes that its attachment A lists, and they must be passed on with the model"
    ),
}


@dataclass(frozen=True, slots=True)
class Known:
    """A repository.

    Attributes:
        id: As the hub has it.
        kind: What it is loaded as.
        about: One line.
        licence: As its card says.
        megabytes: Of what `streamer pull` fetches, about, without the large decoder.
    """

    id: str
    kind: Literal["model", "control", "lora"]
    about: str
    licence: str
    megabytes: int


KNOWN: tuple[Known, ...] = (
    Known(
        "IDKiro/sdxs-512-0.9",
        "model",
        "text to image at 512x512 in one step, in the shape of Stable Diffusion 2.1",
        RAIL,
        2680,
    ),
    Known(
        "IDKiro/sdxs-512-dreamshaper",
        "model",
        "text to image at 512x512 in one step, distilled from DreamShaper 8",
        RAIL,
        1770,
    ),
    Known(
        "IDKiro/sdxs-512-dreamshaper-sketch",
        "control",
        "ControlNet for dreamshaper: black strokes on white steer the picture",
        RAIL,
        746,
    ),
    Known(
        "IDKiro/SDXS-512-DreamShaper-Anime",
        "lora",
        "anime style for dreamshaper",
        RAIL,
        108,
    ),
)


def known(name: str) -> Known | None:
    """What is known of a repository; upper and lower case do not matter."""
    return next((one for one in KNOWN if one.id.lower() == name.lower()), None)
