"""The command line."""

import os
import subprocess
import sys

import pytest
import torch
from checkpoint_files import paths
from tiny_models import GOLDEN

from lab.experiment import __main__ as experiment
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
    assert all(name in result.stdout for name in cli.COMMANDS)


def test_verify_and_convert_are_there():
    assert {"verify", "convert"} <= set(cli.COMMANDS)


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


@pytest.mark.parametrize("name", cli.COMMANDS)
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
    assert cli.main(["convert", str(paths()[0]), str(target)]) == 2
    assert "there already" in capsys.readouterr().err
    torch.save({"a": torch.zeros(1)}, tmp_path / "other.pth")
    assert cli.main(["convert", str(tmp_path / "other.pth"), str(tmp_path / "new.safetensors")]) == 2
    assert "no Infinity transformer or tokenizer" in capsys.readouterr().err


def test_verify_needs_a_folder_with_models(tmp_path, capsys):
    assert cli.main(["verify", str(tmp_path / "nowhere")]) == 2
    assert "no folder" in capsys.readouterr().err
    assert cli.main(["verify", str(tmp_path)]) == 2
    assert "holds no reference models" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["generate", "x", "--device", "nonsense"], "argument --device: 'nonsense' does not compute here"),
        (["generate", "x", "--device", "meta"], "argument --device: 'meta' does not compute here"),
        (["generate", "x", "--max-cache-mib", "inf"], "argument --max-cache-mib: 'inf' is not a finite number above 0"),
        (["generate", "x", "--n", "0"], "argument --n: '0' is not a whole number of at least 1, at most 65536"),
        (["generate", "x", "--n", "1000000000"], "argument --n: '1000000000' is not a whole number"),
        (["generate", "x", "--seed", "-1"], "argument --seed: '-1' is not a whole number of at least 0"),
        (["generate", "x", "--budget", "0.5"], "argument --budget: '0.5' is not a finite number of at least 1"),
        (["generate", "x", "--budget", "2", "--plan", "raw"], "argument --plan: not allowed with argument --budget"),
        (["generate", "x", "--lambda", "-1"], "argument --lambda: '-1' is not"),
        (["generate", "x", "--lambda", "nan"], "argument --lambda: 'nan' is not"),
        (["generate", "x", "--target-ess", "2"], "argument --target-ess: '2' is not a finite number above 0, at most 1"),
        (["generate", "x", "--ess-threshold", "0"], "argument --ess-threshold: '0' is not"),
        (["generate", "x", "--tau", "1,0"], "argument --tau: '0' is not"),
        (["generate", "x", "--guidance", "1e999"], "argument --guidance: '1e999' is not a finite number"),
        (["generate", "x", "--aspect-ratio", "0"], "argument --aspect-ratio: '0' is not"),
        (["generate", "x", "--guidance-until", "-1"], "argument --guidance-until: '-1' is not"),
        (["generate", "x", "--tiled-decode", "-8"], "argument --tiled-decode: '-8' is not"),
        (["generate", "x", "--budget", "many"], "argument --budget: 'many' is not a finite number"),
        (["generate", "x", "--attempts", "0"], "argument --attempts: '0' is not"),
        ([experiment, "consistency", "--out", "x", "--prompts", "-1"], "argument --prompts: '-1' is not a whole number"),
        ([experiment, "consistency", "--out", "x", "--workers", "0"], "argument --workers: '0' is not"),
        ([experiment, "consistency", "--out", "x", "--device", "nonsense"], "argument --device: 'nonsense' does not compute"),
    ],
)
def test_a_number_or_device_that_cannot_be_is_refused_in_one_line(words, said, capsys):
    with pytest.raises(SystemExit) as stop:
        experiment.main(words[1:]) if words[0] is experiment else cli.main(words)
    error = capsys.readouterr().err
    assert stop.value.code == 2 and said in error and len(error.splitlines()) == 1


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a PyTorch without CUDA")
def test_cuda_without_cuda_says_so_and_what_to_take(capsys):
    with pytest.raises(SystemExit):
        cli.main(["generate", "x", "--device", "cuda"])
    assert "'cuda' does not compute here (Torch not compiled with CUDA" in (error := capsys.readouterr().err)
    assert "cpu always does" in error


@pytest.mark.parametrize("error", [ValueError("two\nlines"), OSError(28, "No room"), RuntimeError("no memory"), MemoryError()])
def test_what_a_command_raises_is_one_line_and_exit_status_two(error, monkeypatch, capsys):
    def main(args):
        raise error

    monkeypatch.setattr("ttsvar_core.commands.verify.main", main)
    assert cli.main(["verify", "x"]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_a_fault_of_ours_keeps_its_traceback(monkeypatch):
    monkeypatch.setattr("ttsvar_core.commands.verify.main", lambda args: {}["fault"])
    with pytest.raises(KeyError):
        cli.main(["verify", "x"])
