"""The command line: ``python -m ttsvar_core <command>``. Every command lives in ``commands/<name>.py``."""

from __future__ import annotations

import argparse
import importlib
import importlib.util
from collections.abc import Sequence

COMMANDS = ("demo", "generate", "verify", "convert", "experiment")


def available() -> list[str]:
    """The commands whose module is there."""
    return [name for name in COMMANDS if importlib.util.find_spec(f"{__package__}.commands.{name}")]


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status."""
    parser = argparse.ArgumentParser(prog="python -m ttsvar_core", description="TTS-VAR search on the Infinity image model.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="command")
    modules = {name: importlib.import_module(f".commands.{name}", __package__) for name in available()}
    for name, module in modules.items():
        summary = getattr(module, "SUMMARY", "")
        module.add_arguments(commands.add_parser(name, help=summary, description=summary))
    args = parser.parse_args(argv)
    return modules[args.command].main(args)
