"""Photograph every node for its help page, after one run of a graph that holds them all: `python lab/tools/help_pictures.py`,
or `... TTSVAR_Generate` for some.

Writes web/docs/pictures/<node id>.webp: the node as the editor draws it at 100%, and below it what comes of it. Needs what
`screenshot` needs.
"""

from __future__ import annotations

import argparse
import io
import json
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))
from editor import ran, serving  # noqa: E402
from graph_builder import Graph, Node  # noqa: E402

from ttsvar_core.registry import EXTRACTORS, REWARDS  # noqa: E402

FOLDER = ROOT / "web" / "docs" / "pictures"
WIDE, LOW, HIGH = 440, 300, 420  # pixels of what is photographed, and how high a picture and a view with words are
EDGE, GROUND = 8, (34, 34, 34)
PROMPT = "a photo of a yellow star above a purple circle"
STEERED = {"guidance": 2.0, "guidance_until": 8}
CENTRE = """([number, left, top]) => { const view = window.app.canvas.ds, node = window.app.graph.getNodeById(number);
    view.scale = 1; view.offset[0] = left - node.pos[0]; view.offset[1] = top - node.pos[1]; window.app.canvas.setDirty(true, true);
    const box = node.getBounding(); return [box[0] + view.offset[0], box[1] + view.offset[1], box[2], box[3]]; }"""


def helped(graph: Graph) -> dict[str, list[Node]]:
    """Every node of the pack in one graph; by its id, what its page shows."""
    shown: dict[str, list[Node]] = {}

    def add(name: str, width: int = WIDE, height: int = 0, **inputs: Any) -> Node:
        node = graph.add(f"TTSVAR_{name}", **inputs)
        node.size = (width, height or node.size[1])
        return node

    def view(state: Any, show: str = "sketches", height: int = HIGH) -> Node:
        return add("InspectState", WIDE, height, state=state, show=show)

    def picture(images: Any) -> Node:
        return graph.add("PreviewImage", "", (WIDE, LOW), images=images)

    def page(node: Node, *below: Node) -> Node:
        shown.setdefault(node.type, [node, *below])
        return node

    def viewed(name: str, show: str = "sketches", **inputs: Any) -> Node:
        node = add(name, **inputs)
        return page(node, view(node.out("state"), show))

    _load(add, page)
    model, encoder, reward, extractor, text = (shown[f"TTSVAR_{name}"][0] for name in (
        "InfinityLoader", "TextEncoderLoader", "RewardLoader", "ExtractorLoader", "PromptEncode"
    ))
    start = page(add("StartState", model=model, conditioning=text, samples=8, seed=4))
    plan = page(add("BudgetPlan", WIDE, 300, model=model, conditioning=text, reward=reward))
    graph.add("PreviewAny", source=plan.out("reason"))  # so that it runs
    coarse = add("ScaleStepSampler", state=start, through_scale=5, preview="off", **STEERED)
    viewed("ClusterSelector", "family tree", state=coarse, extractor=extractor, keep=4)
    sketch = viewed("ScaleStepSampler", state=start, through_scale=6, preview="off", **STEERED)
    scored = viewed("RewardScorer", state=sketch, reward=reward)
    cut = viewed("PotentialResampler", "family tree", state=scored.out("state"), keep=4)
    viewed("SelectByHand", state=scored.out("state"), numbers="1, 4, 4")
    page(add("ChooseSketches", WIDE, 420, state=scored.out("state"), choice="1 4"))
    ended = add("ScaleStepSampler", state=cut.out("state"), preview="off", **STEERED)
    judged = add("RewardScorer", state=ended, reward=reward)
    best = viewed("SelectBest", "scores", state=judged.out("state"), keep=2)
    decoded = add("DecodeState", state=best.out("state"))
    page(decoded, picture(decoded))
    page(view(judged.out("state"), "family tree", 470))
    viewed("AttachScores", state=sketch, scores=scored.out("scores"))
    kept = page(add("SaveState", state=sketch, filename_prefix="ttsvar/help"))
    viewed("LoadState", model=model, text_encoder=encoder, path=kept)
    _searched(add, page, picture, view, model, encoder)
    _batches(add, page, picture, sketch, reward, extractor)
    graph.row(graph.nodes, (0, 0), 100)
    return shown


