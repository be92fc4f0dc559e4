"""An outlet's books under any order of events: every slot and every picture is accounted for."""

from __future__ import annotations

import itertools
from collections import Counter
from fractions import Fraction
from typing import Any

import zmq
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from links import board, header

from streamer.link import wire
from streamer.link.consumer import Mark, Picture
from streamer.link.outlet import Consumer, Outlet, Slot

NAMES = ("newest", "few", "all")
NAME = st.sampled_from(NAMES)
numbers = itertools.count()


class Peer:
    """A consumer's process as the model plays it: it keeps what it gets until it is told."""

    def __init__(self, machine: Links, name: str, incarnation: int) -> None:
        self.incarnation = incarnation
        self.socket = machine.context.socket(zmq.DEALER)
        self.socket.connect(machine.endpoint)
        self.socket.send(wire.pack(wire.Hello(name, incarnation, 4, "host", 1)))
        self.holds: list[tuple[int, int]] = []
        self.kept: list[tuple[int, int]] = []

    def receive(self) -> list[wire.Message]:
        messages = []
        while self.socket.poll(0):
            message = wire.unpack(self.socket.recv())
            messages.append(message)
            match message:
                case wire.FrameReady():
                    self.holds.append((message.generation, message.slot))
                case wire.Watermark():
                    self.credit((0, wire.MARK_SLOT))
                case wire.End():
                    self.credit((0, wire.END_SLOT))
        return messages

    def credit(self, held: tuple[int, int], *, kept: bool = False) -> None:
        self.socket.send(wire.pack(wire.Credit(*held, kept=kept)))


