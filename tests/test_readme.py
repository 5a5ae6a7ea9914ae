"""What the README says: commands that exist, code that runs, links, nodes, files and figures."""

import ast
import contextlib
import io
import json
import math
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from ttsvar_core.config import PRESETS

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "lab" / "tools"))
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^ *```(\w+)\n(.*?)^ *```", README, re.M | re.S)
COMMANDS = [line.strip() for kind, text in BLOCKS if kind == "bash" for line in text.splitlines()]
OURS = [line for line in COMMANDS if line.startswith("python ")]


def test_the_commands_are_there():
    assert OURS[:2] == ["python quickstart.py", "python quickstart.py comfyui"]
    assert "python quickstart.py test" in OURS
    assert all(line.startswith(("python ", "pip ", "git ", "cd ")) for line in COMMANDS), COMMANDS


@pytest.mark.parametrize("line", [line for line in OURS if "ttsvar_core" in line or "lab" in line])
def test_options_of_module_commands_exist(line):
    """The parser accepts the line (argparse ends with 2 for one it does not know); the command itself is not run."""
    words = shlex.split(line)
    assert words[:2] == ["python", "-m"]
    code = (
        "import argparse, sys\n"
        "parse = argparse.ArgumentParser.parse_args\n"
        "def stop(self, *a, **k):\n    parse(self, *a, **k)\n    print('understood')\n    sys.exit(0)\n"
        "argparse.ArgumentParser.parse_args = stop\n"
        "import runpy\n"
        f"sys.argv = {words[2:]!r}\n"
        f"runpy.run_module({words[2]!r}, run_name='__main__', alter_sys=True)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stdout.strip()) == (0, "understood"), done.stderr


def test_first_two_commands_are_understood():
    for line in (line for line in OURS if "quickstart" in line):
        done = subprocess.run([sys.executable, *shlex.split(line)[1:], "--help"], cwd=ROOT, capture_output=True)
        assert done.returncode == 0, line


def test_the_environment_is_named_before_the_first_command_that_needs_it():
    assert README.index("`.venv/bin/python`") < README.index("python -m ttsvar_core")


def test_library_example_runs():
    code = next(text for kind, text in BLOCKS if kind == "python" and "load_bundled" in text)
    assert len(code.strip().splitlines()) <= 12
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(compile(code, "README.md", "exec"), {})
    assert printed.getvalue().startswith("torch.Size([128, 128, 3])")


def test_reward_example_is_a_reward():
    import torch

    from ttsvar_core.rewards.base import Reward

    code = next(text for kind, text in BLOCKS if kind == "python" and "class Redness" in text)
    space = {}
    exec(compile(code, "README.md", "exec"), space)
    reward = space["Redness"]()
    assert isinstance(reward, Reward)
    images = torch.zeros(2, 4, 4, 3)
    images[1, ..., 0] = 1
    assert reward.score(images, "any").tolist() == [0.0, 1.0]


def test_links_and_pictures_exist():
    inside = re.findall(r"\]\(([^)#]+)\)", README)
    for target in (target for target in inside if not target.startswith("http")):
        assert (ROOT / target).is_file(), target
    used, defined = (set(re.findall(pattern, README, re.M)) for pattern in (r"\]\[(\w+)\]", r"^\[(\w+)\]: http"))
    assert used == defined


def test_paths_that_are_named_exist():
    for name in re.findall(r"`((?:ttsvar_core|nodes|tests|docs)/[\w/.-]+)`", README):
        assert (ROOT / name).exists(), name


def test_every_node_and_example_is_listed():
    shown = {"".join(node) for node in _display_names()}
    table = README.split("| node | takes | gives |")[1].split("\n\n")[0]
    assert set(re.findall(r"^\| ([A-Z][^|]*?) \|", table, re.M)) == shown
    examples = README.split("| example | shows |")[1].split("\n\n")[0]
    assert set(re.findall(r"^\| `(\w+)` \|", examples, re.M)) == {p.stem for p in (ROOT / "workflows").glob("*.json")}


def _display_names():
    for path in sorted((ROOT / "nodes").glob("*.py")):
        for call in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(call, ast.Call) and ast.unparse(call.func) == "io.Schema":
                yield next(k.value.value for k in call.keywords if k.arg == "display_name")


SHAPES = {
    "Infinity-2B": "infinity_2b.transformer",
    "Infinity-8B": "infinity_8b.transformer",
    "ImageReward": "image_reward",
    "HPS v2.1": "hps_v2_1",
    "DINOv2 with registers": "dinov2_vitl14_reg",
}


@pytest.mark.parametrize("what", SHAPES)
def test_sizes_are_those_of_the_published_shapes(what):
    listed = json.loads((ROOT / "tests/golden/checkpoints" / f"{SHAPES[what]}.json").read_text())["tensors"]
    count = sum(math.prod(_shape(entry)) for entry in listed.values() if "float" in _dtype(entry))
    row = next(line for line in README.splitlines() if line.startswith(f"| {what} |"))
    assert row.rstrip(" |").endswith(f"{count / 1e9:.2f} B | {count * 4 / 1e9:.1f} GB | {count * 2 / 1e9:.1f} GB")


def _shape(entry):
    return entry["shape"] if isinstance(entry, dict) else entry[0]


def _dtype(entry):
    return entry["dtype"] if isinstance(entry, dict) else entry[1]


def test_memory_of_keys_and_values():
    """0.5 MiB per token and sample for 2B in bfloat16 with guidance; 3.1 GiB before the last scale at 1M."""
    config, schedule = PRESETS["2b"].transformer, PRESETS["2b"].schedule()
    per_token = config.depth * 2 * 2 * config.embed_dim * 2
    assert per_token == 2**19
    assert f"{sum(schedule.tokens[:-1]) * per_token / 2**30:.1f} GiB" == "3.1 GiB"
    assert "0.5 MiB per token and sample" in README and "3.1 GiB for one sample" in README


def test_the_table_of_files_is_the_registrys():
    from build_readme import fill

    assert fill(README) == README, "run lab/tools/build_readme.py"


@pytest.mark.parametrize(
    ("first", "options"),
    [
        ("one picture", "--plan raw"), ("Best-of-2", "--plan best-of-n --n 2"), ("TTS-VAR, N = 1", "--plan tts-var"),
        ("the same, `--guidance-until 9`", "--plan tts-var --guidance-until 9"),
    ],
)
def test_counted_figures(first, options, tmp_path):
    from ttsvar_core.cli import main

    told = tmp_path / "cost.json"
    words = f"cost --model 2b --pixels 1M --extractor dinov2-pca --reward image-reward --json {told.as_posix()} {options}"
    assert main(words.split()) == 0
    found = json.loads(told.read_text())
    side = found["raw"] if first == "one picture" else found  # one picture needs no judge
    parts = [side["parts"][part] / 1e12 for part in ("transformer", "decode", "features", "reward")]
    counted = README.split("Counted from shapes")[1].splitlines()
    row = next(line for line in counted if line.startswith(f"| {first} |"))
    expected = [f"{part:.1f}" if part else "" for part in parts]
    expected += [f"{side['flops'] / 1e12:.1f}", f"{side['flops'] / found['raw']['flops']:.2f}"]
    assert [cell.strip() for cell in row.split("|")[2:-1]] == expected


@pytest.mark.parametrize("name", ["125m-0.25M-tts-var-1", "2b-one-layer-1M-tts-var-1"])
def test_measured_figures_are_those_on_file(name):
    found = json.loads((ROOT / "lab" / "benchmark" / "results" / f"{name}.json").read_text())
    ran = found["command"]
    row = next(line for line in README.splitlines() if line.startswith("|") and f"`--model {ran['model']} " in line)
    assert f"--pixels {ran['pixels']}`" in row and (ran["plan"], ran["n"]) == ("tts-var", 1)
    all_that_runs = ""  # where decoding was made to cost nothing
    if not ran["small_tokenizer"]:
        all_that_runs = f"{found['ratio_to_raw_with_looking']:.2f}x (operations {found['ratio_to_raw_flops_with_looking']:.2f}x)"
    figures = [
        all_that_runs,
        f"{found['ratio_to_raw']:.2f}x (operations {found['ratio_to_raw_flops']:.2f}x)",
        f"{found['overhead_share']:.2%}",
        f"{found['peak_cache_bytes'] / 2**20:.1f} MiB",
        f"{found['formula_cache_bytes'] / 2**20:.1f} MiB",
    ]
    assert [cell.strip() for cell in row.split("|")[2:-1]] == figures
