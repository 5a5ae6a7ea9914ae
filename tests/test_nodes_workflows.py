"""The example graphs, read without a host: every node, input, output and type exists, and a person can read the layout."""

from __future__ import annotations

import itertools
import json

import pytest
from host_stand_in import ROOT, load_pack

FILES = sorted((ROOT / "workflows").glob("*.json"))
WIDGETS = ("INT", "FLOAT", "STRING", "BOOLEAN", "COMBO")
NEEDS_DOWNLOADS = {"infinity_2b": "infinity_2b_reg.pth", "any_model": "v1-5-pruned-emaonly-fp16.safetensors"}
# The host's own nodes the graphs use: inputs and outputs (name, type) as ComfyUI 0.14 and later have them.
CORE = {
    "SaveImage": ({"images": "IMAGE", "filename_prefix": "STRING"}, None, ["filename_prefix"]),
    "PreviewImage": ({"images": "IMAGE"}, None, []),
    "PrimitiveStringMultiline": ({"value": "STRING"}, ["STRING"], ["value"]),
    "PrimitiveInt": ({"value": "INT"}, ["INT"], ["value", ""]),
    "CheckpointLoaderSimple": ({}, ["MODEL", "CLIP", "VAE"], ["ckpt_name"]),
    "CLIPTextEncode": ({"text": "STRING", "clip": "CLIP"}, ["CONDITIONING"], ["text"]),
    "EmptyLatentImage": ({}, ["LATENT"], ["width", "height", "batch_size"]),
    "KSamplerSelect": ({}, ["SAMPLER"], ["sampler_name"]),
    "BasicScheduler": ({"model": "MODEL"}, ["SIGMAS"], ["scheduler", "steps", "denoise"]),
    "SplitSigmas": ({"sigmas": "SIGMAS"}, ["SIGMAS", "SIGMAS"], ["step"]),
    "SamplerCustom": (
        {"model": "MODEL", "positive": "CONDITIONING", "negative": "CONDITIONING", "sampler": "SAMPLER", "sigmas": "SIGMAS",
         "latent_image": "LATENT"}, ["LATENT", "LATENT"], ["add_noise", "noise_seed", "", "cfg"],
    ),
    "VAEDecode": ({"samples": "LATENT", "vae": "VAE"}, ["IMAGE"], []),
}


@pytest.fixture(scope="module")
def schemas(tmp_path_factory):
    with load_pack(tmp_path_factory.mktemp("host")) as pack:
        yield {node_id: node.define_schema() for node_id, node in pack.nodes.items()}


def load(path):
    return json.loads(path.read_text(encoding="utf-8"))


def widgets(schema) -> list:
    """Widgets in the order of widgets_values; None stands for the control after a seed."""
    found = []
    ordered = [one for one in schema.inputs if not one.optional] + [one for one in schema.inputs if one.optional]
    for one in ordered:
        if one.io_type in WIDGETS and not one.force_input:
            found += [one, None] if one.control_after_generate else [one]
    return found


def test_the_promised_graphs_are_there():
    promised = {
        "quick_start", "full_search", "compare_methods", "swap_reward", "branch_lambda", "choose_by_hand", "from_image",
        "resume_from_disk", "infinity_2b", "any_model",
    }
    assert {path.stem for path in FILES} == promised


def test_no_other_folder_hides_the_graphs():
    """ComfyUI serves graphs from any of these folders under one address, and the first one that exists hides the rest."""
    assert not [name for name in ("example_workflows", "example", "examples", "workflow") if (ROOT / name).exists()]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_nodes_inputs_and_types_exist(path, schemas):
    graph = load(path)
    nodes = {node["id"]: node for node in graph["nodes"]}
    assert len(nodes) == len(graph["nodes"]) and max(nodes) == graph["last_node_id"]
    for number, source, slot, target, place, kind in graph["links"]:
        given, taken = nodes[source]["outputs"][slot], nodes[target]["inputs"][place]
        assert given["type"] == kind and taken["link"] == number and number in given["links"]
        assert taken["type"] == kind or taken["type"] == "*", f"{nodes[target]['type']}.{taken['name']} gets a {kind}"
    for node in nodes.values():
        if node["type"] == "MarkdownNote":
            continue
        if node["type"] in CORE:
            inputs, _, _ = CORE[node["type"]]
            assert {one["name"]: one["type"] for one in node["inputs"]}.items() <= inputs.items(), node["type"]
            continue
        schema = schemas[node["type"]]
        known = {one.id: one for one in schema.inputs}
        for socket in node["inputs"]:
            assert known[socket["name"]].io_type == socket["type"], f"{node['type']}.{socket['name']}"
        required = {one.id for one in schema.inputs if not one.optional and one.io_type not in WIDGETS}
        wired = {socket["name"] for socket in node["inputs"] if socket["link"] is not None}
        assert required <= wired, f"{node['type']} {node['id']} lacks {required - wired}"
        assert [one["type"] for one in node["outputs"]] == [one.io_type for one in schema.outputs]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_widget_values_are_allowed(path, schemas):
    for node in load(path)["nodes"]:
        if node["type"] == "MarkdownNote":
            continue
        values = node["widgets_values"]
        if node["type"] in CORE:
            assert len(values) == len(CORE[node["type"]][2])
            continue
        expected = widgets(schemas[node["type"]])
        assert len(values) == len(expected), f"{node['type']}: {values}"
        for one, value in zip(expected, values, strict=True):
            if one is None:
                assert value in ("fixed", "increment", "decrement", "randomize")
            elif one.io_type in ("INT", "FLOAT"):
                assert one.min <= value <= one.max, f"{node['type']}.{one.id} = {value}"
            elif one.io_type == "COMBO" and path.stem not in NEEDS_DOWNLOADS:
                assert value in one.options["options"], f"{node['type']}.{one.id} = {value}"


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_person_can_read_it(path):
    graph = load(path)
    boxes = [(node["pos"][0], node["pos"][1] - 30, *node["size"][:1], node["size"][1] + 30) for node in graph["nodes"]]
    for one, two in itertools.combinations(boxes, 2):
        assert not overlap(one, two), f"nodes overlap: {one}, {two}"
    for one, two in itertools.combinations([group["bounding"] for group in graph["groups"]], 2):
        assert not overlap(one, two), f"groups overlap: {one}, {two}"
    for box in boxes:
        assert any(inside(box, group["bounding"]) for group in graph["groups"]), f"{box} lies in no group"
    assert all(group["title"] for group in graph["groups"])
    notes = [node for node in graph["nodes"] if node["type"] == "MarkdownNote"]
    assert len(notes) == 1 and ("Try" in notes[0]["widgets_values"][0] or path.stem in NEEDS_DOWNLOADS)


def overlap(one, two) -> bool:
    return one[0] < two[0] + two[2] and two[0] < one[0] + one[2] and one[1] < two[1] + two[3] and two[1] < one[1] + one[3]


def inside(box, group) -> bool:
    return (
        box[0] >= group[0] and box[1] >= group[1]
        and box[0] + box[2] <= group[0] + group[2] and box[1] + box[3] <= group[1] + group[3]
    )


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_each_graph_has_a_thumbnail(path):
    from PIL import Image

    with Image.open(path.with_suffix(".jpg")) as picture:
        assert picture.size == (512, 512)


def test_only_bundled_parts_outside_the_graphs_that_say_so():
    for path in FILES:
        text = path.read_text(encoding="utf-8")
        assert [graph for graph, file in NEEDS_DOWNLOADS.items() if file in text] == [path.stem] * (path.stem in NEEDS_DOWNLOADS)
