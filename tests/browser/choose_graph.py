"""A small graph with a choice in its middle, as the editor saves it: four sketches, a choice, the rest, a picture, a view."""

from __future__ import annotations

import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "lab" / "tools"))
from comfyui_http import to_prompt
from graph_builder import Graph

SCENE = "scenes128 (bundled)"


def choose_graph(catalogue: dict, folder: Path) -> dict:
    """The graph; the nodes are called by their types in `numbers`."""
    graph = Graph("choose", catalogue)
    model = graph.add("TTSVAR_InfinityLoader", transformer=SCENE, tokenizer=SCENE)
    encoder = graph.add("TTSVAR_TextEncoderLoader")
    reward = graph.add("TTSVAR_RewardLoader")
    text = graph.add("TTSVAR_PromptEncode", text="a photo of a red circle left of a blue square", text_encoder=encoder)
    begun = graph.add("TTSVAR_StartState", model=model, conditioning=text, samples=4, seed=3)
    sketch = graph.add("TTSVAR_ScaleStepSampler", "Sketch", state=begun, through_scale=6, preview="off")
    scored = graph.add("TTSVAR_RewardScorer", state=sketch, reward=reward)
    choose = graph.add("TTSVAR_ChooseSketches", "Choose", (480, 420), state=scored.out("state"))
    rest = graph.add("TTSVAR_ScaleStepSampler", "Finish", state=choose.out("state"), preview="off")
    decoded = graph.add("TTSVAR_DecodeState", state=rest)
    graph.add("SaveImage", images=decoded, filename_prefix="chosen")
    graph.add("TTSVAR_InspectState", "View", (560, 620), state=rest)
    rows = {node.number: place for node, place in zip(graph.nodes, _places(), strict=True)}
    for node in graph.nodes:
        node.position = rows[node.number]
    return json.loads(graph.save(folder).read_text(encoding="utf-8"))


def _places() -> list[tuple[int, int]]:
    """Loaders, prompt, sketch and choice from left to right, then the rest."""
    left = [(0, 60), (0, 300), (0, 480), (340, 60), (340, 420), (720, 60), (720, 560)]
    return [*left, (1060, 60), (1600, 60), (1600, 560), (1600, 680), (1940, 60)]


def prompt_of(graph: dict, catalogue: dict, choice: str = "", seen: str = "") -> dict:
    """The graph as /prompt takes it, with a choice."""
    prompt = to_prompt(graph, catalogue)
    prompt[number(prompt, "ChooseSketches")]["inputs"] |= {"choice": choice, "seen": seen}
    return prompt


def number(prompt: dict, kind: str) -> str:
    """The one node of a kind, the last of several."""
    return [number for number, node in prompt.items() if node["class_type"] in (kind, f"TTSVAR_{kind}")][-1]
