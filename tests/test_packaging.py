"""What is shipped: declared dependencies, layers, import cost, the registry's archive and its rules."""

import ast
import json
import re
import subprocess
import sys
import time
from itertools import chain
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
HOST = {"comfy", "comfy_api", "comfy_execution", "comfy_extras", "folder_paths", "nodes", "server"}
# Each is used by one loader, command or test that can do without.
OPTIONAL = {"ImageReward", "torchvision", "matplotlib", "ray", "playwright", "rapidocr_onnxruntime"}
DISTRIBUTIONS = {"PIL": "pillow", "sklearn": "scikit-learn"}
OWN = {"ttsvar_core", "nodes", "lab", "tests", "attacks", "quickstart"}

try:
    import tomllib
except ModuleNotFoundError:  # Python 3.10
    tomllib = pytest.importorskip("tomli")


def tracked(*arguments):
    """Files that git knows or would add, relative to the project; skips outside a checkout."""
    listing = subprocess.run(["git", "ls-files", *arguments], cwd=ROOT, capture_output=True, text=True)
    if listing.returncode:
        pytest.skip("not a git checkout")
    return [Path(line) for line in listing.stdout.splitlines() if (ROOT / line).is_file()]


def shipped_sources():
    folders = (sorted((ROOT / folder).rglob("*.py")) for folder in ("nodes", "ttsvar_core"))
    return [path for path in (ROOT / "__init__.py", *chain(*folders)) if path.exists()]


def imports(path):
    """Dotted names of the modules that a file imports, relative imports made absolute."""
    package = path.relative_to(ROOT).parent.parts
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else ()
            name = ".".join([*base, *([node.module] if node.module else [])])
            yield name
            yield from (f"{name}.{alias.name}" for alias in node.names)


def third_party(paths: list[Path]):
    """Distributions that the files import, less the standard library, the host, the project and what is optional."""
    known = sys.stdlib_module_names | HOST | OWN | OPTIONAL | {"tomllib"}
    names = {name.split(".")[0] for path in paths for name in imports(path)}
    local = {path.stem for path in paths} | {path.parent.name for path in paths if path.parent.parent.name == "tests"}
    return {DISTRIBUTIONS.get(name, name) for name in names if name and name not in known | local}


def requirements(name):
    lines = (ROOT / name).read_text().splitlines()
    return [line.strip() for line in lines if line.strip() and not line.startswith("#")]


def names(lines):
    return {re.split(r"[<>=!~ \[]", line)[0].lower() for line in lines}


def project():
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def test_what_is_imported_is_declared_and_the_reverse():
    assert third_party(shipped_sources()) == names(requirements("requirements.txt"))


def test_what_tests_and_tools_import_is_declared_for_developers():
    tools = [p for folder in ("tests", "lab") for p in sorted((ROOT / folder).rglob("*.py"))]
    assert third_party(tools) <= names(requirements("requirements-dev.txt"))


def test_requirements_are_lower_bounds_and_the_same_in_both_places():
    lines = requirements("requirements.txt")
    assert all(re.fullmatch(r"[a-z-]+>=[\d.]+", line) for line in lines), lines
    assert project()["project"]["dependencies"] == lines


def test_optional_extras_are_named_in_the_readme():
    extras = project()["project"]["optional-dependencies"]
    page = (ROOT / "README.md").read_text(encoding="utf-8")
    assert {"image-reward", "ocr", "ray", "plots", "yes-no"} == set(extras)
    assert all(f"| `{name}` | `{' '.join(lines)}` |" in page for name, lines in extras.items())


def test_tested_versions_are_exact_and_meet_the_bounds():
    lines = requirements("requirements-dev.txt")
    assert all(re.fullmatch(r"[a-z-]+==[\d.]+", line) for line in lines), lines
    tested = dict(line.split("==") for line in lines)
    for name, bound in (line.split(">=") for line in requirements("requirements.txt")):
        assert numbers(tested[name]) >= numbers(bound), name


def numbers(version):
    return tuple(int(part) for part in version.split("."))


