"""The token of a server that others can reach: made once at random, then kept for the next run."""

from __future__ import annotations

import contextlib
import os
import re
import secrets
from pathlib import Path

_TOKEN = re.compile(r"[A-Za-z0-9_\-]{22,128}")


def token_path() -> Path:
    """Where the token is kept, readable by its owner alone."""
    state = os.environ.get("XDG_STATE_HOME")
    base = Path(state) if state else Path.home() / ".local" / "state"
    return base / "streamer" / "web-token"


def kept_token() -> tuple[str, Path | None]:
    """The token of this user, made at random when there is none.

    It is kept so that addresses with it, in OBS say, stay right after a restart.

    Returns:
        the token, and the file it is kept in; None if it could not be kept, so that it is good
        for this process alone.
    """
    made = secrets.token_urlsafe(24)
    try:
        path = token_path()
        with contextlib.suppress(FileNotFoundError):
            kept = path.read_text(encoding="ascii").strip()
            private = not path.stat().st_mode & 0o077
            if private and _TOKEN.fullmatch(kept):
                return kept, path
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        # A whole new file: it is never readable by others, not even while it is written.
        fresh = path.with_name(f"{path.name}.{os.getpid()}.{secrets.token_hex(4)}")
        descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w") as file:
            file.write(f"{made}\n")
        fresh.replace(path)
    except (OSError, RuntimeError, UnicodeDecodeError):
        return made, None
    return made, path
