"""`streamer devices`."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from fractions import Fraction

    from nodes.decoder.v4l2 import Device, Format, Size


def devices(
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """List cameras: paths, stable ids, names, and their formats, sizes and rates.

    What stands there can be given to a decoder: `url: /dev/video0`, `url: /dev/v4l/by-id/...` or
    `url: camera:NAME`, with `input_format`, `size` and `fps`.
    """
    from nodes.decoder import v4l2

    found = v4l2.devices()
    if as_json:
        print(json.dumps([_as_json(device) for device in found], indent=2, ensure_ascii=False))
        return
    if not found:
        print("no video devices: this machine has no camera, or none was passed into the container")
        return
    for device in found:
        print("\n".join(lines(device)))


def lines(device: Device) -> list[str]:
    """What is printed of one device."""
    said = [f"{device.path}  {device.name}"]
    if device.id is not None:
        said.append(f"  id      {device.id}")
    if device.problem:
        said.append(f"  cannot be opened: {device.problem}")
    elif not device.captures:
        said.append("  no camera: nothing can be read from it")
    for form in device.formats:
        for number, size in enumerate(form.sizes or (None,)):
            head = _format(form) if number == 0 else ""
            said.append(f"  {head:<10}{_size(size)}".rstrip())
    return said


def _format(form: Format) -> str:
    return form.input_format or f"({form.fourcc})"


def _size(size: Size | None) -> str:
    if size is None:
        return ""
    said = f"{size.width}x{size.height}"
    if size.smallest is not None:
        said = f"{size.smallest[0]}x{size.smallest[1]} to {said}"
    rates = ", ".join(_rate(rate) for rate in size.rates)
    return f"{said:<12} {rates} fps" if rates else said


def _rate(rate: Fraction) -> str:
    return f"{float(rate):.2f}".rstrip("0").rstrip(".")


def _as_json(device: Device) -> dict[str, Any]:
    return {
        "path": str(device.path),
        "id": None if device.id is None else str(device.id),
        "name": device.name,
        "captures": device.captures,
        "problem": device.problem,
        "formats": [
            {
                "fourcc": form.fourcc,
                "input_format": form.input_format,
                "description": form.description,
                "sizes": [
                    {
                        "width": size.width,
                        "height": size.height,
                        "smallest": size.smallest,
                        "fps": [round(float(rate), 3) for rate in size.rates],
                    }
                    for size in form.sizes
                ],
            }
            for form in device.formats
        ],
    }