def test_torch_is_pinned_in_one_place_only():
    pin = re.compile(r"torch==2\.13")
    pinned = [str(p) for p in text_files() if pin.search((ROOT / p).read_text(encoding="utf-8"))]
    assert [name for name in pinned if not name.startswith("tests")] == ["requirements-dev.txt"]


def text_files():
    suffixes = {".py", ".md", ".toml", ".txt", ".yml", ".json", ".js", ""}
    return [p for p in tracked() if p.suffix in suffixes and p.parts[:2] != ("tests", "golden")]


def test_one_version():
    import ttsvar_core

    version = project()["project"]["version"]
    assert ttsvar_core.__version__ == version
    assert re.search(r"^## (\d+\.\d+\.\d+)", (ROOT / "CHANGELOG.md").read_text(), re.M).group(1) == version


def test_bundled_tokenizer_is_read_by_transformers_4_and_5():
    """Version 5 writes a class name that version 4 does not know; ComfyUI may have either."""
    path = ROOT / "ttsvar_core" / "bundled" / "scenes128.t5" / "tokenizer_config.json"
    assert json.loads(path.read_text(encoding="utf-8"))["tokenizer_class"] == "PreTrainedTokenizerFast"


def test_registry_metadata():
    data = project()
    name = data["project"]["name"]
    assert re.fullmatch(r"[A-Za-z](?:[A-Za-z0-9]|[-_.](?![-_.])){0,98}", name)
    assert "comfyui" not in name.lower()
    assert re.fullmatch(r"\d+\.\d+\.\d+", data["project"]["version"])
    assert data["project"]["urls"]["Repository"].startswith("https://github.com/")
    comfy = data["tool"]["comfy"]
    assert comfy["PublisherId"] and comfy["DisplayName"] and comfy["requires-comfyui"].startswith(">=")
    for key in ("Icon", "Banner"):
        image = ROOT / comfy[key].split("/main/")[1]
        assert image.is_file() and image.stat().st_size < 200_000, image


def test_pictures_have_the_sizes_the_registry_shows():
    from PIL import Image

    icon, banner = (Image.open(ROOT / "docs" / "images" / name) for name in ("icon.png", "banner.png"))
    assert icon.size[0] == icon.size[1] <= 800
    assert banner.size[0] * 9 == banner.size[1] * 21


def archive():
    """Files that go into the registry's archive: what git tracks less .comfyignore."""
    left_out = set(tracked("--cached", "--ignored", "--exclude-from=.comfyignore"))
    return [path for path in tracked() if path not in left_out]


def test_archive_holds_the_pack_and_nothing_else():
    """Every file of these folders, whatever they are called further in, and no other."""
    tops = {
        "__init__.py", "nodes", "subgraphs", "ttsvar_core", "workflows", "locales", "web",
        "requirements.txt", "pyproject.toml", "README.md", "CHANGELOG.md", "LICENSE",
    }
    wanted = {path for path in tracked() if path.parts[0] in tops}
    assert {path.parts[0] for path in wanted} == tops
    assert set(archive()) == wanted, sorted(set(archive()) ^ wanted)
    assert any(path.parts[:2] == ("web", "docs") for path in wanted)


FORBIDDEN_CALLS = {"eval", "exec", "os.system", "os.popen", "__import__", "pickle.load", "pickle.loads", "pickle.Unpickler"}


@pytest.mark.parametrize("path", shipped_sources(), ids=lambda p: str(p.relative_to(ROOT)))
def test_shipped_code_keeps_the_registry_rules(path):
    """No eval or exec, no other programs, no downloads, no unpickling of what a user brings."""
    forbidden = {"subprocess", "requests", "urllib", "http", "socket", "pip", "ensurepip", "huggingface_hub"}
    found = {name.split(".")[0] for name in imports(path)} & forbidden
    assert not found
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call):
            assert ast.unparse(node.func) not in FORBIDDEN_CALLS, node.lineno
            if ast.unparse(node.func) == "torch.load":
                assert "weights_only=True" in [ast.unparse(keyword) for keyword in node.keywords], node.lineno


def test_no_path_of_one_machine():
    private = re.compile(r"/(?:root|work|tmp|home/\w+|Users/\w+)/|[A-Z]:\\\\?Users")
    own = Path(__file__).relative_to(ROOT)
    for path in text_files():
        for line in (ROOT / path).read_text(encoding="utf-8").splitlines():
            assert path == own or not private.search(line), f"{path}: {line.strip()[:120]}"


