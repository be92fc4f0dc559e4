from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from streamer import Graph
from streamer.graph.plan import LinkPlan, Plan, RestartPlan, WorkerPlan


def node(kind: str, source: Any = None, /, **params: Any) -> dict[str, Any]:
    made = {"uses": f"graph_kinds:{kind}", "with": params}
    return made if source is None else {**made, "from": source}


def video(source: str, target: str, **changes: Any) -> LinkPlan:
    plain = {
        "source": source,
        "target": target,
        "input": source,
        "media": "video",
        "queue": "latest",
        "depth": 1,
        "leading": True,
    }
    return LinkPlan(**{**plain, **changes})


def fan(**changes: Any) -> Graph:
    nodes = {
        "out": node("Sheet", "wall", path="wall.mkv"),
        "wall": node("Wall", ["ink", "oil", "clip"]),
        "oil": node("Style", "camera", prompt="oil"),
        "ink": node("Style", "camera", prompt="ink"),
        "clip": node("Camera", url="clip.mp4", live=False),
        "camera": node("Camera", url="rtsp://x"),
        **changes,
    }
    return Graph.from_dict({"name": "fan", "nodes": nodes, "workers": {"gpu0": ["oil", "ink"]}})


def test_senders_come_before_receivers() -> None:
    plan = fan().plan()
    assert [item.name for item in plan.nodes] == ["clip", "camera", "oil", "ink", "wall", "out"]
    assert plan.workers == (
        WorkerPlan(name="clip", nodes=("clip",)),
        WorkerPlan(name="camera", nodes=("camera",)),
        WorkerPlan(name="gpu0", nodes=("oil", "ink")),
        WorkerPlan(name="wall", nodes=("wall",)),
        WorkerPlan(name="out", nodes=("out",)),
    )


def test_links_follow_the_source() -> None:
    assert fan().links == (
        video("camera", "oil"),
        video("camera", "ink"),
        video("ink", "wall"),
        video("oil", "wall", leading=False),
        video("clip", "wall", leading=False, queue="wait", depth=4),
        video("wall", "out"),
    )


def test_a_node_is_as_live_as_its_leading_input() -> None:
    live = {item.name: item.live for item in fan().plan().nodes}
    assert live == dict.fromkeys(["camera", "oil", "ink", "wall", "out"], True) | {"clip": False}
    led = fan(wall=node("Wall", ["clip", "ink", "oil"]))
    assert not led.nodes["wall"].live
    assert not led.nodes["out"].live
    assert led.links[-1].queue == "wait"


def test_policies_of_the_file_win() -> None:
    inputs = {"left": {"node": "ink", "queue": "wait"}, "right": {"node": "oil", "depth": 2}}
    links = fan(
        wall=node("Wall", inputs),
        clip=node("Style", "camera"),
        more=node("Sheet", "clip", path="x"),
    ).plan()
    assert links.inputs("wall") == (
        video("ink", "wall", input="left", queue="wait", depth=4),
        video("oil", "wall", input="right", depth=2, leading=False),
    )


def test_restarts() -> None:
    nodes = fan(
        oil={**node("Style", "camera"), "restart": {"policy": "never", "max": 2, "window": 9}},
        ink={**node("Style", "camera"), "restart": {"max": 0, "rest": 3, "hang": 0}},
        sheet={**node("Sheet", "clip", path="x"), "restart": {"hang": 90}},
    ).nodes
    # A show goes on; a job on files ends with what went wrong.
    usual = RestartPlan(policy="always", max=5, window=60.0, rest=30.0, hang=20.0)
    assert nodes["camera"].restart == nodes["out"].restart == usual
    assert nodes["sheet"].restart == replace(usual, policy="on-failure", hang=90.0)
    assert nodes["clip"].restart == replace(usual, policy="never")
    assert nodes["oil"].restart == RestartPlan(policy="never", max=2, window=9.0)
    assert nodes["ink"].restart == replace(usual, max=0, rest=3.0, hang=0.0)


def test_sound_goes_from_the_leading_source_to_sinks_that_hold_it() -> None:
    plan = fan(out=node("Sheet", "wall", path="wall.mp4")).plan()
    sound = LinkPlan(
        source="camera",
        target="out",
        input="audio",
        media="audio",
        queue="latest",
        depth=256,
        leading=False,
    )
    assert plan.links[-1] == sound
    led = fan(wall=node("Wall", ["clip", "ink", "oil"]), out=node("Sheet", "wall", path="a.mp4"))
    assert led.links[-1] == replace(sound, source="clip", queue="wait")
    assert sound.key == "camera->out:audio"
    assert {item.name for item in plan.nodes if item.wants_audio} == {"camera"}
    assert plan.inputs("out") == (video("wall", "out"), sound)
    assert [link.source for link in plan.chain("out")] == ["camera", "ink", "wall"]
    assert not any(item.wants_audio for item in fan().plan().nodes)


def test_a_recording_without_a_node_between_has_both_links() -> None:
    plan = Graph.from_dict(
        {"nodes": {"camera": node("Camera", url="x"), "out": node("Sheet", "camera", path="x.mp4")}}
    ).plan()
    assert [link.key for link in plan.links] == ["camera->out", "camera->out:audio"]


def test_formats_wanted_are_those_of_all_consumers_in_the_first_ones_order() -> None:
    plan = Graph.from_dict(
        {
            "nodes": {
                "camera": node("Camera", url="x"),
                "wide": node("Wide", "camera"),
                "sheet": node("Sheet", "camera", path="a"),
                "more": node("Sheet", "wide", path="b"),
            }
        }
    ).plan()
    assert plan.node("camera").wanted == ("rgb24", "gray")
    assert plan.node("wide").wanted == ("yuv420p", "rgb24", "gray")
    assert plan.node("more").wanted == ()


def test_a_node_of_one_function() -> None:
    plan = Graph.from_dict(
        {
            "nodes": {
                "camera": node("Camera", url="x"),
                "invert": {**node("invert", "camera", amount=0.5), "gpu": 1},
                "out": node("Sheet", "invert", path="a"),
            }
        }
    ).plan(frames=7)
    made = plan.node("invert")
    assert (made.entry, made.role, made.params, made.gpu) == (
        "graph_kinds:invert",
        "transform",
        {"amount": 0.5},
        1,
    )
    assert plan.frames == 7


def test_installed_kinds_are_named_by_module_and_class() -> None:
    from streamer.registry import kinds

    assert kinds()["decoder"] == "nodes.decoder:Decoder"


def test_plans_survive_json() -> None:
    plan = fan(out=node("Sheet", "wall", path="wall.mp4")).plan(frames=3)
    assert Plan.from_dict(json.loads(json.dumps(plan.to_dict()))) == plan


def test_no_frames_is_no_plan() -> None:
    with pytest.raises(ValueError, match="frames must be at least 1, not 0"):
        fan().plan(frames=0)


def test_reprs() -> None:
    assert repr(fan()) == "<Graph fan: 6 nodes, 6 links>"
