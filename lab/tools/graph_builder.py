"""Write ComfyUI graphs as the editor saves them: nodes by type, wires by name, columns in titled groups that never overlap."""

from __future__ import annotations

import json
import uuid
from dataclasses import dataclass, field
from pathlib import Path

from comfyui_http import WIDGETS

TITLE, SOCKET, WIDGET, TEXT_BOX, PAD = 36, 22, 28, 110, 16
GAP_X, GAP_Y, GROUP_HEAD, GROUP_PAD = 60, 30, 70, 30
PICTURES = {"PreviewImage": (300, 320), "SaveImage": (320, 360), "TTSVAR_InspectState": (460, 560), "PreviewAny": (380, 240)}
WIDE = {"TTSVAR_PromptEncode": 340, "TTSVAR_Generate": 380, "MarkdownNote": 420, "PrimitiveStringMultiline": 340}
PREVIEW = {"TTSVAR_ScaleStepSampler": 250, "TTSVAR_Generate": 330}  # height of the live preview under the widgets
GROWING = "COMFY_AUTOGROW_V3"  # inputs that the editor adds as they are wired
COLOURS = {"load": "#3f5159", "search": "#3f5539", "look": "#59503f", "answer": "#593f5b"}


@dataclass
class Node:
    """One node of a graph: its type, widget values, and where its inputs come from."""

    number: int
    type: str
    title: str
    values: dict
    wires: dict
    size: tuple[int, int]
    position: tuple[int, int] = (0, 0)

    def out(self, name: str) -> tuple[Node, str]:
        """One of the node's outputs, to wire it to an input."""
        return self, name


