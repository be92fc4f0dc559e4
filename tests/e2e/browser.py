"""A real Chromium without a screen, for pages that play live video."""

from __future__ import annotations

import base64
import os
import shutil
import tempfile
from pathlib import Path
from types import TracebackType
from typing import Any

import av
import numpy as np
import numpy.typing as npt

MISSING = [name for name in ("chromium", "chromedriver") if shutil.which(name) is None]
"""programs that the rig needs and this machine lacks"""

_FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--autoplay-policy=no-user-gesture-required",
    "--window-size=640,640",
)


class Browser:
    """Chromium with a profile of its own."""

    def __init__(self) -> None:
        # Not in a test's own folder: the paths of its sockets must be short.
        self._home = tempfile.TemporaryDirectory(prefix="chromium-", dir="/tmp")
        self._driver: Any = None

    def __enter__(self) -> Browser:
        from selenium import webdriver
        from selenium.webdriver.chrome.service import Service

        folder = Path(self._home.name)
        options = webdriver.ChromeOptions()
        options.page_load_strategy = "none"  # a page of live pictures is never all there
        options.binary_location = shutil.which("chromium")
        for flag in (*_FLAGS, f"--user-data-dir={folder / 'profile'}"):
            options.add_argument(flag)
        options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
        service = Service(
            executable_path=shutil.which("chromedriver"),
            log_output=str(folder / "log"),
            env=os.environ | {"TMPDIR": str(folder), "XDG_RUNTIME_DIR": str(folder)},
        )
        self._driver = webdriver.Chrome(options=options, service=service)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._driver.quit()
        self._home.cleanup()

    def open(self, url: str) -> None:
        """Opens a page."""
        self._driver.get(url)

    def before(self, script: str) -> None:
        """Has every page that is opened from now on run a piece of JavaScript first."""
        self._driver.execute_cdp_cmd("Page.addScriptToEvaluateOnNewDocument", {"source": script})

    def run(self, script: str, *arguments: Any) -> Any:
        """What a piece of JavaScript returns."""
        return self._driver.execute_script(script, *arguments)

    def picture_of_window(self, path: Path) -> None:
        """Writes what the window shows as a file."""
        path.write_bytes(base64.b64decode(self._driver.get_screenshot_as_base64()))

    def video(self, selector: str = "video") -> npt.NDArray[np.uint8] | None:
        """The present picture of a video or img element in its own size; None before the first."""
        data = self.run(
            """
            const shown = document.querySelector(arguments[0]);
            const width = shown?.videoWidth ?? shown?.naturalWidth;
            if (!width) return null;
            const canvas = document.createElement("canvas");
            canvas.width = width;
            canvas.height = shown.videoHeight ?? shown.naturalHeight;
            canvas.getContext("2d").drawImage(shown, 0, 0);
            return canvas.toDataURL("image/png");
            """,
            selector,
        )
        if data is None:
            return None
        codec = av.CodecContext.create("png", "r")
        frames = codec.decode(av.Packet(base64.b64decode(data.partition(",")[2])))
        frames += codec.decode(None)
        picture: npt.NDArray[np.uint8] = frames[0].to_ndarray(format="rgb24")
        return picture

    def complaints(self) -> list[str]:
        """Errors that the page has logged so far."""
        return [
            entry["message"]
            for entry in self._driver.get_log("browser")
            if entry["level"] == "SEVERE"
        ]
