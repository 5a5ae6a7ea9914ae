"""How large the editor draws a node, where its sockets lie, the way a wire takes, and what of a graph is in view when it opens.

Read from the editor (frontends 1.49 and 1.58): a title of 30, rows of 20 for sockets, of 24 for widgets on the classic canvas and
28 in the newer renderer, which also adds a line where inputs are folded away; a node is as high as either needs. At 1920 x 1080 a
template opens with its nodes' bounds at three quarters of the window.
"""

from __future__ import annotations

import math
import textwrap
from collections.abc import Iterator
from typing import Any

from comfyui_http import is_widget

TITLE, SOCKET, WIDGET, TEXT_BOX, FRAME = 30, 20, 28, 96, 42
FOLDED = 28  # the line that unfolds advanced inputs, below what a file calls the height of a node
SPOKEN = 60  # the lines under the widgets in which a node says what it did
SPEAKING = {
    "TTSVAR_ScaleStepSampler", "TTSVAR_ClusterSelector", "TTSVAR_PotentialResampler", "TTSVAR_SelectBest", "TTSVAR_SelectByHand",
    "TTSVAR_ChooseSketches", "TTSVAR_SaveState", "TTSVAR_LoadState", "TTSVAR_RewardScorer", "TTSVAR_Generate",
    "TTSVAR_ScoreImages", "TTSVAR_BudgetPlan",
}
BUTTONS = {"TTSVAR_Generate": 1}  # that the page adds below the widgets (web/price.js)
WINDOW, FILLED, MARGIN = (1920, 1080), 0.75, 10
WIDTH = 225


def size(type: str, inputs: list[tuple[str, Any, dict]], outputs: list, wires: dict, values: dict) -> tuple[int, int]:
    """Width and height of a node's body, with room for what the node says. values: what its widgets hold, where that is not their
    default."""
    shown, folded = widgets(inputs, wires, values)
    sockets = max(1, sum(not is_widget(kind, options) for _, kind, options in inputs), len(outputs))
    rows = sum(TEXT_BOX if one.get("multiline") else WIDGET for one in shown) + WIDGET * BUTTONS.get(type, 0)
    return WIDTH, FRAME + sockets * SOCKET + rows + FOLDED * bool(folded) + SPOKEN * (type in SPEAKING)


def note_height(paragraphs: list[str], width: int) -> int:
    """How high the newer renderer draws a note in the letters of headings, rounded up; the classic canvas needs less."""
    lines = sum(len(textwrap.wrap(paragraph, (width - 30) // 7)) for paragraph in paragraphs)
    return 30 + 31 * len(paragraphs) + 16 * lines


def widgets(inputs: list[tuple[str, Any, dict]], wires: dict, values: dict) -> tuple[list[dict], list[dict]]:
    """The options of the widgets that are shown, and of those that are folded away."""
    options = {name: options for name, kind, options in inputs if is_widget(kind, options)}
    held = {name: values.get(name, one.get("default")) for name, one in options.items() if name not in wires}

    def applies(rule: dict[str, list]) -> bool:
        """Whether a widget that belongs to certain values of others is shown (see web/fold.js)."""
        return all(name not in held or held[name] in fitting for name, fitting in rule.items())

    apply = [one for name, one in options.items() if name in wires or applies(one.get("ttsvar_only", {}))]
    return [one for one in apply if not one.get("advanced")], [one for one in apply if one.get("advanced")]


def box(node: dict) -> tuple[float, float, float, float]:
    """Left, top, right and lower edge of a node, its title included."""
    (x, y), (width, height) = node["pos"], node["size"]
    return x, y - TITLE, x + width, y + height


def opening(nodes: list[dict]) -> tuple[float, list[float]]:
    """Scale and offset with which the editor opens these nodes as a template."""
    lefts, tops, rights, bottoms = zip(*map(box, nodes), strict=True)
    left, top = min(lefts) - MARGIN, min(tops) - MARGIN
    width, height = max(rights) + MARGIN - left, max(bottoms) + MARGIN - top
    scale = min(FILLED * WINDOW[0] / max(width, 300), FILLED * WINDOW[1] / max(height, 300), 10)
    offset = [-left - width / 2 + WINDOW[0] / scale / 2, -top - height / 2 + WINDOW[1] / scale / 2]
    return round(scale, 4), [round(value, 1) for value in offset]


def input_at(node: dict, place: int) -> tuple[float, float]:
    """Where a wire enters: sockets first, from the top; a widget's at its row."""
    asked, (x, y) = node["inputs"][place], node["pos"]
    sockets, widgets = ([one for one in node["inputs"] if ("widget" in one) is such] for such in (False, True))
    if "widget" not in asked:
        return x, y + SOCKET * (sockets.index(asked) + 0.7)
    return x, y + max(1, len(sockets), len(node["outputs"])) * SOCKET + 24 * (widgets.index(asked) + 0.5)


def output_at(node: dict, slot: int) -> tuple[float, float]:
    """Where a wire leaves."""
    return node["pos"][0] + node["size"][0], node["pos"][1] + SOCKET * (slot + 0.7)


def wire(start: tuple[float, float], via: list[tuple[float, float]], end: tuple[float, float]) -> Iterator[tuple]:
    """Points of a wire: a spline that leaves to the right and arrives from the left, between points nearly straight."""
    points = [start, *via, end]
    for at in range(len(points) - 1):
        one, two = points[at], points[at + 1]
        reach = 0.25 * math.dist(one, two)
        out = (one[0] + reach, one[1]) if at == 0 else one
        into = (two[0] - reach, two[1]) if at == len(points) - 2 else two
        for t in (step / 40 for step in range(41)):
            weights = (1 - t) ** 3, 3 * t * (1 - t) ** 2, 3 * t**2 * (1 - t), t**3
            yield tuple(sum(w * p[axis] for w, p in zip(weights, (one, out, into, two), strict=True)) for axis in (0, 1))


def wires(graph: dict) -> Iterator[tuple[dict, dict, list]]:
    """Each link with the way it takes: the nodes it joins and points all along it."""
    nodes = {node["id"]: node for node in graph["nodes"]}
    reroutes = {one["id"]: one for one in graph["extra"].get("reroutes", [])}
    last = {one["id"]: one["parentId"] for one in graph["extra"].get("linkExtensions", [])}
    for number, source, slot, target, place, _ in graph["links"]:
        via, at = [], last.get(number)
        while at is not None:
            assert number in reroutes[at]["linkIds"]
            via.insert(0, reroutes[at]["pos"])
            at = reroutes[at].get("parentId")
        ends = output_at(nodes[source], slot), input_at(nodes[target], place)
        yield nodes[source], nodes[target], list(wire(ends[0], via, ends[1]))
