"""`python -m nodes.sdxs.distill`, which `scripts/distill` calls."""

from __future__ import annotations

from nodes.sdxs.distill.cli import app

if __name__ == "__main__":
    app(prog_name="distill")
