from __future__ import annotations

import random

import pytest

from streamer import SourceError


def damage(path, seed, *, first=0.2, last=0.8, holes=40):
    """Overwrites bytes at random places of the middle of a file."""
    random_place = random.Random(seed)
    data = bytearray(path.read_bytes())
    low, high = int(len(data) * first), int(len(data) * last)
    for _ in range(holes):
        data[random_place.randrange(low, high)] = random_place.randrange(256)
    path.write_bytes(data)


@pytest.mark.parametrize("threads", [0, 1])
@pytest.mark.parametrize("seed", range(3))
def test_a_corrupt_stretch_is_skipped_and_counted(clip, play, seed, threads):
    # Fragments put the index in front, so that only pictures are hit.
    path = clip("clip.mp4", count=60, options={"g": "10"}, container={"movflags": "faststart"})
    damage(path, seed, first=0.35, last=0.85, holes=60)
    played = play(path, threads=threads)
    assert played.dropped["corrupt"] > 0
    assert len(played.headers) > 5
    assert len(played.headers) + played.dropped["corrupt"] == 60
    assert all(
        later.pts > sooner.pts
        for sooner, later in zip(played.headers, played.headers[1:], strict=False)
    )


def test_what_is_behind_the_corrupt_stretch_is_whole_again(clip, play):
    path = clip("clip.mp4", count=60, options={"g": "10"}, container={"movflags": "faststart"})
    whole = play(path)
    damage(path, 1, first=0.4, last=0.5, holes=30)
    played = play(path)
    assert played.dropped["corrupt"] > 0
    assert played.headers[-1].pts == whole.headers[-1].pts
    assert (played.pictures[-1] == whole.pictures[-1]).all()


def test_a_file_that_is_cut_off_plays_up_to_its_end_and_says_so(clip, play):
    path = clip("cut.mp4", count=60, options={"g": "10"}, container={"movflags": "faststart"})
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    played = play(path)
    assert 10 < len(played.headers) < 50
    assert any("the file is cut off" in note for note in played.context.notes)


def test_a_stream_without_one_good_picture_is_refused(clip, play):
    path = clip("dark.mp4", container={"movflags": "faststart"})
    data = bytearray(path.read_bytes())
    begin = data.index(b"mdat") + 4
    data[begin:] = bytes(len(data) - begin)
    path.write_bytes(data)
    with pytest.raises(SourceError, match="holds no picture that can be decoded"):
        play(path)
    # Neither does a loop over it turn for ever.
    with pytest.raises(SourceError, match="holds no picture that can be decoded"):
        play(path, loop=True)
