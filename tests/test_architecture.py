"""The diffs of docs/architecture.md, applied to a copy of the package and run."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PAGE = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
DIFFS = re.findall(r"```diff\n(.*?)```", PAGE, re.DOTALL)


def apply(diff: str, root: Path) -> list[str]:
    """Carry out a diff whose hunks are found by their lines, wherever they stand; the files touched."""
    touched = []
    for part in re.split(r"^(?=--- )", diff, flags=re.MULTILINE)[1:]:
        path = re.search(r"^\+\+\+ b/(.+)$", part, re.MULTILINE)[1]
        old_text = "" if part.startswith("--- /dev/null") else (root / path).read_text(encoding="utf-8")
        for hunk in re.split(r"^@@.*@@\n", part, flags=re.MULTILINE)[1:]:
            lines = hunk.splitlines()
            before = "\n".join(line[1:] for line in lines if line[:1] in (" ", "-"))
            after = "\n".join(line[1:] for line in lines if line[:1] in (" ", "+"))
            assert not before or old_text.count(before) == 1, f"{path} has not, or not once:\n{before}"
            old_text = old_text.replace(before, after) if before else after + "\n"
        (root / path).write_text(old_text, encoding="utf-8")
        touched.append(path)
    return touched


@pytest.fixture
def copy(tmp_path):
    shutil.copytree(ROOT / "ttsvar_core", tmp_path / "ttsvar_core", ignore=shutil.ignore_patterns("__pycache__"))
    return tmp_path


def python(root: Path, *words: str) -> str:
    """What Python prints in the copy."""
    done = subprocess.run([sys.executable, *words], cwd=root, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


def test_adding_a_stage_touches_two_files(copy):
    assert len(apply(DIFFS[0], copy)) == 2
    stages = [{"kind": "blind", "scale": 4, "keep": 2}, {"kind": "resample", "scale": 9, "keep": 1}]
    (copy / "plan.json").write_text(json.dumps({"samples": 4, "stages": stages}), encoding="utf-8")
    python(copy, "-m", "ttsvar_core", "generate", "a photo of a red circle", "--plan", "plan.json", "--out", "out")
    report = json.loads((copy / "out" / "report.json").read_text(encoding="utf-8"))
    assert [one["samples"] for one in report["scales"]] == [4] * 5 + [2] * 5 + [1] * 3
    assert report["plan"]["stages"] == [stages[0], {**stages[1], "potential": "value", "lambda": 10.0, "scheme": "multinomial"}]
    assert report["scales"][4]["reason"] == "2 of 4, unseen" and report["decodes"] == 2


def test_adding_a_reward_touches_one_file_and_one_line(copy):
    before = (copy / "ttsvar_core" / "registry.py").read_text(encoding="utf-8").count("\n")
    assert len(apply(DIFFS[1], copy)) == 2
    assert (copy / "ttsvar_core" / "registry.py").read_text(encoding="utf-8").count("\n") == before + 1
    words = ["a photo of a red circle", "--plan", "best-of-n", "--n", "2", "--reward", "contrast", "--out", "out"]
    python(copy, "-m", "ttsvar_core", "generate", *words)
    report = json.loads((copy / "out" / "report.json").read_text(encoding="utf-8"))
    assert report["reward"] == "contrast" and 0 < report["answer"]["score"] < 0.5
    assert "contrast" in python(copy, "-m", "ttsvar_core", "cost", "--reward", "contrast")