@dataclass
class Graph:
    """A graph in the making. catalogue: the answer of /object_info."""

    name: str
    catalogue: dict
    nodes: list[Node] = field(default_factory=list)
    groups: list[dict] = field(default_factory=list)

    def add(self, type: str, title: str = "", size: tuple[int, int] | None = None, **inputs) -> Node:
        """A node; an input given as a node or ``node.out(name)`` is wired, anything else is a widget's value."""
        wires = {name: value for name, value in inputs.items() if isinstance(value, (Node, tuple))}
        values = {name: value for name, value in inputs.items() if name not in wires}
        wires = {name: value if isinstance(value, tuple) else (value, "") for name, value in wires.items()}
        node = Node(len(self.nodes) + 1, type, title, values, wires, (0, 0))
        node.size = size or self._size(node)
        self.nodes.append(node)
        return node

    def note(self, text: str, height: int = 300) -> Node:
        """A note in Markdown that says what to try."""
        return self.add("MarkdownNote", "What to try", (WIDE["MarkdownNote"], height), text=text)

    def group(self, title: str, kind: str, columns: list[list[Node]], at: tuple[int, int]) -> tuple[int, int]:
        """Place nodes column by column in a titled group; returns the right and bottom edge of the group."""
        x, bottom = at[0] + GROUP_PAD, at[1]
        for column in columns:
            y = at[1] + GROUP_HEAD
            for node in column:
                node.position = (x, y + TITLE)
                y += TITLE + node.size[1] + GAP_Y
            x += max(node.size[0] for node in column) + GAP_X
            bottom = max(bottom, y)
        size = [x - GAP_X + GROUP_PAD - at[0], bottom - at[1]]
        look = {"color": COLOURS[kind], "font_size": 24, "flags": {}}
        self.groups.append({"id": len(self.groups) + 1, "title": title, "bounding": [*at, *size], **look})
        return at[0] + size[0], at[1] + size[1]

    def save(self, folder: Path) -> Path:
        """Write the graph as ``folder/name.json``."""
        links, nodes = self._links()
        graph = {
            "id": str(uuid.uuid5(uuid.NAMESPACE_URL, f"ttsvar/{self.name}")),
            "revision": 0,
            "last_node_id": len(self.nodes),
            "last_link_id": len(links),
            "nodes": nodes,
            "links": links,
            "groups": self.groups,
            "config": {},
            "extra": {"ds": {"scale": 0.6, "offset": [40, 80]}},
            "version": 0.4,
        }
        path = folder / f"{self.name}.json"
        path.write_text(json.dumps(graph, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        return path

    def _links(self) -> tuple[list, list]:
        links, entries = [], {node.number: self._entry(node) for node in self.nodes}
        for node in self.nodes:
            for name, (source, output) in node.wires.items():
                slot = self._output(source, output)
                socket = next(s for s in entries[node.number]["inputs"] if s["name"] == name)
                place = entries[node.number]["inputs"].index(socket)
                number = len(links) + 1
                kind = self.catalogue[source.type]["output"][slot]
                links.append([number, source.number, slot, node.number, place, kind])
                socket["link"] = number
                entries[source.number]["outputs"][slot]["links"].append(number)
        return links, list(entries.values())

    def _entry(self, node: Node) -> dict:
        entry = {
            "id": node.number, "type": node.type, "pos": list(node.position), "size": list(node.size), "flags": {},
            "order": node.number - 1, "mode": 0, "inputs": [], "outputs": [],
            "properties": {"Node name for S&R": node.type}, "widgets_values": self._widget_values(node),
        }
        if node.title:
            entry["title"] = node.title
        if node.type == "MarkdownNote":
            return {**entry, "color": "#432", "bgcolor": "#653"}
        kinds = self.catalogue[node.type]
        for name, kind, options in self._inputs(node.type):
            widget = is_widget(kind, options)
            if not widget or name in node.wires:
                socket = {"name": name, "type": "COMBO" if isinstance(kind, list) else kind, "link": None}
                entry["inputs"].append({**socket, "widget": {"name": name}} if widget else socket)
        entry["outputs"] = [
            {"name": name, "type": kind, "links": []} for name, kind in zip(kinds["output_name"], kinds["output"], strict=True)
        ]
        return entry

    def _inputs(self, type: str) -> list[tuple[str, object, dict]]:
        entry = self.catalogue[type]
        parts = [(entry["input"][part], entry["input_order"][part]) for part in ("required", "optional") if part in entry["input"]]
        named = [(name, specs[name]) for specs, order in parts for name in order]
        named = [(name, spec) for name, spec in named if spec[0] != GROWING]
        return [(name, spec[0], spec[1] if len(spec) > 1 else {}) for name, spec in named]

    def _widget_values(self, node: Node) -> list:
        if node.type == "MarkdownNote":
            return [node.values["text"]]
        left, values = dict(node.values), []
        for name, kind, options in self._inputs(node.type):
            if not is_widget(kind, options):
                continue
            choices = kind if isinstance(kind, list) else options.get("options")
            values.append(left.pop(name, options.get("default", choices[0] if choices else "")))
            if options.get("control_after_generate"):
                values.append(left.pop(f"{name}_control", "fixed"))
        if left:
            raise ValueError(f"{node.type} has no {', '.join(left)}.")
        return values

    def _output(self, node: Node, name: str) -> int:
        names = self.catalogue[node.type]["output_name"]
        return names.index(name) if name else 0

    def _size(self, node: Node) -> tuple[int, int]:
        if node.type in PICTURES:
            return PICTURES[node.type]
        sockets, height = 0, PAD + PREVIEW.get(node.type, 0)
        for name, kind, options in self._inputs(node.type):
            if not is_widget(kind, options):
                sockets += 1
            elif options.get("multiline"):
                height += TEXT_BOX
            else:
                height += WIDGET * (2 if options.get("control_after_generate") else 1)
            sockets += name in node.wires and is_widget(kind, options)
        return WIDE.get(node.type, 290), height + SOCKET * max(sockets, len(self.catalogue[node.type]["output"]))


def is_widget(kind: object, options: dict) -> bool:
    """Whether an input of a node type is a widget and not a socket."""
    return (isinstance(kind, list) or kind in WIDGETS) and not options.get("forceInput")
