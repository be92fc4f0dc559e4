"""The table of learnt style tokens, read without torch."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from nodes.sdxs.bundle import STYLE, Bundle


def read_tokens(bundle: Bundle) -> NDArray[np.float32]:
    """float32 styles × tokens × width, one row for each of `bundle.styles`.

    Raises:
        FileNotFoundError: The file is missing.
        ValueError: It is damaged, or the table does not fit the vocabulary.
    """
    from safetensors import SafetensorError, safe_open

    opened: Any = safe_open
    try:
        with opened(bundle.folder / STYLE, framework="numpy") as file:
            table = np.asarray(file.get_tensor("tokens"), np.float32)
    except SafetensorError as error:
        raise ValueError(f"{bundle.folder / STYLE} is damaged: {error}") from error
    if table.ndim != 3 or len(table) != len(bundle.styles):
        raise ValueError(
            f"{bundle.folder / STYLE} holds tokens of shape {table.shape} "
            f"for {len(bundle.styles)} styles"
        )
    return table
