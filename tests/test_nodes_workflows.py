"""The example graphs and blueprints, read without a host: every node, input, output and type exists, inside subgraphs, too."""

from __future__ import annotations

import json
import sys

import pytest
from host_stand_in import ROOT, load_pack

sys.path.insert(0, str(ROOT / "lab" / "tools"))
import workflow_list
from comfyui_http import to_prompt

from ttsvar_core.config import PRESETS

FILES = sorted((ROOT / "workflows").glob("*.json"))
BLUEPRINTS = sorted((ROOT / "subgraphs").glob("*.json"))
WIDGETS = ("INT", "FLOAT", "STRING", "BOOLEAN", "COMBO")
INSIDE, OUTSIDE = -10, -20
# The host's own nodes the graphs use: inputs and outputs (name, type) as ComfyUI 0.14 and later have them.
CORE = {
    "SaveImage": ({"images": "IMAGE", "filename_prefix": "STRING"}, ["filename_prefix"]),
    "PreviewImage": ({"images": "IMAGE"}, []),
    "PrimitiveStringMultiline": ({"value": "STRING"}, ["value"]),
    "CheckpointLoaderSimple": ({"ckpt_name": "COMBO"}, ["ckpt_name"]),
    "CLIPTextEncode": ({"text": "STRING", "clip": "CLIP"}, ["text"]),
    "EmptyLatentImage": ({"batch_size": "INT"}, ["width", "height", "batch_size"]),
    "KSamplerSelect": ({"sampler_name": "COMBO"}, ["sampler_name"]),
    "BasicScheduler": ({"model": "MODEL"}, ["scheduler", "steps", "denoise"]),
    "SplitSigmas": ({"sigmas": "SIGMAS"}, ["step"]),
    "SamplerCustom": (
        {"model": "MODEL", "positive": "CONDITIONING", "negative": "CONDITIONING", "sampler": "SAMPLER", "sigmas": "SIGMAS",
         "latent_image": "LATENT"}, ["add_noise", "noise_seed", "", "cfg"],
    ),
    "VAEDecode": ({"samples": "LATENT", "vae": "VAE"}, []),
}


@pytest.fixture(scope="module")
def schemas(tmp_path_factory):
    with load_pack(tmp_path_factory.mktemp("host")) as pack:
        yield {node_id: node.define_schema() for node_id, node in pack.nodes.items()}


def load(path):
    return json.loads(path.read_text(encoding="utf-8"))


def levels(path) -> list[tuple[dict, list[list]]]:
    """A graph and the subgraphs folded into it, each with its links as (number, source, slot, target, place, type)."""
    graph = load(path)
    inner = graph["definitions"]["subgraphs"]
    return [(graph, graph["links"]), *((one, [list(link.values()) for link in one["links"]]) for one in inner)]


def all_nodes(path) -> list[dict]:
    return [node for level, _ in levels(path) for node in level["nodes"] if node["type"] != "MarkdownNote"]


def widgets(schema) -> list:
    """Widgets in the order of widgets_values; None stands for the control after a seed."""
    found = []
    ordered = [one for one in schema.inputs if not one.optional] + [one for one in schema.inputs if one.optional]
    for one in ordered:
        if one.io_type in WIDGETS and not one.force_input:
            found += [one, None] if one.control_after_generate else [one]
    return found


def each(files):
    return pytest.mark.parametrize("path", files, ids=lambda path: path.stem)


def test_the_graphs_are_there_in_an_order_of_learning():
    assert [path.stem for path in FILES] == list(workflow_list.WORKFLOWS)
    assert {path.stem[:2] for path in FILES} == {f"{place:02}" for place in range(1, len(FILES) + 1)}
    promised = {"Diverse step", "Reward step", "TTS-VAR search", "Best of N of any pictures"}
    assert promised <= {path.stem for path in BLUEPRINTS}


def test_no_other_folder_hides_the_graphs():
    """ComfyUI serves graphs from any of these folders under one address, and the first one that exists hides the rest."""
    assert not [name for name in ("example_workflows", "example", "examples", "workflow") if (ROOT / name).exists()]


@each([*FILES, *BLUEPRINTS])
def test_nodes_inputs_and_types_exist(path, schemas):
    numbers = [node["id"] for level, _ in levels(path) for node in level["nodes"]]
    assert len(numbers) == len(set(numbers)), "nodes of a file share a number"
    folded = {one["id"]: one for one in load(path)["definitions"]["subgraphs"]}
    for level, links in levels(path):
        nodes = {node["id"]: node for node in level["nodes"]}
        for number, source, slot, target, place, kind in links:
            if source != INSIDE:
                given = nodes[source]["outputs"][slot]
                assert given["type"] == kind and number in given["links"]
            if target != OUTSIDE:
                taken = nodes[target]["inputs"][place]
                assert taken["link"] == number and taken["type"] in (kind, "*"), f"{nodes[target]['type']}.{taken['name']}"
        for node in nodes.values():
            if node["type"] in folded:
                check_folded(node, folded[node["type"]])
            elif node["type"] in CORE:
                known = CORE[node["type"]][0]
                assert {one["name"]: one["type"] for one in node["inputs"]}.items() <= known.items(), node["type"]
            elif node["type"] != "MarkdownNote":
                check_node(node, schemas[node["type"]])


def check_node(node: dict, schema) -> None:
    known = {one.id: one for one in schema.inputs}
    for socket in node["inputs"]:
        assert known[socket["name"]].io_type == socket["type"], f"{node['type']}.{socket['name']}"
    required = {one.id for one in schema.inputs if not one.optional and one.io_type not in WIDGETS}
    wired = {socket["name"] for socket in node["inputs"] if socket["link"] is not None}
    assert required <= wired, f"{node['type']} {node['id']} lacks {required - wired}"
    assert [one["type"] for one in node["outputs"]] == [one.io_type for one in schema.outputs]


