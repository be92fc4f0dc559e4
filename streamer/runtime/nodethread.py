"""One node of a worker: its thread, its inlets and its outlets, from opening to closing."""

from __future__ import annotations

import logging
import sys
import threading
import time
import traceback
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Final

from streamer import registry
from streamer.errors import NodeError, StreamerError
from streamer.gpu import meter
from streamer.gpu.device import Copy
from streamer.gpu.probe import Probe
from streamer.graph.plan import LinkPlan, NodePlan, Plan
from streamer.link.inlet import Inlet
from streamer.link.outlet import Consumer, Outlet
from streamer.masking import mask
from streamer.nodebase import Join, Node
from streamer.runtime.addresses import endpoint_of, local_endpoint_of
from streamer.runtime.context import RuntimeContext
from streamer.runtime.feed import Feed
from streamer.runtime.loops import Loop
from streamer.runtime.output import CancelledRun
from streamer.runtime.placement import device_for

if TYPE_CHECKING:
    from streamer.runtime.worker import Worker

LONGEST_TEXT: Final = 4000
"""characters of an error's message that reach the supervisor"""
OPENING_LEAVE: Final = 600.0
"""seconds that a node may take to open before it is taken for hung"""
FIRST_PICTURE_LEAVE: Final = 100.0
"""seconds that the first picture may take beyond others: some things are built only then"""
HAS_ENDED: Final = "the node has ended: it takes no more changes"
"""what is said of changes that come too late"""

_log = logging.getLogger("streamer.worker")


