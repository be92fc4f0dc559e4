from __future__ import annotations

from web_stage import staged, ts_numbers, wait_for


def test_mpegts_begins_at_once_with_a_keyframe_and_shows_every_picture_in_order():
    with staged(keyframe_interval=60) as stage:
        wait_for(lambda: stage.number > 5)
        numbers = ts_numbers(f"http://127.0.0.1:{stage.port}/stream.ts", 40)
    assert numbers == list(range(numbers[0], numbers[0] + 40))
