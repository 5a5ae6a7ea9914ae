"""The pack without a host: it imports, its schemas build, and nothing knows ComfyUI that must not."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest
from host_stand_in import ROOT, load_pack
from PIL import Image

sys.path.insert(0, str(ROOT / "lab" / "tools"))
import build_locales

from ttsvar_core import registry

HOST_MODULES = ("comfy", "comfy_api", "comfy_execution", "folder_paths", "server", "execution", "nodes")


@pytest.fixture(scope="module")
def pack(tmp_path_factory):
    with load_pack(tmp_path_factory.mktemp("host")) as loaded:
        yield loaded


@pytest.fixture(scope="module")
def schemas(pack):
    return {node_id: node.define_schema() for node_id, node in pack.nodes.items()}


def chinese(text: str) -> bool:
    return any("\u4e00" <= letter <= "\u9fff" for letter in text)


def imported(path: Path) -> set[str]:
    """Top-level names of all absolute imports in a file, wherever they stand."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            names.add(node.module.split(".")[0])
    return names


def test_imports_without_a_host_print_nothing_and_load_nothing_heavy():
    code = (
        "import sys, importlib.util as u; s = u.spec_from_file_location('pack', '__init__.py', submodule_search_locations=['.']);"
        "m = u.module_from_spec(s); s.loader.exec_module(m); assert callable(m.comfy_entrypoint);"
        "assert not hasattr(m, 'NODE_CLASS_MAPPINGS');"
        "print([n for n in ('torch', 'transformers', 'PIL', 'numpy') if n in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert (done.stdout.strip(), done.stderr) == ("[]", "")


def test_schemas_build_without_heavy_imports_beyond_torch(tmp_path):
    code = (
        f"import sys; sys.path.insert(0, {str(ROOT / 'tests')!r}); import torch, pathlib; from host_stand_in import load_pack\n"
        f"with load_pack(pathlib.Path({str(tmp_path)!r})) as pack:\n"
        "    print(len(pack.nodes), [n for n in ('transformers', 'sklearn', 'scipy', 'PIL', 'safetensors') if n in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert (done.stdout.strip(), done.stderr) == ("27 []", "")


def test_the_core_never_imports_the_host_and_only_relatively_itself():
    for path in (ROOT / "ttsvar_core").rglob("*.py"):
        wrong = imported(path) & {*HOST_MODULES, "ttsvar_core"}
        assert not wrong, f"{path.relative_to(ROOT)} imports {wrong}; inside ComfyUI only relative imports find the core"


def test_only_the_host_folder_knows_the_hosts_own_modules():
    for path in (ROOT / "nodes").rglob("*.py"):
        inside = path.parent.name == "host"
        allowed = {"comfy_api", "comfy", "comfy_execution", "folder_paths", "server"} if inside else {"comfy_api"}
        assert imported(path) & set(HOST_MODULES) <= allowed, path.name


def test_nodes_are_written_so_that_tools_can_read_them_without_running(pack):
    """The Manager finds node ids by reading the source: a literal node_id in a class directly derived from io.ComfyNode."""
    found = set()
    for path in (ROOT / "nodes").glob("*.py"):
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.ClassDef) and any(ast.unparse(base) == "io.ComfyNode" for base in node.bases):
                ids = [word.value for word in ast.walk(node) if isinstance(word, ast.keyword) and word.arg == "node_id"]
                found |= {ast.literal_eval(value) for value in ids}
    assert found == set(pack.nodes)


def test_every_node_explains_itself(schemas):
    for node_id, schema in schemas.items():
        assert node_id.startswith("TTSVAR_") and schema.display_name and schema.category.startswith("TTS-VAR"), node_id
        assert len(schema.description) > 30 and len(schema.search_aliases) >= 3, node_id
        for one in (*schema.inputs, *schema.outputs):
            assert one.tooltip and len(one.tooltip) >= 10 and one.tooltip[-1] == ".", f"{node_id}.{one.id}: {one.tooltip!r}"
        for names in ([one.id for one in schema.inputs], [one.id for one in schema.outputs]):
            assert len(set(names)) == len(names), node_id


def test_widgets_have_defaults_within_their_bounds(schemas):
    for node_id, schema in schemas.items():
        for one in schema.inputs:
            if one.io_type not in ("INT", "FLOAT", "STRING", "BOOLEAN", "COMBO") or one.force_input:
                continue
            assert one.default is not None, f"{node_id}.{one.id}"
            if one.io_type in ("INT", "FLOAT"):
                assert one.min <= one.default <= one.max, f"{node_id}.{one.id}"
            if one.io_type == "COMBO":
                assert one.default in one.options["options"], f"{node_id}.{one.id}"


def rules(schema) -> dict[str, dict[str, list]]:
    """Of each input that applies only while others have certain values, those."""
    found = {one.id: (one.extra_dict or {}).get("ttsvar_only") for one in schema.inputs}
    return {name: rule for name, rule in found.items() if rule}


def test_what_an_input_hangs_on_is_another_input_and_values_that_it_can_have(schemas):
    for node_id, schema in schemas.items():
        inputs = {one.id: one for one in schema.inputs}
        for name, rule in rules(schema).items():
            for other, values in rule.items():
                assert other in inputs and other != name and other not in rules(schema).get(other, {}), f"{node_id}.{name}"
                options = inputs[other].options
                choices = options.get("options") or range(int(options["min"]), int(options["max"]) + 1)
                assert values and set(values) < set(choices), f"{node_id}.{name}"
    assert {node_id for node_id in schemas if rules(schemas[node_id])} >= {
        "TTSVAR_Generate", "TTSVAR_RewardLoader", "TTSVAR_ExtractorLoader", "TTSVAR_PotentialResampler", "TTSVAR_ResampleBatch",
    }


def test_an_input_of_the_whole_search_is_hidden_where_it_changes_no_plan(pack, schemas):
    made, hangs = pack.imported("nodes.generate"), rules(schemas["TTSVAR_Generate"])
    usual = {"n": 1, "plan": made._PLAN_EXAMPLE, "lambda_": 10.0, "potential": "value", "scheme": "multinomial"}
    other = {"n": 2, "plan": made._PLAN_EXAMPLE.replace("6", "5"), "lambda_": 9.0, "potential": "max", "scheme": "top-k"}

    def plan(method, n, plan, lambda_, potential, scheme):
        return made._plan(method, n, 13, plan, {"potential": potential, "lam": lambda_, "scheme": scheme})

    for method in (*made.METHODS, made.OWN_PLAN):
        for name, value in other.items():
            has_a_say = plan(method, **{**usual, name: value}) != plan(method, **usual)
            assert has_a_say == (method in hangs[name]["method"]), f"{method}: {name}"


def test_execute_takes_exactly_the_inputs_of_the_schema(pack, schemas):
    import inspect

    for node_id, schema in schemas.items():
        taken = inspect.signature(pack.nodes[node_id].execute).parameters
        assert set(taken) == {one.id for one in schema.inputs}, node_id
        for one in schema.inputs:
            assert (taken[one.id].default is not inspect.Parameter.empty) == bool(one.optional), f"{node_id}.{one.id}"


def test_every_node_has_a_help_page_in_every_language(pack):
    """Where the host looks for them, with the words of the locale files around a middle of their own."""
    folder = ROOT / pack.module.WEB_DIRECTORY / "docs"
    pages = {build_locales.page(node_id, language) for node_id in pack.nodes for language in build_locales.HEADINGS}
    assert set(folder.rglob("*.md")) == {path.resolve() for path in pages}
    for language in build_locales.HEADINGS:
        words = json.loads((ROOT / "locales" / language / "nodeDefs.json").read_text(encoding="utf-8"))
        for node_id in pack.nodes:
            text = build_locales.page(node_id, language).read_text(encoding="utf-8")
            middle = build_locales.middle_of(text)
            told = build_locales.told(node_id, words[node_id], middle, language)
            assert text == told, f"{node_id}: run lab/tools/build_locales.py"
            assert len(middle) > 50 and (language == "en" or chinese(middle)), node_id


def test_every_help_page_has_a_picture_that_is_small(pack):
    """As the editor draws the node, not wider than its help panel may be, and quick to load."""
    pictures = {path.stem: path for path in (ROOT / pack.module.WEB_DIRECTORY / "docs" / "pictures").iterdir()}
    assert set(pictures) == set(pack.nodes) and {path.suffix for path in pictures.values()} == {".webp"}
    for node_id, path in pictures.items():
        with Image.open(path) as opened:
            assert 300 <= opened.width <= 520 and 100 <= opened.height <= 1000 and opened.format == "WEBP", node_id
            assert len(opened.convert("RGB").resize((64, 64)).getcolors(64 * 64)) > 50, f"{node_id}: nothing is drawn"
        assert path.stat().st_size < 40_000, node_id
    assert sum(path.stat().st_size for path in pictures.values()) < 600_000


def test_the_loaders_help_pages_say_where_files_are_published():
    pages = {
        name: (ROOT / "web" / "docs" / f"TTSVAR_{name}Loader.md").read_text(encoding="utf-8")
        for name in ("Infinity", "TextEncoder", "Reward", "Extractor")
    }
    of_entries = {"Reward": registry.REWARDS, "Extractor": registry.EXTRACTORS}
    named = [(page, file) for page, entries in of_entries.items() for entry in entries.values() for file in entry.files]
    named += [("TextEncoder" if file.folder == "text_encoders" else "Infinity", file) for file in registry.MODEL_FILES]
    for page, file in named:
        assert file.names[0] in pages[page] and file.page in pages[page], file.title
    assert all(entry.title in pages["Reward"] for entry in registry.REWARDS.values() if entry.files)


@pytest.mark.parametrize("language", ["en", "zh"])
def test_locales_cover_every_node_input_and_output(schemas, language):
    told = json.loads((ROOT / "locales" / language / "nodeDefs.json").read_text(encoding="utf-8"))
    assert set(told) == set(schemas)
    for node_id, schema in schemas.items():
        entry = told[node_id]
        assert entry["display_name"] and entry["description"]
        assert set(entry["inputs"]) == {one.id for one in schema.inputs}, node_id
        assert set(entry["outputs"]) == {str(place) for place in range(len(schema.outputs))}, node_id
        for one in (*entry["inputs"].values(), *entry["outputs"].values()):
            assert one["name"] and one["tooltip"], node_id


def test_the_english_locale_says_what_the_schemas_say(schemas):
    told = json.loads((ROOT / "locales" / "en" / "nodeDefs.json").read_text(encoding="utf-8"))
    assert told == {node_id: build_locales.entry(schema) for node_id, schema in schemas.items()}, "run lab/tools/build_locales.py"


def test_the_chinese_locale_is_chinese():
    told = json.loads((ROOT / "locales" / "zh" / "nodeDefs.json").read_text(encoding="utf-8"))
    for node_id, entry in told.items():
        texts = [entry["description"], *(one["tooltip"] for one in (*entry["inputs"].values(), *entry["outputs"].values()))]
        assert all(chinese(text) for text in texts), node_id


def test_the_image_tokenizer_is_not_called_a_word_segmenter(schemas):
    """What ComfyUI's users know as the VAE; the word is that of text alone."""
    texts = [path.read_text(encoding="utf-8") for path in (*ROOT.glob("locales/zh/*"), *ROOT.glob("web/docs/*/zh.md"))]
    assert len(texts) == len(schemas) + 2 and not any("分词器" in text for text in texts)


def test_nodes_are_found_by_a_chinese_word_too(schemas):
    for node_id, schema in schemas.items():
        assert any(chinese(alias) for alias in schema.search_aliases), node_id
