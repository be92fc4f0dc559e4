"""Says of a checkout what installing it would say: `python checkout.py FOLDER`.

Nodes, commands and goals are found by entry points, which stand in the metadata of an installed
package. This writes that metadata to a folder; with the folder first on PYTHONPATH a checkout runs
without being installed, and one that is installed runs by its present `pyproject.toml`. It imports
nothing but the standard library, so that it works before anything is installed.
"""

from __future__ import annotations

import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[3]


def describe(folder: Path) -> Path:
    """Writes the metadata.

    Args:
        folder: that is to be on Python's path.

    Returns:
        The folder with the metadata, in it.
    """
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    name, version = project["name"], project["version"]
    made = folder / f"{name.replace('-', '_')}-{version}.dist-info"
    made.mkdir(parents=True)
    (made / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    lines = []
    for group, points in project["entry-points"].items():
        lines += [f"[{group}]", *(f"{key} = {value}" for key, value in points.items()), ""]
    (made / "entry_points.txt").write_text("\n".join(lines))
    return made


if __name__ == "__main__":
    describe(Path(sys.argv[1]))
