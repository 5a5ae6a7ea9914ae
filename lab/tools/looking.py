"""What looking at a search costs beside the search itself: processor seconds of the example graphs in a real ComfyUI, with live
previews on and a page that follows: `python lab/tools/looking.py`, or `... 03_full_search` for some.

Loading models and encoding prompts belong to neither, and a first run warms up. Needs what the host tests need.
"""

from __future__ import annotations

import argparse
import base64
import copy
import shutil
import socket
import sys
import tempfile
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "host")]
from comfyui_http import ask  # noqa: E402
from comfyui_server import HOW_TO_GET_ONE, Server, find_comfyui  # noqa: E402
from workflow_list import NEEDS_DOWNLOADS, WORKFLOWS  # noqa: E402

GRAPHS = [name for name in WORKFLOWS if name not in NEEDS_DOWNLOADS]
NOT_LOOKING = {"search", "loading"}
PAGE = "looking"


def measured(base: Path, graphs: Sequence[str], seeds: int) -> Iterator[tuple[str, float, dict[str, float]]]:
    """Of each graph its name, the mean seconds of its search, and of its looking by what looked; the server lives in ``base``."""
    (base / "custom_nodes").mkdir(parents=True)
    shutil.copy(Path(__file__).with_name("clock_node.py"), base / "custom_nodes")
    server = Server(base)
    try:
        follow(server.address)
        ask(f"{server.address}/ttsvar/spent")  # the clocks start
        for name in graphs:
            found = spent(server, name, seeds)
            yield name, found["search"], {what: seconds for what, seconds in found.items() if what not in NOT_LOOKING}
    finally:
        server.stop()


def follow(address: str) -> None:
    """Be a page, as far as the server can tell: open its connection and read whatever comes."""
    where = address.removeprefix("http://")
    connection = socket.create_connection(tuple(where.split(":")))
    key = base64.b64encode(bytes(16)).decode()
    connection.sendall(
        f"GET /ws?clientId={PAGE} HTTP/1.1\r\nHost: {where}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        f"Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n\r\n".encode()
    )
    threading.Thread(target=lambda: all(iter(lambda: connection.recv(2**16), b"")), daemon=True).start()


def spent(server: Server, name: str, seeds: int) -> Counter[str]:
    """Mean seconds of a run of an example graph, by what they went into."""
    total: Counter[str] = Counter()
    for seed in range(seeds + 1):
        prompt = copy.deepcopy(server.prompt_of(name))
        for node in prompt.values():
            if isinstance(node["inputs"].get("seed"), int):
                node["inputs"]["seed"] = 100 * GRAPHS.index(name) + seed  # no graph finds what another has drawn
            if node["class_type"] == "TTSVAR_ChooseSketches":
                node["inputs"]["choice"] = "0 3"
        asked = {"prompt": prompt, "client_id": PAGE, "extra_data": {"preview_method": "auto"}}
        done = server.wait(ask(f"{server.address}/prompt", asked)["prompt_id"])
        if done["status"]["status_str"] != "success":
            raise SystemExit(f"{name} failed: {done['status']['messages'][-1]}")
        told = ask(f"{server.address}/ttsvar/spent")
        total.update(told if seed else {})
    return Counter({what: seconds / seeds for what, seconds in total.items()})


def main() -> None:
    """Print a row for each graph."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("graphs", nargs="*", default=GRAPHS)
    parser.add_argument("--seeds", type=int, default=3)
    chosen = parser.parse_args()
    if not find_comfyui():
        raise SystemExit(HOW_TO_GET_ONE)
    print("| graph | search | looking | of it |\n|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        for name, search, looks in measured(Path(folder), chosen.graphs, chosen.seeds):
            words = ", ".join(f"{what} {seconds:.2f}" for what, seconds in sorted(looks.items()))
            print(f"| `{name}` | {search:.2f} | {sum(looks.values()):.2f} | {words} |", flush=True)


if __name__ == "__main__":
    main()
