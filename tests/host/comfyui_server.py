"""A real ComfyUI for tests: found on this machine, started on a base directory of its own, driven over HTTP.

COMFYUI_DIR names the ComfyUI. COMFYUI_FRONTEND names the page it serves in place of its own: the folder `static` of an unpacked
comfyui-frontend-package (`pip download --no-deps comfyui-frontend-package`, a wheel is a zip archive).
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
sys.path.insert(0, str(ROOT / "lab" / "tools"))
from comfyui_http import ask, to_prompt  # noqa: E402

HOW_TO_GET_ONE = (
    "no ComfyUI found: set COMFYUI_DIR to a checkout with its own .venv, put this folder into a ComfyUI's custom_nodes, or "
    "install one in ~/ComfyUI (python quickstart.py comfyui fetches one)"
)


def find_comfyui() -> tuple[Path, Path] | None:
    """A ComfyUI folder and the Python that runs it, or None."""
    places = [os.environ.get("COMFYUI_DIR"), ROOT.parent.parent, Path.home() / "ComfyUI"]
    for place in (Path(place) for place in places if place):
        for python in (".venv/bin/python", "venv/bin/python", ".venv/Scripts/python.exe", "venv/Scripts/python.exe"):
            if (place / "main.py").is_file() and (place / "custom_nodes").is_dir() and (place / python).is_file():
                return place, place / python
    return None


class Server:
    """One running ComfyUI with the pack, beside what lies in the custom_nodes of its base directory already."""

    def __init__(self, base: Path, *flags: str) -> None:
        home, self.python = find_comfyui()
        self.base, self.log = base, base / "server.log"
        (base / "custom_nodes").mkdir(parents=True, exist_ok=True)
        if not (base / "custom_nodes" / "ttsvar").exists():
            (base / "custom_nodes" / "ttsvar").symlink_to(ROOT, target_is_directory=True)
        for name in ("models", "input", "output", "temp", "user"):
            (base / name).mkdir(exist_ok=True)
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        self.address = f"http://127.0.0.1:{port}"
        known = (home / "comfy" / "cli_args.py").read_text(encoding="utf-8")
        alone = "--offline" if '"--offline"' in known else "--disable-api-nodes"  # as it was called before
        command = [str(self.python), "main.py", "--cpu", alone, "--listen", "127.0.0.1", "--port", str(port)]
        command += ["--base-directory", str(base), "--database-url", "sqlite:///:memory:", *flags]
        if frontend := os.environ.get("COMFYUI_FRONTEND"):
            command += ["--front-end-root", str(Path(frontend).resolve())]
        unset = {name: value for name, value in os.environ.items() if name not in ("OMP_NUM_THREADS", "MKL_NUM_THREADS")}
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(command, cwd=home, stdout=log, stderr=subprocess.STDOUT, env=unset)  # as users do
        self.catalogue = self._wait()

    def _wait(self, seconds: float = 600) -> dict:
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline and self.process.poll() is None:
            try:
                return ask(f"{self.address}/object_info")
            except OSError:
                time.sleep(0.3)
        raise RuntimeError("ComfyUI did not start:\n" + self.log.read_text(errors="replace")[-3000:])

    def stop(self) -> None:
        """End the server."""
        self.process.terminate()
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()

    def prompt_of(self, name: str) -> dict:
        """An example graph as /prompt takes it."""
        return to_prompt(json.loads((ROOT / "workflows" / f"{name}.json").read_text(encoding="utf-8")), self.catalogue)

    def queue(self, prompt: dict) -> str:
        """Queue a prompt; its number. Raises Refused with the server's answer."""
        try:
            return ask(f"{self.address}/prompt", {"prompt": prompt})["prompt_id"]
        except urllib.error.HTTPError as refused:
            raise Refused(json.loads(refused.read())) from None

    def wait(self, number: str, seconds: float = 240) -> dict:
        """The history entry of a prompt once it has ended."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            if done := ask(f"{self.address}/history/{number}").get(number):
                return done
            time.sleep(0.05)
        raise TimeoutError(self.log.read_text(errors="replace")[-2000:])

    def run(self, prompt: dict) -> dict:
        """Run a prompt to its end; the history entry. Raises AssertionError if it failed."""
        done = self.wait(self.queue(prompt))
        assert done["status"]["status_str"] == "success", json.dumps(done["status"]["messages"][-1], indent=1)[:3000]
        return done

    def pictures(self, done: dict) -> dict[str, list[bytes]]:
        """The pictures of every node that shows some, by node."""
        return {
            node: [self.get(f"/view?{urllib.parse.urlencode(image)}") for image in output["images"]]
            for node, output in done["outputs"].items() if output.get("images")
        }

    def get(self, path: str) -> bytes:
        """What the server answers to a path."""
        with urllib.request.urlopen(self.address + path, timeout=60) as answer:
            return answer.read()

    def resident(self) -> int:
        """Resident memory in KiB."""
        lines = Path(f"/proc/{self.process.pid}/status").read_text().splitlines()
        return int(next(line.split()[1] for line in lines if line.startswith("VmRSS")))


class Refused(Exception):
    """The server refused a prompt; ``answer`` is what it said."""

    def __init__(self, answer: dict) -> None:
        super().__init__(json.dumps(answer)[:2000])
        self.answer = answer


def cached(done: dict) -> set[str]:
    """The nodes a run took from the cache."""
    messages = dict(tuple(message) for message in done["status"]["messages"])
    return set(messages["execution_cached"]["nodes"])


def numbers(prompt: dict, type: str) -> list[str]:
    """The nodes of a type, first to last."""
    return [number for number, node in prompt.items() if node["class_type"] == type]


def downstream(prompt: dict, changed: str) -> set[str]:
    """A node and everything that depends on it."""
    found = {changed}
    while True:
        more = {
            number for number, node in prompt.items()
            if any(isinstance(value, list) and value[0] in found for value in node["inputs"].values())
        }
        if more <= found:
            return found
        found |= more
