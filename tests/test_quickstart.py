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
    monkeypatch.setattr(quickstart, "environment", lambda folder, packages: "PYTHON")
    monkeypatch.setattr(quickstart, "run", lambda command: ran.append(command) or 0)
    return ran


def test_no_argument_runs_the_demo(quickstart, commands):
    assert quickstart.main([]) == 0
    assert commands == [["PYTHON", "-m", "ttsvar_core", "demo", "--out", str(ROOT / "output" / "demo")]]


def test_a_folder_for_pictures_is_meant_where_the_command_is_typed(quickstart, commands, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert quickstart.main(["demo", "--out", "pictures"]) == 0
    assert commands[0][-1] == str(tmp_path / "pictures")


def test_a_folder_that_cannot_be_written_is_one_line(quickstart, comfyui, monkeypatch, tmp_path, capsys):
    """As where the pack lies in a folder of somebody else: its log cannot be written."""
    monkeypatch.setattr(quickstart, "ROOT", root := tmp_path / "pack")
    monkeypatch.setattr(quickstart, "comfyui_python", lambda folder: sys.executable)
    (root / "workflows").mkdir(parents=True)
    (root / "workflows" / "03_full_search.json").touch()
    (root / "output").touch()
    assert quickstart.main(["comfyui", "--dir", str(comfyui)]) == 1
    error = capsys.readouterr().err
    assert error.startswith("\nquickstart: ") and "output" in error and len(error.strip().splitlines()) == 1


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
    python = quickstart.environment(tmp_path / "env", packages)
    version = subprocess.run([python, "-c", "import sys; print(sys.prefix)"], capture_output=True, text=True)
    assert Path(version.stdout.strip()) == tmp_path / "env"
    assert quickstart.environment(tmp_path / "env", packages) == python
    assert len(installs) == 1
    requirements.write_text("# another")
    quickstart.environment(tmp_path / "env", packages)
    assert len(installs) == 2


def test_failed_install_says_what_to_do_and_leaves_no_stamp(quickstart, monkeypatch, tmp_path):
    monkeypatch.setattr(quickstart, "run", lambda command: 1)
    with pytest.raises(quickstart.SetupError, match="run the same command again"):
        quickstart.environment(tmp_path / "env", ["nothing"])
    assert not (tmp_path / "env" / "ttsvar-stamp").exists()


def test_old_python_is_refused(quickstart, monkeypatch):
    monkeypatch.setattr(quickstart, "OLDEST", (9, 0))
    with pytest.raises(quickstart.SetupError, match=r"Python 9\.0 or newer is needed"):
        quickstart.check_python()


def test_needs_only_the_standard_library():
    code = "import runpy, sys; sys.argv[1:] = ['--help']; runpy.run_path('quickstart.py', run_name='__main__')"
    done = subprocess.run([sys.executable, "-I", "-S", "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "python quickstart.py comfyui" in done.stdout


@pytest.fixture
def comfyui(tmp_path):
    """The outline of a ComfyUI."""
    folder = tmp_path / "ComfyUI"
    (folder / "comfy").mkdir(parents=True)
    (folder / "custom_nodes").mkdir()
    (folder / "main.py").touch()
    return folder


def test_comfyui_is_found_by_name_then_around_the_pack_then_at_home(quickstart, comfyui, monkeypatch):
    monkeypatch.setenv("COMFYUI_DIR", str(comfyui))
    assert quickstart.find_comfyui(None) == comfyui
    monkeypatch.delenv("COMFYUI_DIR")
    monkeypatch.setattr(quickstart.Path, "home", lambda: comfyui.parent)
    monkeypatch.setattr(quickstart, "ROOT", comfyui.parent / "elsewhere")
    assert quickstart.find_comfyui(None) == comfyui
    monkeypatch.setattr(quickstart.Path, "home", lambda: comfyui.parent / "nobody")
    assert quickstart.find_comfyui(None) is None
    monkeypatch.setattr(quickstart, "ROOT", comfyui / "custom_nodes" / "ttsvar")
    assert quickstart.find_comfyui(None) == comfyui


def test_a_named_folder_without_comfyui_is_an_error(quickstart, tmp_path):
    with pytest.raises(quickstart.SetupError, match=r"no main\.py and comfy/"):
        quickstart.find_comfyui(str(tmp_path))


def test_failed_fetch_says_what_to_do(quickstart, monkeypatch, tmp_path):
    monkeypatch.setattr(quickstart, "COMFYUI", str(tmp_path / "no such repository"))
    with pytest.raises(quickstart.SetupError, match="COMFYUI_DIR=FOLDER"):
        quickstart.fetch_comfyui(tmp_path / "new" / "ComfyUI")
    monkeypatch.setattr(quickstart.shutil, "which", lambda name: None)
    with pytest.raises(quickstart.SetupError, match="Install git"):
        quickstart.fetch_comfyui(tmp_path / "new" / "ComfyUI")


def test_pack_is_linked_once_and_never_over_another(quickstart, comfyui, monkeypatch, tmp_path):
    nodes = comfyui / "custom_nodes"
    assert quickstart.link_pack(nodes) == quickstart.link_pack(nodes) == "ttsvar"
    assert (nodes / "ttsvar").resolve() == ROOT
    monkeypatch.setattr(quickstart, "ROOT", tmp_path / "another copy")
    with pytest.raises(quickstart.SetupError, match="another copy of the pack"):
        quickstart.link_pack(nodes)
    monkeypatch.setattr(quickstart, "ROOT", nodes / "cloned-by-hand")
    assert quickstart.link_pack(nodes) == "cloned-by-hand"


def test_unknown_graph_names_the_known_ones(quickstart, capsys):
    assert quickstart.main(["comfyui", "--graph", "nonsense"]) == 1
    assert "choose one of: " in capsys.readouterr().err


def test_graph_becomes_a_prompt():
    """Widgets by position, a seed's control skipped, wires over widgets, notes and muted nodes left out."""
    from lab.tools.comfyui_http import to_prompt

    catalogue = {
        "Draw": {
            "input": {
                "required": {
                    "model": ["MODEL", {}],
                    "seed": ["INT", {"control_after_generate": True}],
                    "mode": [["a", "b"]],
                    "size": ["INT", {}],
                },
                "optional": {"note": ["STRING", {}], "only_wire": ["FLOAT", {"forceInput": True}]},
            },
            "input_order": {"required": ["model", "seed", "mode", "size"], "optional": ["note", "only_wire"]},
        },
        "Load": {"input": {"required": {}}, "input_order": {"required": []}},
    }
    graph = {
        "links": [[7, 1, 0, 2, 0, "MODEL"], [8, 1, 1, 2, 1, "INT"]],
        "nodes": [
            {"id": 1, "type": "Load"},
            {
                "id": 2,
                "type": "Draw",
                "inputs": [{"name": "model", "link": 7}, {"name": "size", "link": 8}, {"name": "only_wire", "link": None}],
                "widgets_values": [42, "fixed", "b", 64, "hello"],
            },
            {"id": 3, "type": "MarkdownNote", "widgets_values": ["read me"]},
            {"id": 4, "type": "Load", "mode": 4},
        ],
    }
    assert to_prompt(graph, catalogue) == {
        "1": {"class_type": "Load", "inputs": {}},
        "2": {
            "class_type": "Draw",
            "inputs": {"model": ["1", 0], "seed": 42, "mode": "b", "size": ["1", 1], "note": "hello"},
        },
    }
