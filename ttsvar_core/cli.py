"""The command line: ``python -m ttsvar_core <command>``. Every command lives in ``commands/<name>.py``."""

import argparse
import importlib
import importlib.util
import os
import sys
from collections.abc import Callable, Sequence
from typing import NoReturn

COMMANDS = ("demo", "generate", "score", "cost", "verify", "convert")
NO_TORCH = (
    "This Python has no torch. After `python quickstart.py` use the Python of its environment in place of `python`: "
    ".venv/bin/python (Windows: .venv\\Scripts\\python). Without it: pip install -r requirements.txt"
)
USAGE = 2  # as argparse: the command cannot run as it was given
INTERRUPTED = 130  # what shells report after Ctrl-C
NOBODY_READS = 141  # what shells report of a command whose reader has gone: 128 + SIGPIPE


def program(command: Callable[[], int]) -> NoReturn:
    """Run the command this process was started for, and end. After Ctrl-C at once: taking down what is loaded takes seconds."""
    status = command()
    if status == INTERRUPTED:
        os._exit(status)
    sys.exit(status)


def main(argv: Sequence[str] | None = None) -> int:
    return answered(lambda: _run(argv))


def answered(command: Callable[[], int]) -> int:
    """The exit status of a command. What the user can put right is one line on stderr; what else is raised is a fault of ours.
    Whoever reads the output may stop (``| head``): then end without a word."""
    try:
        try:
            return command()
        finally:
            sys.stdout.flush()
    except BrokenPipeError:
        with open(os.devnull, "w") as nowhere:  # what is still in the buffer, which the interpreter writes out as it ends
            os.dup2(nowhere.fileno(), sys.stdout.fileno())
        return NOBODY_READS
    except KeyboardInterrupt as stop:
        return _said(str(stop) or "Interrupted.", INTERRUPTED)
    except (ValueError, OSError, RuntimeError, ImportError, MemoryError, FloatingPointError) as error:
        return _said(str(error) or type(error).__name__, USAGE)


def _said(text: str, status: int) -> int:
    print(" ".join(text.split()), file=sys.stderr)
    return status


class Parser(argparse.ArgumentParser):
    """Answers in one line."""

    def error(self, message: str) -> NoReturn:
        self.exit(USAGE, f"{message} (usage: {self.prog} --help)\n")


def _run(argv: Sequence[str] | None) -> int:
    parser = Parser(prog="python -m ttsvar_core", description="TTS-VAR search on the Infinity image model.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="command")
    modules = {name: importlib.import_module(f".commands.{name}", __package__) for name in COMMANDS}
    for name, module in modules.items():
        module.add_arguments(commands.add_parser(name, help=module.SUMMARY, description=module.SUMMARY))
    args = parser.parse_args(argv)
    if importlib.util.find_spec("torch") is None:
        return _said(NO_TORCH, 1)
    return modules[args.command].main(args)
