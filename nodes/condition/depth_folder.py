"""Whether a folder holds a depth model, without reading it: quick enough for checking a graph."""

from __future__ import annotations

from pathlib import Path


def check_folder(folder: str | Path) -> Path:
    """Looks whether a folder has the files of a depth model.

    Args:
        folder: in transformers' layout: `config.json`, `preprocessor_config.json` and weights in
            `.safetensors` files.

    Returns:
        The folder's path.

    Raises:
        FileNotFoundError: one sentence that says what is missing.
    """
    path = Path(folder)
    if not path.is_dir():
        raise FileNotFoundError(
            f"there is no folder {path} with a depth model; write one with transformers' "
            "model.save_pretrained and processor.save_pretrained"
        )
    missing = [
        name for name in ("config.json", "preprocessor_config.json") if not (path / name).is_file()
    ]
    if not any(path.glob("*.safetensors")):
        missing.append("model.safetensors")
    if missing:
        raise FileNotFoundError(f"the depth model in {path} lacks {', '.join(missing)}")
    return path
