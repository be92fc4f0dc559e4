"""The server: a thread with a loop of its own, from the bound socket to the last viewer."""

from __future__ import annotations

import asyncio
import errno
import logging
import socket
import threading
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from nodes.web import connections
from nodes.web.address import Address
from nodes.web.connections import Connections
from nodes.web.hub import Hub
from streamer import SinkError

if TYPE_CHECKING:
    import uvicorn

_TICK: Final = 0.25  # seconds between two looks for viewers that stall
_HEAD: Final = 16 << 10  # bytes of a request's head
_BACKLOG: Final = 64  # connections that the system keeps until they are looked at
_FAREWELL: Final = 0.5  # seconds for viewers to take the end of what they watched
_PATIENCE: Final = 10.0  # seconds for the thread to begin, and to end


def bind(address: Address) -> socket.socket:
    """A socket that listens.

    Raises:
        SinkError: the address cannot be had; says why.
    """
    family = socket.AF_INET6 if address.family == 6 else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        # Lets a node that was killed come back while connections of its former life linger.
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, connections.SEND_BUFFER)
        listener.bind((address.host, address.port))
        listener.listen(_BACKLOG)
        listener.setblocking(False)
    except OSError as error:
        listener.close()
        raise SinkError(f"cannot listen on {address}: {_why(error, address)}") from error
    return listener


def _why(error: OSError, address: Address) -> str:
    if error.errno == errno.EADDRINUSE:
        return (
            f"another program uses port {address.port}; end it, or set listen to another port "
            "(0 takes a free one)"
        )
    if error.errno == errno.EACCES:
        return f"port {address.port} is reserved for the system; take one from 1024 on"
    if error.errno == errno.EADDRNOTAVAIL:
        return f"this machine has no address {address.host}; 127.0.0.1 and 0.0.0.0 always work"
    return (error.strerror or str(error)).lower()


class Server:
    """Serves viewers in a thread of its own, until it is stopped.

    Args:
        address: to listen on.
        hub: where the frame loop leaves pieces.
        most_connections: of HTTP, viewers included.
        site: makes the application, in the thread, and what is to be awaited at the end.
        log: for what a user should know.

    Attributes:
        address: with the port that was chosen, once started.
    """

    def __init__(
        self,
        address: Address,
        *,
        hub: Hub,
        most_connections: int,
        site: Callable[[Connections], tuple[Any, Callable[[], Any]]],
        log: logging.Logger,
    ) -> None:
        self.address = address
        self._hub, self._site, self._log = hub, site, log
        self._connections = Connections(most_connections)
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop: asyncio.Event | None = None
        self._ready = threading.Event()
        self._failure: BaseException | None = None

    def start(self) -> None:
        """Begins to listen, and returns once requests are answered.

        Raises:
            SinkError: the address cannot be had, or the server did not begin.
        """
        listener = bind(self.address)
        self.address = replace(self.address, port=listener.getsockname()[1])
        self._thread = threading.Thread(
            target=self._main, args=(listener,), name="web", daemon=True
        )
        self._thread.start()
        began = self._ready.wait(_PATIENCE)
        if self._failure is not None or not began:
            self.stop()
            raise SinkError(f"the server did not begin: {self._failure or 'it hangs'}", retry=True)

    def check(self) -> None:
        """Sees that it still serves.

        Raises:
            SinkError: it has ended by itself.
        """
        if self._thread is not None and not self._thread.is_alive():
            raise SinkError(f"the server has ended: {self._failure}", retry=True)

    def stop(self) -> None:
        """Ends all viewers and the thread; further calls do nothing."""
        thread, self._thread = self._thread, None
        if thread is None:
            return
        loop, stop = self._loop, self._stop
        if loop is not None and stop is not None:
            try:
                loop.call_soon_threadsafe(stop.set)
            except RuntimeError:
                pass  # the loop has ended by itself
        thread.join(_PATIENCE)
        if thread.is_alive():
            self._log.warning("the server did not end in time")

    def _main(self, listener: socket.socket) -> None:
        try:
            asyncio.run(self._serve(listener))
        except BaseException as error:
            self._failure = error
            if not self._ready.is_set():
                self._ready.set()
            else:
                self._log.exception("the server failed")
        finally:
            listener.close()

    async def _serve(self, listener: socket.socket) -> None:
        import uvicorn

        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        app, at_end = self._site(self._connections)
        server = uvicorn.Server(
            uvicorn.Config(
                app,
                http=self._connections.protocol(),
                ws="none",
                lifespan="off",
                log_config=None,
                log_level="error",  # what clients get wrong is no news for the user
                access_log=False,
                server_header=False,
                proxy_headers=False,
                timeout_keep_alive=connections.KEEP_ALIVE,
                timeout_graceful_shutdown=1,
                h11_max_incomplete_event_size=_HEAD,
            )
        )
        self._hub.attach(self._loop)
        serving = asyncio.create_task(server.serve(sockets=[listener]))
        ticking = asyncio.create_task(self._tick(server))
        stopping = asyncio.create_task(self._stop.wait())
        try:
            await asyncio.wait([serving, ticking, stopping], return_when=asyncio.FIRST_COMPLETED)
        finally:
            self._hub.end_streams()
            server.should_exit = True
            await asyncio.gather(at_end(), self._connections.cut_all(after=_FAREWELL))
            ticking.cancel()
            stopping.cancel()
            ended = await asyncio.gather(serving, ticking, return_exceptions=True)
        for error in ended:
            if isinstance(error, Exception):
                raise error
        if not self._stop.is_set():
            raise RuntimeError("it was told to end by something else")

    async def _tick(self, server: uvicorn.Server) -> None:
        while not server.started:
            await asyncio.sleep(0.005)
        self._ready.set()
        while True:
            await asyncio.sleep(_TICK)
            for viewer in self._hub.end_stalled():
                self._log.debug("viewer %s stalled and was closed", viewer.address)
            self._connections.cut_dawdlers()
