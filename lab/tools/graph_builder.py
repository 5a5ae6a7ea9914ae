"""Write ComfyUI graphs as the editor saves them: nodes by type, wires by name, rows in titled groups, long wires in lanes.

A `Graph` that is given inputs and outputs is the inside of a subgraph; `Graph.fold` puts it into another one as a single node.
Sizes and places of sockets are those of the editor's canvas, with advanced inputs folded away (see `geometry`).
"""

from __future__ import annotations

import json
import uuid
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import geometry
from comfyui_http import is_widget

COLOURS = {"load": "#5f8ea0", "search": "#6f9a5f", "look": "#a08f5f", "answer": "#9a6aa5"}
NOTE, NOTE_LOOK = "MarkdownNote", {"color": "#432", "bgcolor": "#653"}
HEAD, PAD = 64, 20  # from a group's edges to its nodes' bodies: above them, and elsewhere
GAP = 36  # between the nodes of a group
INSIDE, OUTSIDE = -10, -20  # the numbers of a subgraph's own input and output node
GROWING = "COMFY_AUTOGROW_V3"  # inputs that the editor adds as they are wired


@dataclass(eq=False)
class Node:
    """One node: its type, widget values, where its inputs come from, the points each wire passes, what is folded into it."""

    number: int
    type: str
    title: str
    values: dict
    wires: dict
    size: tuple[int, int] = (0, 0)
    position: tuple[int, int] = (0, 0)
    inside: Graph | None = None
    models: list[dict] = field(default_factory=list)
    via: dict[str, list[tuple[int, int]]] = field(default_factory=dict)

    def out(self, name: str) -> tuple[Node, str]:
        """One of the node's outputs, to wire it to an input."""
        return self, name

    @property
    def right(self) -> int:
        """Its right edge."""
        return self.position[0] + self.size[0]

    @property
    def bottom(self) -> int:
        """Its lower edge."""
        return self.position[1] + self.size[1]


