"""Writes pictures and sound to files, network outputs, image sequences and virtual cameras."""

from __future__ import annotations

from nodes.encoder.node import Encoder
from nodes.encoder.params import EncoderParams

__all__ = ["Encoder", "EncoderParams"]
