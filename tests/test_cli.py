"""The command line."""

import os
import subprocess
import sys

import pytest
import torch
from checkpoint_files import paths
from tiny_models import GOLDEN

from ttsvar_core import cli

ROOT = GOLDEN.parent.parent


def run(*arguments):
    return subprocess.run(
        [sys.executable, "-m", "ttsvar_core", *map(str, arguments)], cwd=ROOT, capture_output=True, text=True, check=False
    )


def test_help_lists_the_commands_and_imports_nothing_heavy():
    code = "import sys; from ttsvar_core import cli\ntry: cli.main(['--help'])\nfinally: print('torch' in sys.modules)"
    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 0
    assert result.stdout.splitlines()[-1] == "False"
    assert all(name in result.stdout for name in cli.available())


def test_verify_and_convert_are_there():
    assert {"verify", "convert"} <= set(cli.available()) <= set(cli.COMMANDS)


@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize("what", ["verify", "--help"])
def test_a_reader_that_stops_early_ends_the_command_quietly(what, unbuffered, tmp_path):
    """As in ``verify DIR | head -1``: no traceback, and the exit status of a command stopped by a closed pipe."""
    for name in ("one", "two"):
        (tmp_path / f"{name}.json").write_text('{"kind": "infinity"}')
    arguments = [what] if what == "--help" else [what, str(tmp_path)]
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run(
        [sys.executable, "-m", "ttsvar_core", *arguments], cwd=ROOT, stdout=writing, stderr=subprocess.PIPE, text=True,
        check=False, env={**os.environ, "PYTHONUNBUFFERED": unbuffered},
    )
    os.close(writing)
    lost = what == "--help" and unbuffered  # argparse itself passes over a message that it cannot write
    assert (done.returncode, done.stderr) == (0 if lost else cli.NOBODY_READS, "")


def test_no_command_is_an_error():
    result = run()
    assert result.returncode == 2 and "usage" in result.stderr


@pytest.mark.parametrize("name", cli.available())
def test_every_command_explains_itself(name, capsys):
    with pytest.raises(SystemExit) as stop:
        cli.main([name, "--help"])
    assert stop.value.code == 0 and name in capsys.readouterr().out


def test_a_python_without_torch_is_told_which_one_to_use():
    """-S leaves the installed packages out: the system's Python after a fresh clone."""
    done = subprocess.run([sys.executable, "-S", "-m", "ttsvar_core", "demo"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 1 and done.stderr.strip() == cli.NO_TORCH
    assert subprocess.run([sys.executable, "-S", "-m", "ttsvar_core", "--help"], cwd=ROOT, capture_output=True).returncode == 0


def test_convert_command(tmp_path, capsys):
    target = tmp_path / "out.safetensors"
    assert cli.main(["convert", str(paths()[0]), str(target), "--dtype", "bfloat16"]) == 0
    assert target.exists() and str(target) in capsys.readouterr().out
    assert cli.main(["convert", str(paths()[0]), str(target)]) == 1
    assert "there already" in capsys.readouterr().err
    torch.save({"a": torch.zeros(1)}, tmp_path / "other.pth")
    assert cli.main(["convert", str(tmp_path / "other.pth"), str(tmp_path / "new.safetensors")]) == 1
    assert "no Infinity transformer or tokenizer" in capsys.readouterr().err


def test_verify_needs_a_folder_with_models(tmp_path, capsys):
    assert cli.main(["verify", str(tmp_path / "nowhere")]) == 1
    assert "no folder" in capsys.readouterr().err
    assert cli.main(["verify", str(tmp_path)]) == 1
    assert "holds no reference models" in capsys.readouterr().err
