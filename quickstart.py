#!/usr/bin/env python3
"""First run: make a private environment, then search for a picture, run the tests, or open the graph in ComfyUI.

    python quickstart.py                      search with the bundled model, write pictures to output/demo
    python quickstart.py test [pytest args]   set up everything and run the tests
    python quickstart.py comfyui              open the full graph in ComfyUI (--headless: run it and save the picture)
    python quickstart.py setup                only make the environment

Needs Python 3.11 or newer and its standard library; everything else goes into .venv beside this file.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import urllib.parse
import webbrowser
from pathlib import Path

ROOT = Path(__file__).resolve().parent
OLDEST = (3, 11)  # what the pinned numpy and scikit-learn of requirements-dev.txt support
COMFYUI = "https://github.com/comfyanonymous/ComfyUI"
TORCH_TRIO = ["torch==2.11.0", "torchvision==0.26.0", "torchaudio==2.11.0"]  # one release; ComfyUI needs all three
GRAPH = "03_full_search"  # the workflow that the browser opens and --headless runs
LINK = "ttsvar"  # the pack's folder in custom_nodes


class SetupError(Exception):
    """A step that cannot go on; the text says what happened and what to do."""


def main(arguments: list[str]) -> int:
    """Run one command and return its exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command")
    demo = commands.add_parser("demo", help="search with the bundled model (the default)")
    demo.add_argument("--out", default=str(ROOT / "output" / "demo"), help="folder for the pictures")
    commands.add_parser("setup", help="only make the environment")
    commands.add_parser("test", help="set up and run the tests; further arguments go to pytest")
    comfyui = commands.add_parser("comfyui", help="open the full graph in ComfyUI")
    comfyui.add_argument("--dir", help="an existing ComfyUI (otherwise COMFYUI_DIR, ../.., ~/ComfyUI, or a new one)")
    comfyui.add_argument("--headless", action="store_true", help="run the graph without a browser and save the picture")
    comfyui.add_argument("--graph", default=GRAPH, help="name of a file in workflows/ (default: %(default)s)")
    comfyui.add_argument("--out", default=str(ROOT / "output" / "comfyui"), help="folder for the pictures of --headless")
    comfyui.add_argument("--port", type=int, default=8188, help="first port to try (default: %(default)s)")
    chosen, rest = parser.parse_known_args(arguments)
    if rest and chosen.command != "test":
        parser.error(f"unknown arguments: {' '.join(rest)}")
    try:
        if chosen.command == "comfyui":
            return open_comfyui(chosen)
        python = environment(ROOT / ".venv", ["-r", str(ROOT / "requirements-dev.txt")])
        if chosen.command == "setup":
            say(f"The environment is ready: {python}")
            return 0
        if chosen.command == "test":
            return run([python, "-m", "pytest", *rest])
        out = getattr(chosen, "out", demo.get_default("out"))
        return run([python, "-m", "ttsvar_core", "demo", "--out", str(Path(out).absolute())])  # as `run` changes the folder
    except (SetupError, OSError) as problem:
        print(f"\nquickstart: {problem}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


def environment(folder: Path, packages: list[str]) -> str:
    """Make a virtual environment of this Python with these pip arguments, unless it is there already; return its interpreter.

    A stamp inside the folder holds a hash of the arguments and of the files they name, so that a second call costs
    nothing and a changed requirement is installed.
    """
    interpreter = folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    stamp = folder / "ttsvar-stamp"
    wanted = fingerprint(packages)
    if interpreter.exists() and stamp.exists() and stamp.read_text() == wanted:
        return str(interpreter)
    say(f"Making {folder} (once; a few minutes and up to a few gigabytes, most of it PyTorch) ...")
    if not runs(interpreter):
        check_python()
        made = subprocess.run([sys.executable, "-m", "venv", "--clear", str(folder)], capture_output=True, text=True)
        if made.returncode:
            raise SetupError(
                f"{sys.executable} could not make a virtual environment:\n{tail(made.stdout + made.stderr)}\n"
                "Where it may not be written, move this folder to where you may write. Otherwise: on Debian and Ubuntu install the "
                "package python3-venv, or run quickstart.py with another Python."
            )
    if run(pip_install(interpreter, packages)):
        raise SetupError(
            "pip could not install the packages above.\n"
            "Check the network, the disk and the proxy (pip reads HTTPS_PROXY and its own configuration), then run the "
            "same command again: what was fetched is kept.\n"
            f"'No matching distribution' for torch means that there is no build for Python {sys.version.split()[0]} on "
            "this system: run quickstart.py with another Python."
        )
    stamp.write_text(wanted)
    return str(interpreter)


def open_comfyui(chosen: argparse.Namespace) -> int:
    """Find or fetch ComfyUI, link the pack, start the server, and open or run the graph."""
    from lab.tools import comfyui_http

    graph = ROOT / "workflows" / f"{chosen.graph}.json"
    if not graph.is_file():
        names = ", ".join(sorted(path.stem for path in graph.parent.glob("*.json")))
        raise SetupError(f"workflows/ has no {chosen.graph}.json; choose one of: {names}.")
    folder = find_comfyui(chosen.dir) or fetch_comfyui(ROOT / ".comfyui" / "ComfyUI")
    python = comfyui_python(folder)
    link = link_pack(folder / "custom_nodes")
    address = f"http://127.0.0.1:{free_port(chosen.port)}"
    log = ROOT / "output" / "comfyui.log"
    server = start_server(folder, python, address, log)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the server ends with this script
    try:
        catalogue = comfyui_http.wait_for_nodes(address, "TTSVAR_", server)
        if chosen.headless:
            pictures = comfyui_http.run_graph(address, graph, catalogue, Path(chosen.out), server)
            say("\n".join(map(str, pictures)))
            return 0
        page = f"{address}/?template={urllib.parse.quote(chosen.graph)}&source={urllib.parse.quote(link)}"
        say(f"Open {page}\nPress Run in the editor; Ctrl-C here stops ComfyUI.")
        webbrowser.open(page)
        return server.wait()
    except comfyui_http.ServerError as problem:
        lines = tail(log.read_text(encoding="utf-8", errors="replace"), 30)
        raise SetupError(f"{problem}\nThe end of {log}:\n{lines}") from None
    finally:
        server.terminate()
        server.wait()


def start_server(folder: Path, python: str, address: str, log: Path) -> subprocess.Popen:
    """Start ComfyUI on the graphics card if its PyTorch sees one, otherwise on the processor."""
    probe = "import torch; print(torch.cuda.is_available() or torch.backends.mps.is_available())"
    card = subprocess.run([python, "-c", probe], capture_output=True, text=True).stdout.strip() == "True"
    port = address.rsplit(":", 1)[1]
    command = [python, "main.py", "--listen", "127.0.0.1", "--port", port, *([] if card else ["--cpu"])]
    say(f"Starting ComfyUI in {folder} (log: {log}) ...")
    log.parent.mkdir(exist_ok=True)
    with open(log, "w", encoding="utf-8") as lines:
        return subprocess.Popen(command, cwd=folder, env=clean_environment(), stdout=lines, stderr=subprocess.STDOUT)


def find_comfyui(named: str | None) -> Path | None:
    """Return the ComfyUI that was named, the one this pack lies in, or the one in the home folder."""
    named = named or os.environ.get("COMFYUI_DIR")
    places = [Path(named).expanduser()] if named else [Path.home() / "ComfyUI", ROOT / ".comfyui" / "ComfyUI"]
    if not named and ROOT.parent.name == "custom_nodes":
        places.insert(0, ROOT.parent.parent)
    found = next((place for place in places if (place / "main.py").is_file() and (place / "comfy").is_dir()), None)
    if named and not found:
        raise SetupError(f"{named} holds no ComfyUI (no main.py and comfy/). Name the folder that has them.")
    return found.resolve() if found else None


def fetch_comfyui(folder: Path) -> Path:
    otherwise = (
        f"Get ComfyUI another way (its page: {COMFYUI}), unpack it anywhere and run this command again with "
        "--dir FOLDER or COMFYUI_DIR=FOLDER. The other commands of quickstart.py do not need it."
    )
    if not shutil.which("git"):
        raise SetupError(f"There is no ComfyUI here, and no git to fetch it with. Install git, or:\n{otherwise}")
    say(f"Fetching ComfyUI into {folder} ...")
    folder.parent.mkdir(exist_ok=True)
    done = subprocess.run(["git", "clone", "--depth", "1", COMFYUI, str(folder)], capture_output=True, text=True)
    if done.returncode:
        raise SetupError(f"ComfyUI could not be fetched:\n{tail(done.stderr)}\n{otherwise}")
    return folder


def comfyui_python(folder: Path) -> str:
    """Return the interpreter that a ComfyUI has, with the pack's requirements added; make one if it has none."""
    inner = "Scripts/python.exe" if os.name == "nt" else "bin/python"
    places = [folder / ".venv" / inner, folder / "venv" / inner, folder.parent / "python_embeded" / "python.exe"]
    ours = ["-r", str(ROOT / "requirements.txt")]
    for place in places:
        if place.is_file() and has_modules(place, "torch", "aiohttp", "transformers"):
            if not has_modules(place, "sklearn", "scipy", "safetensors") and run(pip_install(place, ours)):
                raise SetupError(f"pip could not add the pack's requirements.txt to {place}; see its lines above.")
            return str(place)
    return environment(ROOT / ".comfyui" / "venv", [*TORCH_TRIO, "-r", str(folder / "requirements.txt"), *ours])


def has_modules(python: Path, *names: str) -> bool:
    """Say whether an interpreter starts and finds these modules."""
    code = "import sys; from importlib.util import find_spec; sys.exit(not all(map(find_spec, sys.argv[1:])))"
    return subprocess.run([str(python), "-c", code, *names], capture_output=True).returncode == 0


def link_pack(custom_nodes: Path) -> str:
    """Link this folder into custom_nodes, unless it lies there already; return the name it has there."""
    if ROOT.parent == custom_nodes.resolve():
        return ROOT.name
    link = custom_nodes / LINK
    if link.exists() or link.is_symlink():
        if link.resolve() == ROOT:
            return LINK
        raise SetupError(f"{link} leads to {link.resolve()}, another copy of the pack. Remove it to run this one.")
    try:
        link.symlink_to(ROOT, target_is_directory=True)
    except OSError as problem:  # Windows without the right to make symbolic links: a junction needs none
        if os.name != "nt" or subprocess.run(["cmd", "/c", "mklink", "/J", str(link), str(ROOT)]).returncode:
            raise SetupError(f"Cannot link the pack to {link}: {problem}. Copy this folder there.") from None
    return LINK


def free_port(first: int) -> int:
    """Return the first free port from ``first`` on."""
    for port in range(first, first + 100):
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)):
                return port
    raise SetupError(f"No free port from {first} to {first + 99}; name another with --port.")


