"""Drive a running ComfyUI over HTTP with the standard library: wait for it, run a saved graph, fetch the pictures."""

from __future__ import annotations

import json
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path

WIDGETS = {"INT", "FLOAT", "STRING", "BOOLEAN", "COMBO"}


class ServerError(Exception):
    """The server ended, refused a graph or failed in it; the text says which."""


def wait_for_nodes(address: str, prefix: str, server: subprocess.Popen, seconds: float = 300) -> dict:
    """Wait until the server answers; return its catalogue of nodes. Raises ServerError if none begins with ``prefix``."""
    deadline = time.monotonic() + seconds
    while server.poll() is None and time.monotonic() < deadline:
        try:
            catalogue = ask(f"{address}/object_info")
        except OSError:
            time.sleep(0.3)
            continue
        if not any(name.startswith(prefix) for name in catalogue):
            raise ServerError(f"ComfyUI started, but without any node whose name begins with {prefix}.")
        return catalogue
    raise ServerError("ComfyUI did not start." if server.poll() is None else "ComfyUI ended while it started.")


def run_graph(address: str, graph: Path, catalogue: dict, out: Path, server: subprocess.Popen) -> list[Path]:
    """Run a graph saved by the editor; write the pictures it saved (or, if none, those it showed) to ``out``."""
    prompt = to_prompt(json.loads(graph.read_text(encoding="utf-8")), catalogue)
    outputs = run(address, prompt, graph.name, server)
    images = [image for output in outputs.values() for image in output.get("images", [])]
    if not images:
        raise ServerError(f"{graph.name} ran but made no picture; it needs a Preview Image or Save Image node.")
    out.mkdir(parents=True, exist_ok=True)
    saved = [image for image in images if image["type"] == "output"]
    paths = {out / Path(image["filename"]).name: image for image in saved or images}
    for path, image in paths.items():
        path.write_bytes(fetch(address, image))
    return list(paths)


def run(address: str, prompt: dict, name: str, server: subprocess.Popen | None = None) -> dict[str, dict]:
    """Run a prompt to its end; what each node put out. Raises ServerError, calling it ``name``, also where ``server`` ends."""
    try:
        number = ask(f"{address}/prompt", {"prompt": prompt})["prompt_id"]
    except urllib.error.HTTPError as refused:
        raise ServerError(f"ComfyUI refused {name}: {refused.read().decode()}") from None
    while not (done := ask(f"{address}/history/{number}").get(number)):
        if server and server.poll() is not None:
            raise ServerError(f"ComfyUI ended while {name} ran.")
        time.sleep(0.1)
    if done["status"]["status_str"] != "success":
        raise ServerError(f"{name} failed: {json.dumps(done['status']['messages'][-1], indent=1)}")
    return done["outputs"]


def fetch(address: str, image: dict) -> bytes:
    """One picture that an output names."""
    with urllib.request.urlopen(f"{address}/view?{urllib.parse.urlencode(image)}", timeout=60) as answer:
        return answer.read()


def to_prompt(graph: dict, catalogue: dict) -> dict:
    """Turn a graph as the editor saves it into what /prompt takes: inputs by name, links as (node, slot), subgraphs unfolded with
    their nodes named "outer:inner"."""
    return _unfold(graph, graph.get("definitions", {}).get("subgraphs", []), catalogue, "", {})


def _unfold(graph: dict, definitions: list[dict], catalogue: dict, path: str, given: dict) -> dict:
    """The nodes of a graph or subgraph as a prompt. given: what a subgraph's inputs hold, by their place: a link or a value."""
    folded, nodes = ({one["id"]: one for one in ones} for ones in (definitions, graph["nodes"]))
    links = [list(link.values()) if isinstance(link, dict) else link for link in graph["links"]]
    sources, prompt = {link[0]: (link[1], link[2]) for link in links}, {}

    def source(origin: int, slot: int) -> object:
        """What a link brings: a value, or the node and slot it comes from in the end."""
        if origin == -10:
            return given.get(slot)
        if nodes[origin]["type"] in folded:
            return _inner_source(folded[nodes[origin]["type"]], slot, f"{path}{origin}:", folded)
        return [f"{path}{origin}", slot]

    for node in graph["nodes"]:
        linked = {one["name"]: sources[one["link"]] for one in node.get("inputs", []) if one.get("link") in sources}
        inputs = {name: source(*where) for name, where in linked.items()}
        if node.get("mode", 0):
            continue  # switched off
        if node["type"] in folded:
            inner = folded[node["type"]]
            own = dict(zip([one["name"] for one in node["inputs"] if "widget" in one], node["widgets_values"], strict=True))
            held = {place: {**own, **inputs}.get(slot["name"]) for place, slot in enumerate(inner["inputs"])}
            prompt |= _unfold(inner, definitions, catalogue, f"{path}{node['id']}:", held)
        elif node["type"] in catalogue:  # not a note
            values = dict(zip(widget_names(catalogue[node["type"]]), node.get("widgets_values") or [], strict=False))
            values.pop("", None)
            values.update((name, value) for name, value in inputs.items() if value is not None)
            prompt[f"{path}{node['id']}"] = {"class_type": node["type"], "inputs": values}
    return prompt


def _inner_source(inner: dict, slot: int, path: str, folded: dict) -> list:
    """The node inside a subgraph, at whatever depth, that its output comes from."""
    link = next(link for link in inner["links"] if link["target_id"] == -20 and link["target_slot"] == slot)
    node = next(node for node in inner["nodes"] if node["id"] == link["origin_id"])
    if node["type"] in folded:
        return _inner_source(folded[node["type"]], link["origin_slot"], f"{path}{node['id']}:", folded)
    return [f"{path}{node['id']}", link["origin_slot"]]


def is_widget(kind: object, options: dict) -> bool:
    """Whether an input of a node type is a widget and not a socket."""
    return (isinstance(kind, list) or kind in WIDGETS) and not options.get("forceInput")


def widget_names(entry: dict) -> list[str]:
    """Name a node type's widgets in the order of widgets_values; '' stands for the control that follows a seed."""
    names = []
    for group in ("required", "optional"):
        for name in entry["input_order"].get(group, []):
            kind, options = [*entry["input"][group][name], {}][:2]
            if is_widget(kind, options):
                names += [name, ""] if options.get("control_after_generate") else [name]
    return names


def ask(url: str, body: dict | None = None) -> dict:
    """Get JSON from the server, or post some and get the answer."""
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=60) as answer:
        return json.load(answer)