class NodeThread:
    """See the module; the methods are for the worker's main thread."""

    def __init__(self, worker: Worker, node: NodePlan) -> None:
        self._worker = worker
        self.plan = node
        self.links_in = worker.plan.inputs(node.name)
        self.video = self._outlet("video")
        self.audio = self._outlet("audio")
        self.ended = False
        self.retry = False
        """whether starting the process again may mend its failure"""
        self.drain_at: float | None = None
        self.context = RuntimeContext(
            plan=worker.plan,
            node=node,
            incarnation=worker.incarnation,
            board=worker.board.nodes[node.name],
            outlet=self.video,
            tell=worker.tell,
            aborted=worker.aborted,
        )
        self.context.generation = worker.generations.get(node.name, 0)
        self.feed: Feed | None = None
        self._node: Node[Any] | None = None
        self._changes: ThreadPoolExecutor | None = None
        self._early: list[tuple[dict[str, Any], int]] = []
        self._untaken: set[int] = set()
        self._left = False
        self._opening = threading.Lock()
        self._finishing = False
        self.thread = threading.Thread(target=self._main, name=node.name, daemon=True)

    @property
    def outlets(self) -> tuple[Outlet, ...]:
        """The outlets that somebody consumes."""
        return tuple(outlet for outlet in (self.video, self.audio) if outlet is not None)

    def drain(self) -> None:
        """Asks a source to end, and tells everyone else that this is wanted."""
        self.context.stopping.set()
        if self.plan.role == "source" and self.drain_at is None:
            self.drain_at = time.monotonic()
            self._worker.started.set()

    def consumer_down(self, link: LinkPlan, incarnation: int) -> None:
        """The process of a consumer has died."""
        self._outlet_of(link).consumer_down(link.target, incarnation)

    def consumer_gone(self, link: LinkPlan) -> None:
        """A consumer will not come back."""
        self._outlet_of(link).consumer_gone(link.target)

    def producer_changed(self, link: LinkPlan) -> None:
        """The producer of a link has been started again, or will not come back."""
        # Where the link is not there yet, the node's thread sees the change once it has made it.
        if self.feed is not None and link.key in self.feed.links:
            self.feed.call(lambda: self._turn(link))

    def change(self, params: dict[str, Any], generation: int) -> None:
        """Has the node take changed parameters, prepared in a thread beside its frame loop."""
        with self._opening:
            if not self._left:
                self._untaken.add(generation)
                self._begin(params, generation)
                return
        self._taken(generation, HAS_ENDED)  # others still run in this process

    def _begin(self, params: dict[str, Any], generation: int) -> None:
        """Prepares a change, or keeps it until the node is open; with the lock held."""
        if self._node is None:
            self._early.append((params, generation))
            return
        if self._changes is None:
            self._changes = ThreadPoolExecutor(1, thread_name_prefix=f"{self.plan.name}-prepare")
        self._changes.submit(self._prepare, self._node, params, generation)

    def _opened(self, node: Node[Any]) -> None:
        with self._opening:
            self._node = node
            early, self._early = self._early, []
            for params, generation in early:
                self._begin(params, generation)

    def _prepare(self, node: Node[Any], given: dict[str, Any], generation: int) -> None:
        try:
            params = type(node).Params(**given)
            prepared = node.prepare(params)
        except Exception as error:
            if not isinstance(error, StreamerError):
                sys.stderr.write(mask(f"{self.plan.name}: {traceback.format_exc()}"))
            self._taken(generation, str(error) or type(error).__name__)
            return
        assert self.feed is not None
        self.feed.call(lambda: self._take(node, params, prepared, generation))

    def _take(self, node: Node[Any], params: Any, prepared: Any, generation: int) -> None:
        """In the node's thread, between two pictures."""
        node.update(params, prepared)
        self.context.generation = generation
        if self.video is not None:
            self.video.flush_stale()
        self._taken(generation, "")

    def _taken(self, generation: int, text: str) -> None:
        with self._opening:
            self._untaken.discard(generation)
        self._worker.tell(
            "taken",
            node=self.plan.name,
            generation=generation,
            text=mask(text)[:LONGEST_TEXT],
        )

    def _outlet_of(self, link: LinkPlan) -> Outlet:
        outlet = self.video if link.media == "video" else self.audio
        assert outlet is not None
        return outlet

    def _outlet(self, media: str) -> Outlet | None:
        plan, worker = self._worker.plan, self._worker
        links = [link for link in plan.outputs(self.plan.name) if link.media == media]
        if not links:
            return None
        return Outlet(
            worker.zmq,
            endpoints=(
                endpoint_of(worker.folder, plan, links[0], worker.incarnation),
                local_endpoint_of(links[0]),
            ),
            incarnation=worker.incarnation,
            consumers=[
                Consumer(
                    name=link.target,
                    queue=link.queue,
                    depth=_depth(plan, link),
                    board=worker.board.links[link.key],
                )
                for link in links
            ],
            on_copy=worker.board.nodes[self.plan.name].copies.add,
        )

    def _turn(self, link: LinkPlan) -> None:
        """Turns to the present producer of a link, in the node's thread."""
        assert self.feed is not None
        inlet, worker = self.feed.links[link.key][1], self._worker
        incarnation = worker.incarnations[link.source]
        if inlet.producer != incarnation:
            if link.source in worker.node_names:
                endpoint = local_endpoint_of(link)
            else:
                endpoint = endpoint_of(worker.folder, worker.plan, link, incarnation)
            inlet.connect(endpoint, incarnation)
        if link.source in worker.gone:
            inlet.producer_gone()

    def _main(self) -> None:
        worker, name = self._worker, self.plan.name
        board = worker.board.nodes[name]
        meter.use({Copy.TO_DEVICE: board.uploaded.add, Copy.TO_HOST: board.downloaded.add})
        try:
            worker.tell("state", node=name, state="opening", text="")
            node_class = registry.load(self.plan.entry)
            node = node_class(node_class.Params(**self.plan.params))
            node.context = self.context
            self.feed = Feed(node.accepts, beat=self.context.beat)
            self.context.caller = self.feed.call
            try:
                self._run(node)
            except BaseException:
                self._close(node, failed=True)
                raise
            self._close(node, failed=False)
            worker.tell("state", node=name, state="finished", text="")
        except CancelledRun:
            pass
        except StreamerError as error:
            self.retry = error.retry or self._rests(error)
            self._failed(str(error), error.exit_status, quick=error.retry)
            _log.debug("%s failed", name, exc_info=True)
        except BaseException as error:
            # What nobody foresaw may have left the process in any state: the worker ends now, and
            # the supervisor starts another. Nothing of it is printed unmasked.
            sys.stderr.write(mask(f"{name}: {traceback.format_exc()}"))
            sys.stderr.flush()
            self.retry = True
            text = f"{type(error).__name__}: {error}"
            self._failed(text, StreamerError.exit_status, quick=True)
        finally:
            try:
                self._leave()
            finally:  # else the process would wait for its node for ever
                self.ended = True
                worker.ring()

    def _leave(self) -> None:
        self.context.unwatched()
        if not self.retry:
            for outlet in self.outlets:
                outlet.finish()
        self._leave_changes()
        if self.feed is not None:
            self.feed.close()

    def _leave_changes(self) -> None:
        """Refuses the changes that the node has not taken, and all that may still come."""
        with self._opening:
            self._left = True
            untaken = sorted(self._untaken)
            if self._changes is not None:
                self._changes.shutdown(wait=False, cancel_futures=True)
        if not self.retry:  # else the process dies, and the supervisor sees to them
            for generation in untaken:
                self._taken(generation, HAS_ENDED)

    def _run(self, node: Node[Any]) -> None:
        worker = self._worker
        assert self.feed is not None
        self.context.patient(OPENING_LEAVE)
        device = device_for(node, self.plan.gpu, self.context.log)
        probe = Probe(device) if device is not None and self.video is not None else None
        node.open()
        if device is not None:
            device.stream()  # torch may have been imported meanwhile
        if device is not None and self.video is not None and probe is not None:
            self.video.use_device(device, probe.answer())
        self.context.device = device
        self.context.unwatched()
        for link in self.links_in:
            self.feed.add(link, self._inlet(link, node))
            self._turn(link)
        self._opened(node)
        worker.tell("state", node=self.plan.name, state="ready", text="")
        ending = worker.aborted
        if self.plan.role == "source":
            worker.started.wait()
            ending = self.context.stopping
        if not ending.is_set():
            self._loop(node)

    def _rests(self, error: StreamerError) -> bool:
        """Whether the node is to be tried again later although that may not help.

        One that never handled a picture is not: its parameters are wrong, more likely than not.
        Nor is an output that has had its last picture: it would only begin another one.
        """
        if self._finishing:
            return False
        always = self.plan.restart.policy == "always"
        return always and error.exit_status == 1 and self._worker.board.nodes[self.plan.name].worked

    def _close(self, node: Node[Any], *, failed: bool) -> None:
        """Closes the node; an error is its failure, unless it has failed already."""
        try:
            node.close()
        except Exception as error:
            if failed:
                _log.warning("%s could not be closed: %s", self.plan.name, mask(str(error)))
            elif isinstance(error, StreamerError):
                raise
            else:
                # All its work is done: starting it again would not help.
                sys.stderr.write(mask(f"{self.plan.name}: {traceback.format_exc()}"))
                raise NodeError(f"could not be closed: {type(error).__name__}: {error}") from error

    def _failed(self, text: str, exit_status: int, *, quick: bool) -> None:
        self._worker.tell(
            "failed",
            node=self.plan.name,
            text=mask(text)[:LONGEST_TEXT],
            exit_status=exit_status,
            retry=self.retry,
            quick=quick,
        )

    def _inlet(self, link: LinkPlan, node: Node[Any]) -> Inlet:
        assert self.feed is not None
        window = 1 if link.queue == "latest" and link.media == "video" else link.depth
        if isinstance(node, Join):
            window += 1  # a join keeps one picture while it waits for the next
        return Inlet(
            self._worker.zmq,
            consumer=self.plan.name,
            incarnation=self._worker.incarnation,
            window=window,
            board=self._worker.board.links[link.key],
            on_release=self.feed.ring,
            device=self.context.device,
            on_copy=self._worker.board.nodes[self.plan.name].copies.add,
        )

    def _loop(self, node: Node[Any]) -> None:
        worker, name = self._worker, self.plan.name
        assert self.feed is not None

        def tell(state: str) -> None:
            worker.tell("state", node=name, state=state, text="")

        def running() -> None:
            tell("running")
            if self.plan.role != "source":  # which has made its first picture by then
                self.context.patient(FIRST_PICTURE_LEAVE)

        def finishing() -> None:
            self._finishing = True
            tell("finishing")
            self.context.unwatched()  # completing a large file takes time

        self.context.patient(FIRST_PICTURE_LEAVE)
        Loop(
            node=node,
            context=self.context,
            board=worker.board.nodes[name],
            feed=self.feed,
            outlet=self.video,
            audio=self.audio,
            aborted=worker.aborted,
            frames=worker.plan.frames,
            running=running,
            finishing=finishing,
        ).run()


def _depth(plan: Plan, link: LinkPlan) -> int:
    # A join keeps one picture of each input while it waits for the next.
    joins = plan.node(link.target).role == "join"
    return link.depth + (1 if joins and link.queue == "wait" else 0)
