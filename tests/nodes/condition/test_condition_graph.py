"""The condition node in a graph of its own processes, from a file to a file."""

from __future__ import annotations

from fractions import Fraction

import av
import cv2
import numpy as np
import pytest

import streamer

FRAMES, SIZE = 12, (160, 96)


@pytest.fixture
def clip(tmp_path, astronaut):
    """A lossless clip that pans over a photograph, and its pictures."""
    pictures = [
        np.ascontiguousarray(astronaut[100 : 100 + SIZE[1], 120 + 4 * n :][:, : SIZE[0]])
        for n in range(FRAMES)
    ]
    path = tmp_path / "in.mkv"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("ffv1", rate=25)
        stream.width, stream.height = SIZE
        stream.pix_fmt = "bgr0"
        stream.time_base = Fraction(1, 25)
        for number, picture in enumerate(pictures):
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame.pts = number
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path, pictures


def test_edges_of_a_file_come_out_as_a_file(tmp_path, clip):
    path, pictures = clip
    out = tmp_path / "out.mkv"
    graph = streamer.Graph.from_dict(
        {
            "name": "edges",
            "nodes": {
                "source": {"uses": "decoder", "with": {"url": str(path)}},
                "edges": {
                    "uses": "condition",
                    "from": "source",
                    "with": {"kind": "canny", "low": 60, "high": 150},
                },
                "sink": {
                    "uses": "encoder",
                    "from": "edges",
                    "with": {"url": str(out), "codec": "ffv1"},
                },
            },
        }
    )
    report = streamer.run(graph)
    assert report.sinks["sink"].delivered == FRAMES
    assert report.nodes["edges"].copies_per_frame == 0
    with av.open(str(out)) as container:
        made = [frame.to_ndarray(format="gray") for frame in container.decode(video=0)]
    assert len(made) == FRAMES
    for picture, shown in zip(pictures, made, strict=True):
        expected = cv2.Canny(cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY), 60, 150)
        np.testing.assert_array_equal(shown > 128, expected > 128)