def _load(add: Any, page: Any) -> None:
    page(add("InfinityLoader"))
    encoder = page(add("TextEncoderLoader"))
    reward = add("RewardLoader")
    page(reward, *(add("RewardLoader", reward=REWARDS[key].title) for key in ("aesthetic", "yes-no-parts")))
    page(add("ExtractorLoader"), add("ExtractorLoader", extractor=EXTRACTORS["dinov2-PCA"].title))
    page(add("PromptEncode", WIDE, 160, text_encoder=encoder, text=PROMPT, reward=reward))
    page(add("BlendRewards", reward_1=reward, reward_2=reward))
    page(add("VisionLanguageReward", questions="Is there a yellow star?\nIs there a purple circle?"))


def _searched(add: Any, page: Any, picture: Any, view: Any, model: Node, encoder: Node) -> None:
    whole = add("Generate", WIDE, 510, prompt=PROMPT, seed=4, preview="off", **STEERED)
    page(whole, picture(whole.out("image")))
    other = add("PromptEncode", text_encoder=encoder, text="a photo of a blue star above a green circle")
    begun = add("StateFromImage", model=model, conditioning=other, image=whole.out("image"), through_scale=6, samples=4)
    page(begun, view(add("ScaleStepSampler", state=begun, preview="off", **STEERED)))


def _batches(add: Any, page: Any, picture: Any, sketch: Node, reward: Node, extractor: Node) -> None:
    images = add("DecodeState", state=sketch)
    ranked = add("ScoreImages", images=images, reward=reward, prompt=PROMPT, sort=False)
    numbers = ranked.out("scores")
    page(ranked, picture(ranked.out("images")))
    drawn = add("ResampleBatch", scores=numbers, images=images, keep=4)
    page(drawn, picture(drawn.out("images")))
    differ = add("ClusterBatch", extractor=extractor, images=images, keep=4)
    page(differ, picture(differ.out("images")))
    page(add("ChooseBatch", WIDE, 460, images=images, choice="0 6", labels=numbers))


def take(page: Any, catalogue: dict, base: Path, names: list[str]) -> dict[str, Any]:
    """Run the graph, which is written to ``base``, in the editor, and photograph these nodes of it, or all."""
    graph = Graph("help", catalogue)
    shown = helped(graph)
    page.evaluate("() => window.app.extensionManager.setting.set('Comfy.NodeBadge.NodeSourceBadgeMode', 'None')")
    page.evaluate("graph => window.app.loadGraphData(graph)", json.loads(graph.save(base).read_text(encoding="utf-8")))
    page.evaluate("() => { window.app.canvas.links_render_mode = window.LiteGraph.HIDDEN_LINK; }")
    page.evaluate("() => window.app.queuePrompt(0, 1)")
    ran(page, 10)
    return photograph(page, {name: shown[name] for name in names or shown})


def photograph(page: Any, shown: dict[str, list[Node]]) -> dict[str, Any]:
    """By node id, a picture of its nodes below one another."""
    from PIL import Image

    pictures = {}
    for name, nodes in shown.items():
        parts = []
        for node in nodes:
            page.evaluate(CENTRE, [node.number, 200, 150])
            page.wait_for_timeout(500)
            page.wait_for_load_state("networkidle")
            page.wait_for_timeout(500)
            left, top, width, height = page.evaluate(CENTRE, [node.number, 200, 150])
            clip = {"x": left - EDGE, "y": top - EDGE, "width": width + 2 * EDGE, "height": height + 2 * EDGE}
            parts.append(Image.open(io.BytesIO(page.screenshot(clip=clip))).convert("RGB"))
        whole = Image.new("RGB", (max(part.width for part in parts), sum(part.height for part in parts)), GROUND)
        for at, part in enumerate(parts):
            whole.paste(part, (0, sum(above.height for above in parts[:at])))
        pictures[name] = whole
    return pictures


def main(argv: list[str] | None = None) -> int:
    """Run the graph, write the pictures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", help="node ids; all, where none is given")
    names = parser.parse_args(argv).names
    with serving(900, 900) as (page, catalogue, base):
        pictures = take(page, catalogue, base, names)
    FOLDER.mkdir(exist_ok=True)
    for name, whole in pictures.items():
        whole.save(FOLDER / f"{name}.webp", quality=80, method=6)
    return 0


if __name__ == "__main__":
    sys.exit(main())