class Links(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.context: zmq.Context[Any] = zmq.Context()
        self.endpoint = f"inproc://model{next(numbers)}"
        self.consumers = {
            "newest": Consumer(name="newest", queue="latest", depth=1, board=board()),
            "few": Consumer(name="few", queue="latest", depth=3, board=board()),
            "all": Consumer(name="all", queue="wait", depth=4, board=board()),
        }
        self.out = Outlet(
            self.context,
            endpoints=(self.endpoint,),
            incarnation=1,
            consumers=list(self.consumers.values()),
        )
        self.peers: dict[str, Peer] = {}
        self.lives: Counter[str] = Counter()
        self.gone: set[str] = set()
        self.seq = 0
        self.size = 1000
        self.got: Counter[str] = Counter()
        self.newest: dict[str, int] = dict.fromkeys(NAMES, -1)
        self.node_keeps: list[Slot] = []
        self.finished = False

    def teardown(self) -> None:
        for name in self.peers:
            self.peers[name].socket.close(0)
        self.out.close()
        self.context.destroy(linger=0)

    @rule(name=NAME)
    def hello(self, name: str) -> None:
        if name in self.peers or name in self.gone:
            return
        self.lives[name] += 1
        self.peers[name] = Peer(self, name, self.lives[name])
        self.out.service()

    @precondition(lambda self: not self.consumers["all"].full)
    @rule(keep=st.booleans(), grow=st.booleans())
    def publish(self, keep: bool, grow: bool) -> None:
        self.size += 1000 if grow and self.size < 4000 else 0
        slot = self.out.allocate(self.size)
        assert slot is not None
        assert slot.generation, "the slots of a live outlet were used up"
        keep = keep and len(self.node_keeps) < 2
        assert self.out.publish(slot, header(self.seq, width=16, height=16), keep=keep)
        if keep:
            self.node_keeps.append(slot)
        self.seq += 1

    @precondition(lambda self: self.node_keeps)
    @rule()
    def node_lets_go(self) -> None:
        self.out.discard(self.node_keeps.pop(0))

    @rule()
    def node_gives_up_a_slot(self) -> None:
        if not self.consumers["all"].full:
            slot = self.out.allocate(self.size)
            assert slot is not None
            self.out.discard(slot)

    @rule()
    def drop(self) -> None:
        self.out.pass_by(Mark("camera", self.seq, self.seq, Fraction(1, 30)))
        self.seq += 1

    @rule(name=NAME)
    def take(self, name: str) -> None:
        if name in self.peers:
            for message in self.peers[name].receive():
                if isinstance(message, wire.FrameReady):
                    assert message.header.seq > self.newest[name]  # in order, and none twice
                    self.newest[name] = message.header.seq
                    self.got[name] += 1
            self.out.service()

    @rule(name=NAME, which=st.integers(0, 10))
    def give_back(self, name: str, which: int) -> None:
        peer = self.peers.get(name)
        if peer is not None and (held := [*peer.holds, *peer.kept]):
            one = held[which % len(held)]
            (peer.holds if one in peer.holds else peer.kept).remove(one)
            peer.credit(one)
            self.out.service()

    @rule(name=NAME)
    def keep(self, name: str) -> None:
        peer = self.peers.get(name)
        if peer is not None and peer.holds:
            one = peer.holds.pop(0)
            peer.kept.append(one)
            peer.credit(one, kept=True)
            self.out.service()

    @rule(name=NAME, generation=st.integers(0, 5), slot=st.integers(-3, 12), kept=st.booleans())
    def credit_what_is_not_held(self, name: str, generation: int, slot: int, kept: bool) -> None:
        peer = self.peers.get(name)
        if peer is None:
            return
        consumer = self.consumers[name]
        if (generation, slot) not in (*consumer.outstanding, *consumer.kept):
            before = self.out.protocol_errors
            peer.credit((generation, slot), kept=kept)
            self.out.service()
            assert self.out.protocol_errors == before + 1

    @rule(name=NAME, told=st.booleans())
    def die(self, name: str, told: bool) -> None:
        peer = self.peers.pop(name, None)
        if peer is not None:
            peer.socket.close(0)
            if told:  # else the news comes after its successor's hello, or never
                self.out.consumer_down(name, self.lives[name])

    @rule(name=NAME)
    def late_news_of_a_death(self, name: str) -> None:
        if self.lives[name] > 1 and name in self.peers:
            before = list(self.consumers[name].outstanding)
            self.out.consumer_down(name, self.lives[name] - 1)
            assert self.consumers[name].outstanding == before

    @precondition(lambda self: self.seq > 20)
    @rule(name=NAME)
    def leave(self, name: str) -> None:
        if name not in self.peers:
            self.gone.add(name)
            self.out.consumer_gone(name)

    @precondition(lambda self: self.seq > 30)
    @rule()
    def finish(self) -> None:
        self.finished = True
        self.out.finish()

    @invariant()
    def slots_are_held_by_exactly_those_who_have_them(self) -> None:
        with self.out._news:
            self.out._pool.settle()
        held: Counter[tuple[int, int]] = Counter()
        for consumer in self.consumers.values():
            for generation, slot in (*consumer.outstanding, *consumer.kept):
                held[generation, slot] += slot >= 0
            for entry in consumer.mailbox:
                if isinstance(entry, Picture):
                    held[entry.generation.number, entry.slot] += 1
        for kept in self.node_keeps:
            held[kept.generation, kept.index] += 1
        books = Counter(
            {
                (generation.number, slot): holders
                for generation in self.out._pool.generations
                for slot, holders in enumerate(generation.holders)
            }
        )
        assert all(holders >= 0 for holders in books.values())
        assert +books == +held

    @invariant()
    def what_is_held_by_peers_is_on_the_books(self) -> None:
        for name, peer in self.peers.items():
            consumer = self.consumers[name]
            known = [*consumer.outstanding, *consumer.kept]
            if consumer.incarnation == peer.incarnation:
                assert all(one in known for one in (*peer.holds, *peer.kept))

    @invariant()
    def windows_and_depths_hold(self) -> None:
        for consumer in self.consumers.values():
            assert len(consumer.outstanding) <= max(consumer.window, 1)
            assert len(consumer.kept) <= 2
            waiting = sum(isinstance(entry, Picture) for entry in consumer.mailbox)
            if consumer.queue == "latest":
                assert waiting <= consumer.depth
            else:
                under_way = sum(slot != wire.MARK_SLOT for _, slot in consumer.outstanding)
                ends = [slot for _, slot in consumer.outstanding if slot == wire.END_SLOT]
                assert waiting + under_way - len(ends) <= consumer.depth
                marks = [isinstance(entry, Mark) for entry in consumer.mailbox]
                assert not any(a and b for a, b in itertools.pairwise(marks))

    @invariant()
    def every_picture_is_somewhere(self) -> None:
        for name, consumer in self.consumers.items():
            offered = consumer.board.offered.value
            dropped = sum(cell.value for cell in consumer.board.dropped.values())
            waiting = sum(isinstance(entry, Picture) for entry in consumer.mailbox)
            sent = offered - dropped - waiting
            assert sent >= self.got[name]
            if consumer.queue == "wait" and not (self.finished or consumer.gone):
                assert dropped == 0

    @invariant()
    def only_slabs_in_use_are_kept(self) -> None:
        *old, _present = self.out._pool.generations or (None,)
        assert all(any(generation.holders) for generation in old)

    @invariant()
    def it_is_drained_only_when_nothing_is_owed(self) -> None:
        if self.out.drained:
            assert self.finished
            for consumer in self.consumers.values():
                owed = [*consumer.mailbox, *consumer.outstanding, *consumer.kept]
                assert consumer.gone or not owed


TestLinks = Links.TestCase
TestLinks.settings = settings(max_examples=120, stateful_step_count=60, deadline=None)
