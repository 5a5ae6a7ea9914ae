"""Run checks one by one, whatever becomes of each, and keep what is known so far in a file."""

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).resolve().parents[2]
LEAST = 5.0  # seconds, with less than which a check is not begun


class Check(NamedTuple):
    """What is checked, in how many seconds at most, by which function ("module:function", called with a Place and Notes)."""

    name: str
    seconds: float
    target: str

    def function(self) -> Callable[..., None]:
        """The function itself, imported only now."""
        module, name = self.target.split(":")
        return getattr(import_module(module), name)


class Notes:
    """What a check found, key by key; written to its file at once, so that a check that is stopped leaves what it had."""

    def __init__(self, path: Path) -> None:
        self.path, self.found = path, {}

    def attempt(self, key: str, function: Callable[..., Any], *given: Any, **options: Any) -> None:
        """Note what a function returns, a dict of plain values, or how it failed; the next one runs in any case."""
        began = time.perf_counter()
        try:
            self.found[key] = dict(function(*given, **options))
        except Exception as error:  # whatever is wrong with one, the others are still tried
            self.found[key] = {"ok": False, "error": " ".join(f"{type(error).__name__}: {error}".split())[:400]}
        self.found[key]["took"] = round(time.perf_counter() - began, 2)
        self.path.write_text(json.dumps(self.found), encoding="utf-8")


def run_all(checks: Iterable[Check], path: Path, budget: float, run: Callable[[Check, Path, float], str]) -> dict[str, Any]:
    """Run checks within ``budget`` seconds and return what they found, which is in the file ``path`` after each of them.

    run: carries out a check, whose notes go to a file, within so many seconds, and returns what went wrong ("" if nothing).
    """
    began, record = time.perf_counter(), {}
    for check in checks:
        left = budget - (time.perf_counter() - began)
        notes = path.with_suffix(f".{check.name}.part")
        start = time.perf_counter()
        said = run(check, notes, min(check.seconds, left)) if left >= LEAST else "not begun: no time was left"
        found = json.loads(notes.read_text(encoding="utf-8")) if notes.exists() else {}
        notes.unlink(missing_ok=True)
        ok = not said and bool(found) and all(one.get("ok", True) for one in found.values())
        record[check.name] = {"ok": ok, "error": said, "seconds": time.perf_counter() - start, "found": found}
        path.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    return record


def apart(command: Iterable[str]) -> Callable[[Check, Path, float], str]:
    """Carries out a check in a process of its own, which what it breaks dies with: ``command`` with --check and --notes."""

    def run(check: Check, notes: Path, seconds: float) -> str:
        words = [sys.executable, *command, "--check", check.name, "--notes", str(notes)]
        try:
            done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=seconds)
        except subprocess.TimeoutExpired:
            return f"stopped after {seconds:.0f} s"
        return "" if done.returncode == 0 else f"ended with {done.returncode}: {done.stderr.strip()[-400:]}"

    return run


def here(place: Any) -> Callable[[Check, Path, float], str]:
    """Carries out a check in this process, however long it takes."""

    def run(check: Check, notes: Path, seconds: float) -> str:
        try:
            check.function()(place, Notes(notes))
        except Exception as error:
            return f"{type(error).__name__}: {error}"
        return ""

    return run


def table(record: dict[str, Any]) -> str:
    """What was found as Markdown. Values whose name begins with an underscore stand in the file only."""
    rows = ["| check | what | ok | found |", "|---|---|---|---|"]
    for name, check in record.items():
        if check["error"] or not check["found"]:
            rows.append(f"| {name} | | no | {check['error'] or 'nothing'} |")
        for key, found in check["found"].items():
            told = {what: value for what, value in found.items() if what[0] != "_" and what not in ("ok", "took")}
            shown = [f"{what} {value:.4g}" if isinstance(value, float) else f"{what} {value}" for what, value in told.items()]
            rows.append(f"| {name} | {key} | {'yes' if found.get('ok', True) else 'no'} | {', '.join(shown)} |")
    return "\n".join(rows)
