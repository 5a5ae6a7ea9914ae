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
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent
OLDEST = (3, 11)  # what the pinned numpy and scikit-learn of requirements-dev.txt support


class SetupError(Exception):
    """A step that cannot go on; the text says what happened and what to do."""


def main(arguments: list[str]) -> int:
    """Run one command and return its exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--python", default=sys.executable, help="interpreter that the environment is made with")
    commands = parser.add_subparsers(dest="command")
    demo = commands.add_parser("demo", help="search with the bundled model (the default)")
    demo.add_argument("--out", default=str(ROOT / "output" / "demo"), help="folder for the pictures")
    commands.add_parser("setup", help="only make the environment")
    commands.add_parser("test", help="set up and run the tests; further arguments go to pytest")
    chosen, rest = parser.parse_known_args(arguments)
    if rest and chosen.command != "test":
        parser.error(f"unknown arguments: {' '.join(rest)}")
    try:
        python = environment(ROOT / ".venv", ["-r", str(ROOT / "requirements-dev.txt")], chosen.python)
        if chosen.command == "setup":
            say(f"The environment is ready: {python}")
            return 0
        if chosen.command == "test":
            return run([python, "-m", "pytest", *rest])
        out = getattr(chosen, "out", demo.get_default("out"))
        return run([python, "-m", "ttsvar_core", "demo", "--out", out])
    except SetupError as problem:
        print(f"\nquickstart: {problem}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


def environment(folder: Path, packages: list[str], python: str) -> str:
    """Make a virtual environment with these pip arguments, unless it is there already; return its interpreter.

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
        check_python(python)
        made = subprocess.run([python, "-m", "venv", "--clear", str(folder)], capture_output=True, text=True)
        if made.returncode:
            raise SetupError(
                f"{python} could not make a virtual environment:\n{tail(made.stdout + made.stderr)}\n"
                "On Debian and Ubuntu install the package python3-venv, or name another interpreter with --python."
            )
    pip = [str(interpreter), "-m", "pip", "install", "--disable-pip-version-check", "--no-input", "--quiet", *packages]
    if run(pip):
        raise SetupError(
            "pip could not install the packages above.\n"
            "Check the network, the disk and the proxy (pip reads HTTPS_PROXY and its own configuration), then run the "
            "same command again: what was fetched is kept.\n"
            f"'No matching distribution' for torch means that there is no build for Python {sys.version.split()[0]} on "
            "this system: name another interpreter with --python."
        )
    stamp.write_text(wanted)
    return str(interpreter)


def fingerprint(packages: list[str]) -> str:
    """Hash pip arguments together with the contents of the files among them."""
    digest = hashlib.sha256()
    for package in packages:
        path = Path(package)
        digest.update(path.read_bytes() if path.is_file() else package.encode())
        digest.update(b"\0")
    return digest.hexdigest()


def check_python(python: str) -> None:
    """Refuse an interpreter that the pinned packages do not support."""
    code = "import sys; print(*sys.version_info[:2])"
    found = subprocess.run([python, "-c", code], capture_output=True, text=True)
    version = tuple(int(part) for part in found.stdout.split())
    if found.returncode or version < OLDEST:
        have = ".".join(map(str, version)) or "not a working Python"
        raise SetupError(
            f"{python} is {have}; Python {OLDEST[0]}.{OLDEST[1]} or newer is needed. "
            "Install one and run it instead, or name it with --python."
        )


def runs(interpreter: Path) -> bool:
    """Say whether an environment's interpreter still starts and has pip."""
    try:
        return subprocess.run([str(interpreter), "-m", "pip", "--version"], capture_output=True).returncode == 0
    except OSError:
        return False


def run(command: list[str]) -> int:
    """Run a command in the project's folder without the caller's Python settings; return its exit status."""
    clean = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "PYTHONHOME")}
    return subprocess.run(command, cwd=ROOT, env={**clean, "PYTHONUTF8": "1"}).returncode


def tail(text: str, lines: int = 12) -> str:
    """Return the last lines of a longer text."""
    return "\n".join(text.strip().splitlines()[-lines:])


def say(text: str) -> None:
    """Print at once, so that the line stands before what a child process prints."""
    print(text, flush=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