def fingerprint(packages: list[str]) -> str:
    """Hash pip arguments together with the contents of the files among them."""
    digest = hashlib.sha256()
    for package in packages:
        path = Path(package)
        digest.update(path.read_bytes() if path.is_file() else package.encode())
        digest.update(b"\0")
    return digest.hexdigest()


def pip_install(interpreter: Path, packages: list[str]) -> list[str]:
    """Return the command that installs packages into an environment."""
    return [str(interpreter), "-m", "pip", "install", "--disable-pip-version-check", "--no-input", "--quiet", *packages]


def check_python() -> None:
    """Refuse a Python that the pinned packages do not support."""
    if sys.version_info[:2] < OLDEST:
        raise SetupError(
            f"{sys.executable} is {'.'.join(map(str, sys.version_info[:2]))}; Python {OLDEST[0]}.{OLDEST[1]} or newer is needed. "
            "Install one and run quickstart.py with it."
        )


def runs(interpreter: Path) -> bool:
    """Say whether an environment's interpreter still starts and has pip."""
    try:
        return subprocess.run([str(interpreter), "-m", "pip", "--version"], capture_output=True).returncode == 0
    except OSError:
        return False


def run(command: list[str]) -> int:
    """Run a command in the project's folder without the caller's Python settings; return its exit status."""
    return subprocess.run(command, cwd=ROOT, env=clean_environment()).returncode


def clean_environment() -> dict[str, str]:
    """Return the caller's environment less what would lead a child's Python astray."""
    clean = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "PYTHONHOME")}
    return {**clean, "PYTHONUTF8": "1"}


def tail(text: str, lines: int = 12) -> str:
    return "\n".join(text.strip().splitlines()[-lines:])


def say(text: str) -> None:
    """Print at once, so that the line stands before what a child process prints."""
    print(text, flush=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
