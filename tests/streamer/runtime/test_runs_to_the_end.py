"""Runs in which nobody dies: what is counted, in what order, and how a stream ends."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from plans import Listener, chain, link, node, others, pictures, plan, run

from streamer.runtime import Supervisor


def test_a_file_loses_nothing(tmp_path: Path) -> None:
    tape = tmp_path / "tape"
    report = run(chain(tape, src_count=300, work_add=1, out_seconds=0.0005))
    assert (report.exit_status, report.errors) == (0, [])
    shown = pictures(tape)
    assert [p.seq for p in shown] == list(range(300))
    assert [p.pts for p in shown] == list(range(300))
    assert all(p.low == p.high == (p.seq + 1) % 256 for p in shown)
    assert others(tape) == ["open 1", "end"]
    sink = report.sinks["out"]
    assert (sink.captured, sink.delivered, sink.dropped) == (300, 300, {})
    assert report.nodes["work"].frames == 300
    assert report.nodes["work"].copies_per_frame == 0
    assert {link.kind for link in report.links.values()} == {"memfd"}
    assert [entry.frames for entry in report.links.values()] == [300, 300]
    assert sink.age_ms["p50"] is not None


def test_a_shared_worker_reports_the_same_with_local_links(tmp_path: Path) -> None:
    tape = tmp_path / "tape"
    report = run(chain(tape, together=True, src_count=300, work_add=1))
    assert [p.seq for p in pictures(tape)] == list(range(300))
    assert all(p.low == p.high == (p.seq + 1) % 256 for p in pictures(tape))
    assert (report.sinks["out"].delivered, report.sinks["out"].dropped) == (300, {})
    assert {link.kind for link in report.links.values()} == {"local"}
    assert all(entry.copies_per_frame == 0 for entry in report.nodes.values())


def test_a_live_chain_drops_old_pictures_for_new_ones(tmp_path: Path) -> None:
    tape = tmp_path / "tape"
    report = run(chain(tape, live=True, src_count=100, src_fps=200, work_seconds=0.02))
    sink = report.sinks["out"]
    assert sink.captured == 100
    assert set(sink.dropped) == {"replaced"}
    seqs = [p.seq for p in pictures(tape)]
    assert seqs == sorted(set(seqs))
    assert seqs[-1] == 99  # the newest is never the one that goes
    assert all(p.low == p.high == p.seq % 256 == p.pts % 256 for p in pictures(tape))


def test_a_slow_sink_does_not_slow_a_fast_one(tmp_path: Path) -> None:
    fast, slow = tmp_path / "fast", tmp_path / "slow"
    report = run(
        plan(
            [
                node("src", "Ticks", live=True, count=100, fps=100),
                node("fast", "Tape", live=True, path=str(fast)),
                node("slow", "Tape", live=True, path=str(slow), seconds=0.3),
            ],
            [
                link("src", "fast", queue="latest", depth=2),
                link("src", "slow", queue="latest"),
            ],
        )
    )
    # Were the fast one held up by the slow one, it would have no more than that.
    assert report.sinks["fast"].delivered > 2 * report.sinks["slow"].delivered
    assert report.sinks["slow"].dropped["replaced"] > 50
    assert report.sinks["fast"].captured == report.sinks["slow"].captured == 100
    assert pictures(slow)[-1].seq == pictures(fast)[-1].seq == 99


@pytest.mark.parametrize(
    ("mode", "copies"), [("slot", 0), ("copy", 1), ("same", 1), ("keep_out", 0), ("keep_in", 0)]
)
def test_copies_are_counted(tmp_path: Path, mode: str, copies: int) -> None:
    report = run(
        chain(
            tmp_path / "tape",
            together=True,
            src_count=60,
            work_mode=mode,
            work_add=3,
            work_keep=2,
        )
    )
    assert report.errors == []
    assert report.sinks["out"].delivered == 60
    assert report.nodes["work"].copies_per_frame == copies
    added = 0 if mode == "same" else 3
    assert all(p.low == p.high == (p.seq + added) % 256 for p in pictures(tmp_path / "tape"))


@pytest.mark.parametrize("mode", ["keep_in", "keep_out"])
def test_pictures_kept_by_a_node_are_not_overwritten_and_hold_up_nobody(
    tmp_path: Path, mode: str
) -> None:
    tape = tmp_path / "tape"

    def enough(supervisor: Supervisor) -> None:
        if supervisor.report().sinks["out"].delivered > 30:
            supervisor.interrupt()

    made = chain(
        tape, live=True, src_count=10**6, src_fps=200, work_mode=mode, work_keep=2, work_add=1
    )
    report = run(made, Listener(on_tick=enough))
    assert report.errors == []  # the node itself looks whether they changed
    assert report.sinks["out"].delivered > 30
    # A source that is slow to end has its stream ended for it, before its last picture perhaps.
    after_the_end = report.sinks["out"].dropped.get("aborted", 0)
    assert pictures(tape)[-1].seq == report.sinks["out"].captured - 1 - after_the_end


def test_a_sink_that_writes_late_in_its_own_thread_gets_every_picture(tmp_path: Path) -> None:
    tape = tmp_path / "tape"
    report = run(chain(tape, together=True, src_count=150, out_late=True))
    assert [p.seq for p in pictures(tape)] == list(range(150))
    assert all(p.low == p.high == p.seq % 256 for p in pictures(tape))
    assert report.sinks["out"].delivered == 150


DROPS: list[tuple[dict[str, Any], dict[str, int]]] = [
    ({"work_skip_every": 4}, {"filtered": 15}),
    ({"work_bad_every": 6}, {"failed": 10}),
    ({"work_bad_every": 6, "work_mode": "bad_cycle"}, {"failed": 10}),
    ({"work_mode": "drop"}, {"rate": 60}),
    ({"work_mode": "drop_and_fail"}, {"rate": 60}),
    ({"out_drop_every": 3}, {"rate": 20}),
    ({"src_corrupt_every": 10}, {"corrupt": 6}),
    ({"work_bad_every": 2, "work_skip_every": 3, "src_corrupt_every": 10}, {}),
]


@pytest.mark.parametrize(("params", "dropped"), DROPS)
def test_every_drop_has_its_reason(
    tmp_path: Path, params: dict[str, Any], dropped: dict[str, int]
) -> None:
    # More bad pictures than there are slots: a slot that one of them costs would be missed.
    report = run(chain(tmp_path / "tape", together=True, src_count=60, **params))
    assert report.errors == []
    sink = report.sinks["out"]
    assert sink.captured == 60
    if dropped:
        assert sink.dropped == dropped
    else:
        assert sink.dropped == {"corrupt": 6, "filtered": 18, "failed": 16}
    assert sink.delivered == len(pictures(tmp_path / "tape"))


def test_a_larger_picture_in_mid_stream_gets_larger_slots(tmp_path: Path) -> None:
    tape = tmp_path / "tape"
    report = run(chain(tape, src_count=80, src_grow_at=40, work_add=1))
    assert report.sinks["out"].delivered == 80
    assert [p.size for p in pictures(tape)] == ["32x24"] * 40 + ["64x48"] * 40
    assert all(p.low == p.high == (p.seq + 1) % 256 for p in pictures(tape))


def test_frames_limit_the_run(tmp_path: Path) -> None:
    report = run(chain(tmp_path / "tape", together=True, src_count=1000, frames=25))
    assert (report.sinks["out"].captured, report.sinks["out"].delivered) == (25, 25)
    assert others(tmp_path / "tape") == ["open 1", "end"]


def test_a_duration_limits_the_run(tmp_path: Path) -> None:
    tape = tmp_path / "tape"
    report = run(chain(tape, together=True, src_count=100_000, src_fps=50), duration=0.5)
    assert report.exit_status == 0
    assert 0 < report.sinks["out"].delivered < 100_000
    assert report.sinks["out"].dropped == {}
    assert others(tape)[-1] == "end"


def test_a_source_may_yield_frames_around_arrays_of_its_own(tmp_path: Path) -> None:
    report = run(chain(tmp_path / "tape", together=True, src_count=40, src_yields="own"))
    assert [p.seq for p in pictures(tmp_path / "tape")] == list(range(40))
    assert report.nodes["src"].copies_per_frame == 1
    assert report.sinks["out"].delivered == 40


def test_interim_reports_add_up_and_their_counts_never_shrink(tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []

    def look(supervisor: Supervisor) -> None:
        sink = supervisor.report().sinks["out"]
        assert sink.captured == sink.delivered + sum(sink.dropped.values())
        assert all(count >= 0 for count in sink.dropped.values())
        assert "unaccounted" not in sink.dropped
        seen.append((sink.captured, sink.delivered))

    report = run(chain(tmp_path / "tape", src_count=3000, together=True), Listener(on_tick=look))
    assert report.sinks["out"].delivered == 3000
    assert seen == sorted(seen)
    assert seen


def sound_plan(tape: Path, **source: Any) -> Any:
    return plan(
        [
            node("src", "Ticks", wants_audio=True, count=100, **source),
            node("work", "Work", seconds=0.001),
            node("out", "Tape", path=str(tape), sound=True),
        ],
        [
            link("src", "work"),
            link("work", "out"),
            link("src", "out", media="audio", depth=16),
        ],
    )


def test_sound_is_announced_before_the_first_picture_and_arrives_whole(tmp_path: Path) -> None:
    tape = tmp_path / "tape"
    report = run(sound_plan(tape, sound=True))
    lines = tape.read_text().splitlines()
    assert lines[:2] == ["open 1", "audio 0 0"]
    assert [line for line in lines if line.startswith("audio")][1:] == [
        f"audio {number} 1" for number in range(100)
    ]
    assert report.sinks["out"].delivered == 100
    assert report.links["src->out:audio"].kind == "message"
    assert lines[-1] == "end"


def test_a_silent_source_keeps_no_sink_waiting(tmp_path: Path) -> None:
    report = run(sound_plan(tmp_path / "tape", sound=False))
    assert report.sinks["out"].delivered == 100
    assert others(tmp_path / "tape") == ["open 1", "end"]
