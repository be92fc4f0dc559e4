"""A real OBS on a machine without a screen: started, told what to play, asked what it shows."""

from __future__ import annotations

import base64
import os
import shutil
import signal
import socket
import subprocess
from pathlib import Path
from types import TracebackType
from typing import Any

import av
import numpy as np
import numpy.typing as npt
from e2e_support import free_port, wait_for

MISSING = [name for name in ("obs", "Xvfb") if shutil.which(name) is None]
"""programs that the rig needs and this machine lacks"""

_GLOBAL = """[General]
FirstRun=true
LastVersion=486539266
EnableAutoUpdates=false

[OBSWebSocket]
FirstLoad=false
ServerEnabled=true
ServerPort={port}
AlertsEnabled=false
AuthRequired=false
"""
_PROFILE = """[General]
Name=Untitled

[Video]
BaseCX=640
BaseCY=360
OutputCX=640
OutputCY=360
FPSCommon=30
"""


class Obs:
    """OBS with a home of its own, on a virtual screen.

    Args:
        home: an empty folder.
    """

    def __init__(self, home: Path) -> None:
        settings = home / ".config/obs-studio"
        profile = settings / "basic/profiles/Untitled"
        profile.mkdir(parents=True)
        (profile / "basic.ini").write_text(_PROFILE)
        self._port = free_port()
        (settings / "global.ini").write_text(_GLOBAL.format(port=self._port))
        self.log = home / "obs.log"
        self._home = home
        self._processes: list[subprocess.Popen[bytes]] = []
        self._client: Any = None

    def __enter__(self) -> Obs:
        from obsws_python import ReqClient

        try:
            self._display = display = self._screen()
            with self.log.open("wb") as log:
                self._start(
                    ["obs", "--multi", "--disable-updater"],
                    stdout=log,
                    stderr=log,
                    env=os.environ
                    | {
                        "HOME": str(self._home),
                        "XDG_CONFIG_HOME": str(self._home / ".config"),
                        "XDG_RUNTIME_DIR": str(self._home),
                        "DISPLAY": display,
                        "LIBGL_ALWAYS_SOFTWARE": "1",
                        "QT_QPA_PLATFORM": "xcb",
                    },
                )
            wait_for(self._listens)
            self._client = ReqClient(host="127.0.0.1", port=self._port, timeout=20)
            self._scene = self._client.get_current_program_scene().current_program_scene_name
        except BaseException:
            self._stop()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stop()

    @property
    def kinds(self) -> list[str]:
        """Kinds of sources that this OBS has, `browser_source` among them or not."""
        return list(self._client.get_input_kind_list(True).input_kinds)

    def play(self, name: str, kind: str, settings: dict[str, Any]) -> None:
        """Adds a source to the scene."""
        self._client.create_input(self._scene, name, kind, settings, True)

    def state(self, name: str) -> str:
        """State of a media source, such as OBS_MEDIA_STATE_PLAYING."""
        return str(self._client.get_media_input_status(name).media_state)

    def remove(self, name: str) -> None:
        """Takes a source away."""
        self._client.remove_input(name)

    def screenshot(self, name: str, size: tuple[int, int]) -> npt.NDArray[np.uint8] | None:
        """What a source shows, rgb24 of shape (height, width, 3); None before its first picture."""
        from obsws_python.error import OBSSDKRequestError

        try:
            answer = self._client.get_source_screenshot(name, "png", *size, -1)
        except OBSSDKRequestError:
            return None
        data = base64.b64decode(answer.image_data.partition(",")[2])
        codec = av.CodecContext.create("png", "r")
        frames = codec.decode(av.Packet(data)) + codec.decode(None)
        return frames[0].to_ndarray(format="rgb24") if frames else None

    def stats(self) -> Any:
        """OBS's own figures: `active_fps`, `render_skipped_frames` and others."""
        return self._client.get_stats()

    def _listens(self) -> bool:
        if self._processes[-1].poll() is not None:
            raise RuntimeError(self.log.read_text(errors="replace"))
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self._port)) == 0

    def picture_of_window(self, path: Path) -> None:
        """Writes a picture of the whole screen, OBS's window with it, as a file."""
        grab = ["ffmpeg", "-loglevel", "error", "-y", "-f", "x11grab", "-i", self._display]
        subprocess.run([*grab, "-frames:v", "1", str(path)], check=True, timeout=60)

    def _screen(self) -> str:
        read, write = os.pipe()
        self._start(
            ["Xvfb", "-displayfd", str(write), "-screen", "0", "1280x760x24", "-nolisten", "tcp"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            pass_fds=(write,),
        )
        os.close(write)
        with os.fdopen(read) as answer:
            return f":{answer.readline().strip()}"

    def _start(self, command: list[str], **options: Any) -> None:
        self._processes.append(
            subprocess.Popen(command, stdin=subprocess.DEVNULL, start_new_session=True, **options)
        )

    def _stop(self) -> None:
        if self._client is not None:
            self._client.disconnect()
            self._client = None
        for process in reversed(self._processes):
            # OBS starts helpers of its own in its session.
            try:
                os.killpg(process.pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
            process.wait()