def check_folded(node: dict, inner: dict) -> None:
    """A folded node has its subgraph's inputs and outputs, and a value for each widget among them."""
    for mine, its in (("inputs", "inputs"), ("outputs", "outputs")):
        assert [(one["name"], one["type"]) for one in node[mine]] == [(one["name"], one["type"]) for one in inner[its]]
    assert len(node["widgets_values"]) == sum("widget" in one for one in node["inputs"])
    assert all(one["linkIds"] for one in (*inner["inputs"], *inner["outputs"]))


@each([*FILES, *BLUEPRINTS])
def test_widget_values_are_allowed(path, schemas):
    for node in all_nodes(path):
        values = node["widgets_values"]
        if node["type"] in CORE:
            assert len(values) == len(CORE[node["type"]][1])
        elif node["type"] in schemas:
            expected = widgets(schemas[node["type"]])
            assert len(values) == len(expected), f"{node['type']}: {values}"
            for one, value in zip(expected, values, strict=True):
                if one is None:
                    assert value in ("fixed", "increment", "decrement", "randomize")
                elif one.io_type in ("INT", "FLOAT"):
                    assert one.min <= value <= one.max, f"{node['type']}.{one.id} = {value}"
                elif one.io_type == "COMBO" and not node["properties"].get("models"):
                    fits = value in one.options["options"] or "infinity_8b" in value  # a folder, which no model list tells
                    assert fits, f"{node['type']}.{one.id} = {value}"


def value(node: dict, schemas, name: str):
    named = [one.id if one else "" for one in widgets(schemas[node["type"]])]
    return dict(zip(named, node["widgets_values"], strict=True))[name]


@each(FILES)
def test_guidance_is_shown_as_the_number_it_is(path, schemas):
    """And in the graphs of published models everything a scale is drawn with. The bundled model's ends before the last scales."""
    published = PRESETS["8b" if "8b" in path.stem else "2b"].sampling
    bundled = json.loads((ROOT / "ttsvar_core" / "bundled" / "scenes128.json").read_text(encoding="utf-8"))["cfg"]
    for node in all_nodes(path):
        if node["type"] in ("TTSVAR_ScaleStepSampler", "TTSVAR_Generate") and node["id"] < 100:
            strength, until = value(node, schemas, "guidance"), value(node, schemas, "guidance_until")
            if "infinity" in path.stem:
                shown = tuple(value(node, schemas, name) for name in ("guidance", "tau", "top_p"))
                assert shown == (published.guidance, published.tau, published.top_p)
            else:
                assert bundled == [strength] * (until + 1) + [1.0] * (len(bundled) - until - 1)


@each([path for path in FILES if "infinity" in path.stem])
def test_every_missing_file_is_named_with_its_address_and_folder(path):
    """Those the editor can tell: what a loader names that ends as model files do."""
    for node in all_nodes(path):
        named = {str(value) for value in node["widgets_values"] if str(value).endswith((".pth", ".pt", ".safetensors"))}
        models = {one["name"]: one for one in node["properties"].get("models", [])}
        assert named == set(models), node["type"]
        for one in models.values():
            assert one["url"].startswith("https://") and one["url"].endswith(one["name"].split("/")[-1]) and one["directory"]


def test_app_mode_shows_what_the_graph_has():
    for path in FILES:
        shown = load(path)["extra"].get("linearData")
        nodes = {node["id"]: node for node in load(path)["nodes"]}
        assert bool(shown) == (path.stem[:2] in ("01", "02", "09", "10", "11")), path.stem
        for number, _ in shown["inputs"] if shown else ():
            assert number in nodes
        assert not shown or all(number in nodes for number in shown["outputs"])


@each(FILES)
def test_a_graph_unfolds_into_a_prompt_of_nodes_alone(path, schemas):
    """As the server takes it: no subgraph is left, every wire ends at a node that is there."""
    prompt = to_prompt(load(path), catalogue(path, schemas))
    folded = {one["id"]: len(one["nodes"]) for one in load(path)["definitions"]["subgraphs"]}
    assert len(prompt) == sum(folded.get(node["type"], node["type"] != "MarkdownNote") for node in load(path)["nodes"])
    for node in prompt.values():
        for given in node["inputs"].values():
            assert not isinstance(given, list) or given[0] in prompt


def catalogue(path, schemas) -> dict:
    """Node types with their widgets, as far as unfolding asks for them."""
    def entry(names: list[str]) -> dict:
        return {"input_order": {"required": names}, "input": {"required": {name: ["INT", {}] for name in names}}}

    known = {kind: entry([one.id for one in widgets(schema) if one]) for kind, schema in schemas.items()}
    return known | {kind: entry(names) for kind, (_, names) in CORE.items()}


@each(BLUEPRINTS)
def test_a_blueprint_is_one_node_that_says_what_it_is_for(path):
    graph = load(path)
    (node,), inner = graph["nodes"], graph["definitions"]["subgraphs"]
    assert node["type"] == inner[0]["id"] and inner[0]["name"] == path.stem
    assert len(inner[0]["description"]) > 40 and inner[0]["extra"]["BlueprintSearchAliases"]


@each(FILES)
def test_each_graph_has_a_thumbnail(path):
    from PIL import Image

    with Image.open(path.with_suffix(".jpg")) as picture:
        assert picture.size == (512, 512)


def test_only_bundled_parts_outside_the_graphs_that_say_so():
    for path in FILES:
        text = path.read_text(encoding="utf-8")
        needs = "infinity_vae" in text or "safetensors" in text.replace("scenes128.", "")
        assert needs == (path.stem in workflow_list.NEEDS_DOWNLOADS), path.stem
