"""The first-run script: what it decides without a network, and what it says when a step fails."""

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture
def quickstart():
    spec = importlib.util.spec_from_file_location("quickstart_under_test", ROOT / "quickstart.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def commands(quickstart, monkeypatch):
    """Record the commands that would run; an environment is made in no time and without packages."""
    ran = []
    monkeypatch.setattr(quickstart, "environment", lambda folder, packages, python: "PYTHON")
    monkeypatch.setattr(quickstart, "run", lambda command: ran.append(command) or 0)
    return ran


def test_no_argument_runs_the_demo(quickstart, commands):
    assert quickstart.main([]) == 0
    assert commands == [["PYTHON", "-m", "ttsvar_core", "demo", "--out", str(ROOT / "output" / "demo")]]


def test_test_passes_arguments_on_to_pytest(quickstart, commands):
    assert quickstart.main(["test", "-k", "scales", "-x"]) == 0
    assert commands == [["PYTHON", "-m", "pytest", "-k", "scales", "-x"]]


def test_exit_status_of_the_tests_is_passed_on(quickstart, commands, monkeypatch):
    monkeypatch.setattr(quickstart, "run", lambda command: 3)
    assert quickstart.main(["test"]) == 3


def test_unknown_argument_is_refused(quickstart, commands, capsys):
    with pytest.raises(SystemExit) as stop:
        quickstart.main(["demo", "--nonsense"])
    assert stop.value.code == 2
    assert "--nonsense" in capsys.readouterr().err


def test_environment_is_made_once_and_again_when_requirements_change(quickstart, monkeypatch, tmp_path):
    requirements = tmp_path / "requirements.txt"
    requirements.write_text("")
    installs = []

    def install(command):
        installs.append(command)
        return 0

    monkeypatch.setattr(quickstart, "run", install)
    packages = ["-r", str(requirements)]
    python = quickstart.environment(tmp_path / "env", packages, sys.executable)
    version = subprocess.run([python, "-c", "import sys; print(sys.prefix)"], capture_output=True, text=True)
    assert Path(version.stdout.strip()) == tmp_path / "env"
    assert quickstart.environment(tmp_path / "env", packages, sys.executable) == python
    assert len(installs) == 1
    requirements.write_text("# another")
    quickstart.environment(tmp_path / "env", packages, sys.executable)
    assert len(installs) == 2


def test_failed_install_says_what_to_do_and_leaves_no_stamp(quickstart, monkeypatch, tmp_path):
    monkeypatch.setattr(quickstart, "run", lambda command: 1)
    with pytest.raises(quickstart.SetupError, match="run the same command again"):
        quickstart.environment(tmp_path / "env", ["nothing"], sys.executable)
    assert not (tmp_path / "env" / "ttsvar-stamp").exists()


def test_old_python_is_refused(quickstart, monkeypatch):
    monkeypatch.setattr(quickstart, "OLDEST", (9, 0))
    with pytest.raises(quickstart.SetupError, match=r"Python 9\.0 or newer is needed"):
        quickstart.check_python(sys.executable)


def test_needs_only_the_standard_library():
    code = "import runpy, sys; sys.argv[1:] = ['--help']; runpy.run_path('quickstart.py', run_name='__main__')"
    done = subprocess.run([sys.executable, "-I", "-S", "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "python quickstart.py comfyui" in done.stdout
