"""The example graphs as drawings, computed from their files: what is in view when one opens, and where its wires run."""

from __future__ import annotations

import itertools
import json
import sys

import pytest
from host_stand_in import ROOT

sys.path.insert(0, str(ROOT / "lab" / "tools"))
import geometry

FILES = sorted((ROOT / "workflows").glob("*.json"))
SIDE_BAR, TOP_BAR = 70, 90  # pixels of the window that the page's own bars cover
SMALLEST = 0.6


def drawn(test):
    return pytest.mark.parametrize("graph", [pytest.param(load(path), id=path.stem) for path in FILES])(test)


def load(path) -> dict:
    return json.loads(path.read_text(encoding="utf-8"))


def within(point, box, margin: float = 0) -> bool:
    return box[0] - margin < point[0] < box[2] + margin and box[1] - margin < point[1] < box[3] + margin


def edges(group: dict) -> tuple:
    x, y, width, height = group["bounding"]
    return x, y, x + width, y + height


def name(node: dict) -> str:
    return node.get("title") or node["type"]


@drawn
def test_it_opens_large_enough_to_read_and_clear_of_the_bars(graph):
    scale, offset = geometry.opening(graph["nodes"])
    view = graph["extra"]["ds"]
    assert scale >= SMALLEST and (view["scale"], view["offset"]) == (scale, offset)
    boxes = [geometry.box(node) for node in graph["nodes"]] + [edges(group) for group in graph["groups"]]
    assert (min(box[0] for box in boxes) + offset[0]) * scale > SIDE_BAR
    assert (min(box[1] for box in boxes) + offset[1]) * scale > TOP_BAR


@drawn
def test_one_note_stands_at_the_top_left(graph):
    (note,) = [node for node in graph["nodes"] if node["type"] == "MarkdownNote"]
    left, top = geometry.box(note)[:2]
    boxes = [geometry.box(node) for node in graph["nodes"]]
    assert left <= min(box[0] for box in boxes) + 20 and top <= min(box[1] for box in boxes)
    assert "Try" in note["widgets_values"][0]


@drawn
def test_nodes_and_groups_do_not_overlap_and_every_node_is_in_a_group(graph):
    boxes = [geometry.box(node) for node in graph["nodes"]]
    for one, two in itertools.combinations(boxes, 2):
        assert not overlap(one, two), f"nodes overlap: {one}, {two}"
    groups = [edges(group) for group in graph["groups"]]
    for one, two in itertools.combinations(groups, 2):
        assert not overlap(one, two), f"groups overlap: {one}, {two}"
    for node, box in zip(graph["nodes"], boxes, strict=True):
        inside = [group for group in groups if overlap(box, group)]
        assert len(inside) == (node["type"] != "MarkdownNote"), f"{name(node)} lies in {len(inside)} groups"
        assert all(within(corner, inside[0]) for corner in (box[:2], box[2:]) if inside)


def overlap(one, two) -> bool:
    return one[0] < two[2] and two[0] < one[2] and one[1] < two[3] and two[1] < one[3]


@drawn
def test_no_wire_runs_through_a_node_or_across_a_foreign_group(graph):
    for source, target, points in geometry.wires(graph):
        what = f"{name(source)} → {name(target)}"
        for node in graph["nodes"]:
            ends = (node is source) + (node is target)
            through = [point for point in points if within(point, geometry.box(node), -6 if ends else 0)]
            assert not through, f"{what} runs through {name(node)} at {through[0]}"
        for group in graph["groups"]:
            box = edges(group)
            if not any(within(geometry.box(node)[:2], box) for node in (source, target)):
                across = [point for point in points if within(point, box, -4)]
                assert not across, f"{what} crosses {group['title']} at {across[0]}"


@drawn
def test_wires_run_from_left_to_right(graph):
    """Or, where rows follow one another like lines of text, from the end of one to the beginning of the next."""
    for source, target, _ in geometry.wires(graph):
        (right, bottom), (x, y) = geometry.box(source)[2:], geometry.box(target)[:2]
        assert x >= right or y >= bottom, f"{name(source)} → {name(target)} runs back"


def test_the_checks_see_what_they_look_for():
    node = {"pos": [0, 0], "size": [100, 50], "inputs": [{"name": "state"}], "outputs": [{"name": "state"}]}
    ends = geometry.output_at(node, 0), geometry.input_at({**node, "pos": [400, 0]}, 0)
    straight = list(geometry.wire(ends[0], [], ends[1]))
    assert straight[0] == ends[0] and straight[-1] == ends[1] and any(within(point, (200, -30, 300, 50)) for point in straight)
    led = list(geometry.wire(ends[0], [(120, 200), (380, 200)], ends[1]))
    assert not any(within(point, (150, -30, 350, 100)) for point in led)
    assert geometry.opening([{"pos": [0, 30], "size": [1420, 500]}])[0] == 1.0
