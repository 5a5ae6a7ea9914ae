"""The command line: ``python -m ttsvar_core <command>``. Every command lives in ``commands/<name>.py``."""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import os
import sys
from collections.abc import Sequence

COMMANDS = ("demo", "generate", "verify", "convert", "experiment")
NO_TORCH = (
    "This Python has no torch. After `python quickstart.py` use the Python of its environment in place of `python`: "
    ".venv/bin/python (Windows: .venv\\Scripts\\python). Without it: pip install -r requirements.txt"
)
NOBODY_READS = 141  # what shells report of a command whose reader has gone: 128 + SIGPIPE


def available() -> list[str]:
    """The commands whose module is there."""
    return [name for name in COMMANDS if importlib.util.find_spec(f"{__package__}.commands.{name}")]


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status. Whoever reads the output may stop (``| head``): then end without a word."""
    try:
        try:
            return _run(argv)
        finally:
            sys.stdout.flush()
    except BrokenPipeError:
        with open(os.devnull, "w") as nowhere:  # what is still in the buffer, which the interpreter writes out as it ends
            os.dup2(nowhere.fileno(), sys.stdout.fileno())
        return NOBODY_READS


def _run(argv: Sequence[str] | None) -> int:
    parser = argparse.ArgumentParser(prog="python -m ttsvar_core", description="TTS-VAR search on the Infinity image model.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="command")
    modules = {name: importlib.import_module(f".commands.{name}", __package__) for name in available()}
    for name, module in modules.items():
        summary = getattr(module, "SUMMARY", "")
        module.add_arguments(commands.add_parser(name, help=summary, description=summary))
    args = parser.parse_args(argv)
    if importlib.util.find_spec("torch") is None:
        print(NO_TORCH, file=sys.stderr)
        return 1
    return modules[args.command].main(args)
