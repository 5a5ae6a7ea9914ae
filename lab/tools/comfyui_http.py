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
    try:
        number = ask(f"{address}/prompt", {"prompt": prompt})["prompt_id"]
    except urllib.error.HTTPError as refused:
        raise ServerError(f"ComfyUI refused {graph.name}: {refused.read().decode()}") from None
    while not (done := ask(f"{address}/history/{number}").get(number)):
        if server.poll() is not None:
            raise ServerError(f"ComfyUI ended while {graph.name} ran.")
        time.sleep(0.1)
    if done["status"]["status_str"] != "success":
        raise ServerError(f"{graph.name} failed: {json.dumps(done['status']['messages'][-1], indent=1)}")
    images = [image for output in done["outputs"].values() for image in output.get("images", [])]
    if not images:
        raise ServerError(f"{graph.name} ran but made no picture; it needs a Preview Image or Save Image node.")
    saved = [image for image in images if image["type"] == "output"]
    return [save(address, image, out) for image in saved or images]


def save(address: str, image: dict, out: Path) -> Path:
    """Fetch one picture that the history names into ``out``."""
    out.mkdir(parents=True, exist_ok=True)
    path = out / Path(image["filename"]).name
    with urllib.request.urlopen(f"{address}/view?{urllib.parse.urlencode(image)}", timeout=60) as answer:
        path.write_bytes(answer.read())
    return path


def to_prompt(graph: dict, catalogue: dict) -> dict:
    """Turn a graph as the editor saves it into what /prompt takes: inputs by name, links as (node, slot)."""
    sources = {link[0]: [str(link[1]), link[2]] for link in graph["links"]}
    prompt = {}
    for node in graph["nodes"]:
        if node["type"] not in catalogue or node.get("mode", 0):
            continue  # notes, and nodes that are switched off
        values = node.get("widgets_values") or []
        inputs = dict(zip(widget_names(catalogue[node["type"]]), values, strict=False))
        inputs.pop("", None)
        wired = [socket for socket in node.get("inputs", []) if socket.get("link") is not None]
        inputs.update({socket["name"]: sources[socket["link"]] for socket in wired})
        prompt[str(node["id"])] = {"class_type": node["type"], "inputs": inputs}
    return prompt


def widget_names(entry: dict) -> list[str]:
    """Name a node type's widgets in the order of widgets_values; '' stands for the control that follows a seed."""
    names = []
    for group in ("required", "optional"):
        for name in entry["input_order"].get(group, []):
            kind, options = [*entry["input"][group][name], {}][:2]
            if (isinstance(kind, list) or kind in WIDGETS) and not options.get("forceInput"):
                names += [name, ""] if options.get("control_after_generate") else [name]
    return names


def ask(url: str, body: dict | None = None) -> dict:
    """Get JSON from the server, or post some and get the answer."""
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=60) as answer:
        return json.load(answer)