@dataclass(eq=False)
class Graph:
    """A graph in the making. catalogue: the answer of /object_info. about, aliases: what a subgraph says of itself. first:
    the number of its first node; no two nodes of a file should share one."""

    name: str
    catalogue: dict
    about: str = ""
    aliases: tuple[str, ...] = ()
    first: int = 1
    nodes: list[Node] = field(default_factory=list)
    groups: list[dict] = field(default_factory=list)
    given: list[dict] = field(default_factory=list)
    gives: list[tuple[str, tuple[Node, str]]] = field(default_factory=list)
    app: dict[str, list] = field(default_factory=dict)

    # Nodes ---------------------------------------------------------------------------------------------------------

    def add(self, type: str, title: str = "", size: tuple[int, int] | None = None, **inputs) -> Node:
        """A node; an input given as a node, ``node.out(name)`` or ``graph.takes(name)`` is wired, anything else is a widget's
        value."""
        return self._add(type, title, size, None, inputs)

    def fold(self, inside: Graph, title: str = "", size: tuple[int, int] | None = None, **inputs) -> Node:
        """A subgraph as one node."""
        return self._add(inside.identity, title or inside.name, size, inside, inputs)

    def _add(self, type: str, title: str, size: tuple[int, int] | None, inside: Graph | None, inputs: dict) -> Node:
        wires = {name: value for name, value in inputs.items() if isinstance(value, (Node, tuple, dict))}
        values = {name: value for name, value in inputs.items() if name not in wires}
        wires = {name: (value, "") if isinstance(value, Node) else value for name, value in wires.items()}
        node = Node(len(self.nodes) + self.first, type, title, values, wires, inside=inside)
        node.size = size or geometry.size(type, self.inputs(node), self.outputs(node), node.wires, values)
        self.nodes.append(node)
        return node

    def note(self, text: str, width: int) -> Node:
        """A note in Markdown that says what to try, in letters that can be read at the opening zoom: those of headings."""
        lines = [line.replace("- ", "• ", 1) if line.startswith("- ") else line for line in text.split("\n") if line]
        large = "\n\n".join(line if line.startswith("#") else f"### {line}" for line in lines)
        return self.add(NOTE, "Read me", (width, geometry.note_height(lines, width)), text=large.replace("**", ""))

    def takes(self, name: str, label: str = "", default: Any = None) -> dict:
        """An input of a subgraph, to wire to its nodes; wired to a widget, it is that widget on the folded node."""
        slot = {"name": name, "label": label or name.replace("_", " "), "default": default}
        self.given.append(slot)
        return slot

    def returns(self, **outputs: Node | tuple[Node, str]) -> None:
        """Outputs of a subgraph, by their names."""
        self.gives += [(name, source if isinstance(source, tuple) else (source, "")) for name, source in outputs.items()]

    @property
    def identity(self) -> str:
        """What a subgraph is known by."""
        return str(uuid.uuid5(uuid.NAMESPACE_URL, f"ttsvar/{self.name}"))

    def inputs(self, node: Node) -> list[tuple[str, Any, dict]]:
        """Name, kind and options of a node's inputs, in order."""
        if node.inside:
            return [(slot["name"], *node.inside.taken(slot)) for slot in node.inside.given]
        if node.type == NOTE:
            return []
        entry = self.catalogue[node.type]
        parts = [(entry["input"][part], entry["input_order"][part]) for part in ("required", "optional") if part in entry["input"]]
        named = [(name, *specs[name], {})[:3] for specs, order in parts for name in order]
        return [spec for spec in named if spec[1] != GROWING]

    def taken(self, slot: dict) -> tuple[Any, dict]:
        """Kind and options of a subgraph's input: those of the first input that it is wired to."""
        node, name = next((node, name) for node in self.nodes for name, wire in node.wires.items() if wire is slot)
        kind, options = next((kind, options) for found, kind, options in self.inputs(node) if found == name)
        return kind, {**options, "advanced": False, **({} if slot["default"] is None else {"default": slot["default"]})}

    def outputs(self, node: Node) -> list[tuple[str, str]]:
        """Name and kind of a node's outputs."""
        if node.inside:
            return [(name, node.inside.kind(source)) for name, source in node.inside.gives]
        if node.type == NOTE:
            return []
        entry = self.catalogue[node.type]
        return list(zip(entry["output_name"], entry["output"], strict=True))

    def kind(self, source: tuple[Node, str]) -> str:
        """The type of an output."""
        return self.outputs(source[0])[self.slot(*source)][1]

    def slot(self, node: Node, output: str) -> int:
        """The place of an output among its node's."""
        return [name for name, _ in self.outputs(node)].index(output) if output else 0

    # Layout --------------------------------------------------------------------------------------------------------

    def row(self, nodes: list[Node], at: tuple[int, int], gap: int = 45) -> None:
        """Place nodes from left to right, their titles level."""
        x = at[0]
        for node in nodes:
            node.position = (x, at[1])
            x = node.right + gap

    def group(self, title: str, kind: str, nodes: list[Node], at: tuple[int, int] | None = None) -> int:
        """A titled frame around nodes, which are placed in a row from ``at`` or lie where they are; its lower edge."""
        if at:
            self.row(nodes, at, GAP)
        left, right = min(node.position[0] for node in nodes) - PAD, max(node.right for node in nodes) + PAD
        top, bottom = min(node.position[1] for node in nodes) - HEAD, max(node.bottom for node in nodes) + PAD
        look = {"color": COLOURS[kind], "font_size": 20, "flags": {}}
        bounding = [left, top, right - left, bottom - top]
        self.groups.append({"id": len(self.groups) + 1, "title": title, "bounding": bounding, **look})
        return bottom

    def lead(self, points: list[tuple[int, int]], *targets: tuple[Node, str]) -> None:
        """Send the wires to these inputs, all from one output, through points and then along the last point's height; each turns
        off that lane before its node, and all leave and arrive level with their sockets."""
        source, output = targets[0][0].wires[targets[0][1]]
        leaves = geometry.output_at(self._entry(source), self.slot(source, output))
        trunk = [(points[0][0], round(leaves[1])), *points]
        for node, name in targets:
            entry, x = self._entry(node), node.position[0] - 20
            place = next(at for at, socket in enumerate(entry["inputs"]) if socket["name"] == name)
            trunk.append((x, trunk[-1][1]))
            node.via[name] = [*trunk, (x, round(geometry.input_at(entry, place)[1]))]

    def on_phone(self, inputs: list[tuple[Node, str]], outputs: list[Node]) -> None:
        """What app mode shows: these widgets, and the pictures of these nodes."""
        self.app = {"inputs": [[node.number, name] for node, name in inputs], "outputs": [node.number for node in outputs]}

    # Files ---------------------------------------------------------------------------------------------------------

    def save(self, folder: Path) -> Path:
        """Write the graph as ``folder/name.json``, to open with all nodes in view."""
        entries, links, reroutes, passed = self._wired()
        folded = {node.inside.identity: node.inside for node in self.nodes if node.inside}  # each once, however often it is used
        scale, offset = geometry.opening(entries)
        extra: dict[str, Any] = {"ds": {"scale": scale, "offset": offset}, "workflowRendererVersion": "LG"}
        if reroutes:
            extra |= {"reroutes": reroutes, "linkExtensions": passed}
        if self.app:
            extra["linearData"] = self.app
        graph = {
            "id": self.identity, "revision": 0, "last_node_id": len(self.nodes), "last_link_id": len(links), "nodes": entries,
            "links": links, "groups": self.groups, "definitions": {"subgraphs": [one.definition() for one in folded.values()]},
            "config": {}, "extra": extra, "version": 0.4,
        }
        path = folder / f"{self.name}.json"
        folder.mkdir(exist_ok=True)
        path.write_text(json.dumps(graph, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        return path

    def definition(self) -> dict:
        """A subgraph as the editor saves it."""
        entries, links, _, _ = self._wired()
        keys = ("id", "origin_id", "origin_slot", "target_id", "target_slot", "type")
        left, right = min(node.position[0] for node in self.nodes), max(node.right for node in self.nodes)
        numbers = {"lastNodeId": max(node.number for node in self.nodes), "lastLinkId": len(links)}
        state = {"lastGroupId": len(self.groups), "lastRerouteId": 0, **numbers}
        given = [(slot["name"], self.taken(slot)[0], slot["label"]) for slot in self.given]
        gives = [(name, self.kind(source), name) for name, source in self.gives]
        inputs, outputs = self._slots(given, left - 160, links, INSIDE), self._slots(gives, right + 90, links, OUTSIDE)
        told = {"BlueprintDescription": self.about, "BlueprintSearchAliases": list(self.aliases)} if self.about else {}
        return {
            "id": self.identity, "version": 1, "state": state, "revision": 0, "config": {}, "name": self.name,
            "inputNode": {"id": INSIDE, "bounding": [left - 280, 0, 140, 40 + 20 * len(inputs)]},
            "outputNode": {"id": OUTSIDE, "bounding": [right + 60, 0, 140, 40 + 20 * len(outputs)]},
            "inputs": inputs, "outputs": outputs, "widgets": [], "nodes": entries, "groups": self.groups,
            "links": [dict(zip(keys, link, strict=True)) for link in links],
            "extra": {"workflowRendererVersion": "LG", **told}, "category": "TTS-VAR", "description": self.about,
        }

    def _slots(self, named: list[tuple[str, Any, str]], x: int, links: list, end: int) -> list[dict]:
        """A subgraph's inputs or outputs, each with the links that end there."""
        number = 1 if end == INSIDE else 3  # where a link names its source or target, and behind it the slot
        return [
            {
                "id": str(uuid.uuid5(uuid.NAMESPACE_URL, f"ttsvar/{self.name}/{end}/{name}")), "name": name,
                "type": _word(kind), "linkIds": [link[0] for link in links if link[number : number + 2] == [end, at]],
                "localized_name": name, "label": label, "pos": [x, 20 + 20 * at],
            }
            for at, (name, kind, label) in enumerate(named)
        ]

    def _wired(self) -> tuple[list[dict], list[list], list[dict], list[dict]]:
        """Nodes, links, reroutes, and which link passes which reroute last."""
        entries, links = {node.number: self._entry(node) for node in self.nodes}, []
        reroutes: dict[tuple, dict] = {}
        passed = []
        for target, name in ((node, name) for node in self.nodes for name in node.wires):
            node, wire = target, target.wires[name]
            number, sockets = len(links) + 1, entries[node.number]["inputs"]
            socket = next(socket for socket in sockets if socket["name"] == name)
            socket["link"] = number
            if isinstance(wire, dict):
                start, kind = (INSIDE, self.given.index(wire)), socket["type"]
            else:
                start, kind = (wire[0].number, self.slot(*wire)), self.kind(wire)
                entries[start[0]]["outputs"][start[1]]["links"].append(number)
            links.append([number, *start, node.number, sockets.index(socket), kind])
            if name in node.via:
                passed.append({"id": number, "parentId": _pass(reroutes, start, node.via[name], number)})
        for at, (_, source) in enumerate(self.gives):
            start = (source[0].number, self.slot(*source))
            links.append([len(links) + 1, *start, OUTSIDE, at, self.kind(source)])
            entries[start[0]]["outputs"][start[1]]["links"].append(len(links))
        return list(entries.values()), links, list(reroutes.values()), passed

    def _entry(self, node: Node) -> dict:
        width, height = node.size
        folded = geometry.widgets(self.inputs(node), node.wires, node.values)[1]
        line = geometry.FOLDED if folded and not node.inside else 0  # which unfolds inputs; a file's size is without it
        entry = {
            "id": node.number, "type": node.type, "pos": list(node.position), "size": [width, height - line], "flags": {},
            "order": node.number - self.first, "mode": 0, "inputs": [], "outputs": [], "properties": {}, "widgets_values": [],
        }
        if node.title:
            entry["title"] = node.title
        if node.type == NOTE:
            return {**entry, "widgets_values": [node.values["text"]], **NOTE_LOOK}
        if not node.inside:
            entry["properties"] = {"Node name for S&R": node.type, **({"models": node.models} if node.models else {})}
        labels = {slot["name"]: slot["label"] for slot in node.inside.given} if node.inside else {}
        for name, kind, options in self.inputs(node):
            widget = is_widget(kind, options)
            if not widget or name in node.wires or node.inside:
                socket = {"name": name, "type": _word(kind), "link": None, **({"label": labels[name]} if labels else {})}
                entry["inputs"].append({**socket, "widget": {"name": name}} if widget else socket)
        entry["outputs"] = [{"name": name, "type": kind, "links": []} for name, kind in self.outputs(node)]
        entry["widgets_values"] = self._values(node)
        return entry

    def _values(self, node: Node) -> list:
        left, values = dict(node.values), []
        for name, kind, options in self.inputs(node):
            if not is_widget(kind, options):
                continue
            choices = kind if isinstance(kind, list) else options.get("options")
            wire = node.wires.get(name)
            if isinstance(wire, dict) and wire["default"] is not None:
                left[name] = wire["default"]
            elif isinstance(wire, tuple) and options.get("multiline"):
                left[name] = ""  # the newer renderer shows what a wired text holds, which is not what is used
            values.append(left.pop(name, options.get("default", choices[0] if choices else "")))
            if options.get("control_after_generate") and not node.inside:
                values.append(left.pop(f"{name}_control", "fixed"))
        if left:
            raise ValueError(f"{node.type} has no {', '.join(left)}.")
        return values


def _word(kind: Any) -> str:
    return "COMBO" if isinstance(kind, list) else kind


def _pass(reroutes: dict[tuple, dict], start: tuple, points: list[tuple[int, int]], number: int) -> int:
    """Lead a link through reroutes that all links of its output share where their ways do; the last one's number."""
    parent = None
    for at in range(len(points)):
        key = (start, *points[: at + 1])
        found = reroutes.setdefault(key, {"id": len(reroutes) + 1, "pos": list(points[at]), "linkIds": []})
        if parent is not None:
            found["parentId"] = parent
        found["linkIds"].append(number)
        parent = found["id"]
    return parent
