"""Whether processes can share a GPU's memory here: tried by a second process that really does.

Nothing else tells: drivers without IPC, parts of a GPU in other instances (MIG), WSL2 and
processes in PID namespaces of their own fail in different calls, some only when memory is opened.
"""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from typing import Any, Final

from streamer.errors import DeviceError
from streamer.gpu import device as device_of
from streamer.gpu.device import GRANULE, Copy, Device

_VALUE: Final = 0x5A
_BYTES: Final = 4096
_PATIENCE: Final = 60.0
"""seconds for a process to import CuPy, open the GPU and read"""

_answers: dict[str, str] = {}


def ask(device: Device) -> str:
    """Why other processes cannot open memory of a device; empty if nothing speaks against it.

    Takes as long as it takes to start a process that uses the GPU, some seconds; the answer is
    kept for this process. Memory that is short just now says nothing: links that cannot be opened
    then find another way for themselves, and it is tried again when it is asked again.

    Raises:
        DeviceError: the GPU does not answer.
    """
    known = _answers.get(device.uuid)
    if known is not None:
        return known
    try:
        answer = device.ipc_refusal() or _try(device)
    except DeviceError as error:
        if not error.out_of_memory:
            raise
        return ""
    _answers[device.uuid] = answer
    return answer


class Probe:
    """Asks in a thread of its own, while the node opens."""

    def __init__(self, device: Device) -> None:
        self._answer: str | DeviceError = ""
        self._thread = threading.Thread(target=self._ask, args=(device,), daemon=True)
        self._thread.start()

    def answer(self) -> str:
        """As `ask`; waits for it."""
        self._thread.join()
        if isinstance(self._answer, DeviceError):
            raise self._answer
        return self._answer

    def _ask(self, device: Device) -> None:
        try:
            self._answer = ask(device)
        except DeviceError as error:
            self._answer = error


def _try(device: Device) -> str:
    """Has a second process read; memory that is short, here or there, is a `DeviceError`."""
    pointer = event = 0
    stream = device.stream_create()
    try:
        pointer = device.malloc(GRANULE)
        event = device.event_create(interprocess=True)
        device.memset_async(pointer, _VALUE, _BYTES, stream)
        device.event_record(event, stream)
        task = {
            "ordinal": device.ordinal,
            "uuid": device.uuid,
            "memory": device.ipc_get_mem_handle(pointer).hex(),
            "event": device.ipc_get_event_handle(event).hex(),
        }
        return _second_process(task)
    except DeviceError as error:
        if error.out_of_memory:
            raise
        return str(error)
    finally:
        if event:
            device.event_destroy(event)
        if pointer:
            device.free(pointer)
        device.stream_destroy(stream)


def _second_process(task: dict[str, Any]) -> str:
    try:
        done = subprocess.run(
            [sys.executable, "-m", "streamer.gpu.probe"],
            input=json.dumps(task),
            capture_output=True,
            text=True,
            timeout=_PATIENCE,
            check=False,
        )
    except OSError as error:
        return f"no second process could be started to open its memory: {error}"
    except subprocess.TimeoutExpired:
        return f"a second process that opened its memory did not come back within {_PATIENCE:g} s"
    lines = done.stdout.splitlines()
    if done.returncode or not lines:
        last = (done.stderr.strip().splitlines() or ["no output"])[-1]
        return f"a second process that opened its memory ended with {done.returncode}: {last}"
    answer: dict[str, Any] = json.loads(lines[-1])
    if answer["out_of_memory"]:
        raise DeviceError(answer["refusal"], out_of_memory=True)
    return str(answer["refusal"])


def _read(task: dict[str, Any]) -> str:
    """In the second process: opens, waits, reads, closes; what goes wrong."""
    device = device_of(task["ordinal"])
    if device.uuid != task["uuid"]:
        return f"a second process sees {device.uuid} in place of {task['uuid']}"
    pointer = device.ipc_open_mem_handle(bytes.fromhex(task["memory"]))
    event = device.ipc_open_event_handle(bytes.fromhex(task["event"]))
    until = time.monotonic() + 5
    while not device.event_query(event):
        if time.monotonic() > until:
            return "a second process does not see its events pass"
        time.sleep(0.001)
    import numpy as np

    found = np.zeros(_BYTES, np.uint8)
    stream = device.stream_create()
    device.stream_wait_event(stream, event)
    at = found.__array_interface__["data"][0]
    device.memcpy_async(at, pointer, _BYTES, Copy.TO_HOST, stream)
    device.stream_synchronize(stream)
    device.event_destroy(event)
    device.ipc_close_mem_handle(pointer)
    device.stream_destroy(stream)
    return "" if (found == _VALUE).all() else "a second process reads other bytes than were written"


def main() -> None:
    """Entry point of `python -m streamer.gpu.probe`: the second process."""
    task = json.loads(sys.stdin.read())
    answer: dict[str, Any] = {"refusal": "", "out_of_memory": False}
    try:
        answer["refusal"] = _read(task)
    except DeviceError as error:
        answer = {"refusal": str(error), "out_of_memory": error.out_of_memory}
    print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