LAYERS = {  # folder or file of ttsvar_core: what it must not know of
    "scales.py": {"config", "bsq", "infinity", "sampling", "search", "rewards", "extractors", "commands", "cli"},
    "rng.py": {"config", "bsq", "infinity", "sampling", "search", "rewards", "extractors", "commands", "cli"},
    "bsq": {"infinity", "sampling", "search", "rewards", "extractors", "commands", "cli"},
    "infinity": {"sampling", "search", "rewards", "extractors", "commands", "cli"},
    "sampling.py": {"rewards", "extractors", "commands", "cli"},
    "search": {"commands", "cli"},
    "rewards": {"infinity", "sampling", "commands", "cli"},
    "extractors": {"infinity", "sampling", "commands", "cli"},
}


def test_layers():
    """The core knows nothing of the host, and lower layers nothing of higher ones."""
    for path in sorted((ROOT / "ttsvar_core").rglob("*.py")):
        used = set(imports(path))
        assert not {name.split(".")[0] for name in used} & HOST, path
        part = path.relative_to(ROOT / "ttsvar_core").parts[0]
        inner = {name.split(".")[1] for name in used if name.startswith("ttsvar_core.")}
        assert not inner & LAYERS.get(part, set()), path


def test_only_one_folder_of_the_nodes_knows_the_host():
    for path in sorted((ROOT / "nodes").rglob("*.py")):
        heads = {name.split(".")[0] for name in imports(path)}
        assert path.parent.name == "host" or not heads & (HOST - {"comfy_api", "nodes"}), path


IMPORT_ALL = """
import importlib, pathlib, sys, time
import torch, numpy
before = set(sys.modules)
start = time.process_time()
for path in sorted(pathlib.Path("ttsvar_core").rglob("*.py")):
    if path.name != "__main__.py":
        importlib.import_module(".".join(path.with_suffix("").parts).removesuffix(".__init__"))
seconds = time.process_time() - start
heavy = {"transformers", "sklearn", "scipy", "matplotlib", "pandas", "torchvision"} & (set(sys.modules) - before)
sys.stderr.write(f"{seconds} {','.join(sorted(heavy))}")
"""


def test_importing_the_whole_core_is_quick_and_silent():
    """Under 0.3 s of processor time beyond torch, nothing printed, no heavy package."""
    quickest = float("inf")
    for _ in range(3):
        done = subprocess.run([sys.executable, "-c", IMPORT_ALL], cwd=ROOT, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        assert done.stdout == ""
        seconds, heavy = done.stderr.split(" ")
        assert heavy == ""
        quickest = min(quickest, float(seconds))
    assert quickest < 0.3


def test_the_pack_imports_without_the_host_quickly_and_silently():
    """As ComfyUI loads it: by path, under a name of the folder's; without a host it must not fail either."""
    if not (ROOT / "__init__.py").exists():
        pytest.skip("the node pack's entry point is not there yet")
    code = (
        "import importlib.util, sys, time, torch, numpy\n"
        "start = time.process_time()\n"
        "spec = importlib.util.spec_from_file_location('pack', '__init__.py', submodule_search_locations=['.'])\n"
        "pack = sys.modules['pack'] = importlib.util.module_from_spec(spec)\n"
        "spec.loader.exec_module(pack)\n"
        "assert callable(pack.comfy_entrypoint) and not hasattr(pack, 'NODE_CLASS_MAPPINGS')\n"
        "sys.stderr.write(str(time.process_time() - start))\n"
    )
    seconds = []
    for _ in range(3):
        done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        assert done.stdout == ""
        seconds.append(float(done.stderr))
    assert min(seconds) < 0.3


def test_importing_leaves_no_trace():
    before = {path: path.stat().st_mtime for path in ROOT.iterdir()}
    started = time.time()
    subprocess.run([sys.executable, "-c", IMPORT_ALL], cwd=ROOT, check=True, capture_output=True)
    new = {path.name for path in ROOT.iterdir() if path not in before and path.stat().st_mtime >= started}
    assert not new
