"""What the example graphs hold. Each function fills one graph; a group is laid out column by column."""

from __future__ import annotations

from any_model_graph import any_model
from graph_builder import Graph, Node

PROMPT = "a photo of a red circle left of a blue square"
NEEDS_DOWNLOADS = {"infinity_2b": "full_search", "any_model": "full_search"}  # and whose family tree serves as thumbnail


def loaders(graph: Graph, prompt: str = PROMPT, extractor: bool = True, check: bool = True) -> dict[str, Node]:
    """The loaders every node-by-node graph begins with, all set to what comes with the pack; ``check`` the prompt by the reward."""
    parts = {
        "model": graph.add("TTSVAR_InfinityLoader"),
        "encoder": graph.add("TTSVAR_TextEncoderLoader"),
        "reward": graph.add("TTSVAR_RewardLoader"),
    }
    if extractor:
        parts["extractor"] = graph.add("TTSVAR_ExtractorLoader")
    judge = {"reward": parts["reward"]} if check else {}
    parts["prompt"] = graph.add("TTSVAR_PromptEncode", text_encoder=parts["encoder"], text=prompt, **judge)
    return parts


def load_group(graph: Graph, parts: dict[str, Node], start: Node, at: tuple[int, int] = (0, 0)) -> tuple[int, int]:
    """Place the loaders and the node that starts the search."""
    first = [parts[name] for name in ("model", "encoder", "reward", "extractor") if name in parts]
    return graph.group("1  Load and start", "load", [first, [parts["prompt"], start]], at)


def finish(graph: Graph, state: Node, reward: Node, prefix: str) -> list[Node]:
    """Score the finished samples, keep the best, decode and save it."""
    scored = graph.add("TTSVAR_RewardScorer", state=state, reward=reward)
    best = graph.add("TTSVAR_SelectBest", state=scored, keep=1)
    decoded = graph.add("TTSVAR_DecodeState", state=best)
    return [scored, best, decoded, graph.add("SaveImage", images=decoded, filename_prefix=prefix)]


def quick_start(graph: Graph) -> None:
    """One node, the best picture, and what was in the running."""
    generate = graph.add("TTSVAR_Generate", prompt=PROMPT, method="TTS-VAR", n=2)
    saved = graph.add("SaveImage", "Best picture", images=generate.out("image"), filename_prefix="ttsvar/quick_start")
    seen = graph.add("TTSVAR_InspectState", "How it was found", state=generate.out("state"))
    note = graph.note(
        "## Quick start\n\nPress **Run**. Everything comes with the pack: a small model that draws 64x64 scenes, its text "
        "encoder, and a verifier that checks the picture against the prompt.\n\n"
        "**Try**\n- another prompt: *a photo of three green triangles*, *a photo of a yellow diamond above a purple circle*\n"
        "- method **raw** against **TTS-VAR** with the same seed\n- **N** 4: more samples start, more are finished\n"
        "- the family tree (second picture of *How it was found*): which of the first sketches won?\n\n"
        "**Next:** *full_search* shows the same search node by node.", 420,
    )
    right, _ = graph.group("Generate", "search", [[generate]], (0, 0))
    right, _ = graph.group("Result", "answer", [[saved], [seen]], (right + 40, 0))
    graph.group("Read me", "look", [[note]], (right + 40, 0))


def full_search(graph: Graph) -> None:
    """The search of the paper's figure, node by node."""
    _full(graph, loaders(graph), "ttsvar/full_search", (
        "## TTS-VAR, node by node\n\n8 samples start. **Clustering** after scales 2 and 5 keeps sketches that differ "
        "(8 → 6 → 4); **resampling** after scales 6 and 9 keeps what the reward promises most (4 → 2 → 1).\n\n"
        "Every node hands on the whole state, and ComfyUI remembers each one: change **lambda** of the last resampler and only "
        "what follows runs again.\n\n**Try**\n- lambda 0 (blind) against 50 (greedy)\n- scheme *systematic* or *top-k*\n"
        "- bypass (Ctrl+B) the two Cluster Selectors and the two Potential Resamplers: that is Best-of-8\n"
        "- another seed: the tree tells another story"
    ))


def _full(graph: Graph, parts: dict[str, Node], prefix: str, words: str, **sampler) -> None:
    start = graph.add("TTSVAR_StartState", model=parts["model"], conditioning=parts["prompt"], samples=8)
    to_2 = graph.add("TTSVAR_ScaleStepSampler", "Scales 0-2", state=start, through_scale=2, **sampler)
    cut_2 = graph.add("TTSVAR_ClusterSelector", "Keep 6 that differ", state=to_2, extractor=parts["extractor"], keep=6)
    to_5 = graph.add("TTSVAR_ScaleStepSampler", "Scales 3-5", state=cut_2, through_scale=5, **sampler)
    cut_5 = graph.add("TTSVAR_ClusterSelector", "Keep 4 that differ", state=to_5, extractor=parts["extractor"], keep=4)
    sketches = graph.add("TTSVAR_InspectState", "Four layouts", state=cut_5)
    to_6 = graph.add("TTSVAR_ScaleStepSampler", "Scale 6", state=cut_5, through_scale=6, **sampler)
    score_6 = graph.add("TTSVAR_RewardScorer", state=to_6, reward=parts["reward"])
    cut_6 = graph.add("TTSVAR_PotentialResampler", "Resample 4 to 2", state=score_6.out("state"), keep=2)
    to_9 = graph.add("TTSVAR_ScaleStepSampler", "Scales 7-9", state=cut_6, through_scale=9, **sampler)
    score_9 = graph.add("TTSVAR_RewardScorer", state=to_9, reward=parts["reward"])
    cut_9 = graph.add("TTSVAR_PotentialResampler", "Resample 2 to 1", state=score_9.out("state"), keep=1)
    to_end = graph.add("TTSVAR_ScaleStepSampler", "Scales 10-12", state=cut_9, through_scale=-1, **sampler)
    scored, best, decoded, saved = finish(graph, to_end, parts["reward"], prefix)
    story = graph.add("TTSVAR_InspectState", "The whole story", state=scored.out("state"))
    note = graph.note(words, 420)
    right, low = load_group(graph, parts, start)
    early = [[to_2, cut_2], [to_5, cut_5], [sketches]]
    right, lower = graph.group("2  Diverse sketches (scales 0-5)", "search", early, (right + 40, 0))
    graph.group("Read me", "look", [[note]], (right + 40, 0))
    late, top = [[to_6, score_6, cut_6], [to_9, score_9, cut_9]], max(low, lower) + 40
    right, _ = graph.group("3  Promising ones (scales 6-9)", "search", late, (0, top))
    answer = [[to_end, scored, best, decoded], [saved], [story]]
    graph.group("4  Finish and answer", "answer", answer, (right + 40, top))


def compare_methods(graph: Graph) -> None:
    """Four ways to spend samples, same prompt and seed."""
    prompt = graph.add("PrimitiveStringMultiline", "Prompt for all", value=PROMPT)
    seed = graph.add("PrimitiveInt", "Seed for all", value=3)
    model, encoder = graph.add("TTSVAR_InfinityLoader"), graph.add("TTSVAR_TextEncoderLoader")
    reward, extractor = graph.add("TTSVAR_RewardLoader"), graph.add("TTSVAR_ExtractorLoader")
    shared = {
        "prompt": prompt, "seed": seed, "model": model, "text_encoder": encoder, "reward": reward, "extractor": extractor
    }
    note = graph.note(
        "## Four ways to spend samples\n\n- **raw**: one picture, no search\n- **Best-of-N**: N full pictures, the best one\n"
        "- **Importance Sampling**: N pictures, resampled by score at scales 6 and 9\n- **TTS-VAR**: 8N sketches, the different "
        "ones, then the promising ones, N pictures\n\nOne prompt and one seed feed all four. "
        "**Try** other seeds and see who answers the prompt; TTS-VAR does about 1.4 times the work of Best-of-N with the same N.",
        360,
    )
    right, _ = graph.group(
        "Shared by all", "load", [[prompt, seed, note], [model, encoder, reward, extractor]], (0, 0)
    )
    top = 0
    for method, n in (("raw", 1), ("Best-of-N", 2), ("Importance Sampling", 2), ("TTS-VAR", 2)):
        generate = graph.add("TTSVAR_Generate", method, method=method, n=n, **shared)
        seen = graph.add("TTSVAR_InspectState", f"{method}: finalists", state=generate.out("state"))
        shown = graph.add("PreviewImage", f"{method}: answer", images=generate.out("image"))
        _, low = graph.group(method, "search", [[generate], [shown], [seen]], (right + 40, top))
        top = low + 40


def swap_reward(graph: Graph) -> None:
    """Two rewards on one state."""
    parts = loaders(graph, extractor=False, check=False)  # so that another reward does not sample anew
    start = graph.add("TTSVAR_StartState", model=parts["model"], conditioning=parts["prompt"], samples=6)
    sampled = graph.add("TTSVAR_ScaleStepSampler", "All scales, once", state=start)
    upside = graph.add(
        "TTSVAR_BlendRewards", "The reward upside down", reward_1=parts["reward"], reward_2=parts["reward"], how="weighted",
        weight_1=-1.0, weight_2=0.0,
    )
    note = graph.note(
        "## Swap the reward\n\nSix finished samples, two opinions. The second reward is the first one upside down, so it picks "
        "the *worst* picture: a search gives what its reward asks for, nothing else.\n\n**Try**\n- put ImageReward or HPS v2.1 "
        "in a second Reward Loader and wire it in place of the upside-down one\n- blend them with *softmax* (the paper's "
        "HPS+IR)\n\nThe six samples are not drawn again when you change a reward.", 360,
    )
    right, _ = load_group(graph, parts, start)
    right, _ = graph.group("2  Sample once", "search", [[sampled, upside, note]], (right + 40, 0))
    top = 0
    for title, reward in (("The reward's choice", parts["reward"]), ("The other reward's choice", upside)):
        scored = graph.add("TTSVAR_RewardScorer", state=sampled, reward=reward)
        best = graph.add("TTSVAR_SelectBest", state=scored.out("state"), keep=1)
        decoded = graph.add("TTSVAR_DecodeState", state=best.out("state"))
        shown = graph.add("PreviewImage", title, images=decoded)
        seen = graph.add("TTSVAR_InspectState", "All six with their scores", state=scored.out("state"))
        _, low = graph.group(title, "answer", [[scored, best, decoded], [shown], [seen]], (right + 40, top))
        top = low + 40


def branch_lambda(graph: Graph) -> None:
    """Two lambdas from one scale 6."""
    parts = loaders(graph, "a photo of three green triangles", extractor=False)
    start = graph.add("TTSVAR_StartState", model=parts["model"], conditioning=parts["prompt"], samples=8)
    to_6 = graph.add("TTSVAR_ScaleStepSampler", "Scales 0-6, once", state=start, through_scale=6)
    scored = graph.add("TTSVAR_RewardScorer", state=to_6, reward=parts["reward"])
    seen = graph.add("TTSVAR_InspectState", "Eight sketches", state=scored.out("state"))
    note = graph.note(
        "## Branch from a cached state\n\nThe state after scale 6 is a value: two resamplers take it, neither changes it. "
        "Scales 0-6 run once.\n\n**Try**\n- change a lambda and press Run: only its branch runs again\n"
        "- lambda 0 draws blindly, 1000 keeps the best only\n- in the family trees, see how many first samples survive", 300,
    )
    right, _ = load_group(graph, parts, start)
    right, _ = graph.group("2  The shared part", "search", [[to_6, scored, note], [seen]], (right + 40, 0))
    top = 0
    for lam in (1.0, 50.0):
        cut = graph.add("TTSVAR_PotentialResampler", f"lambda {lam:g}", state=scored.out("state"), keep=4, lambda_=lam)
        rest = graph.add("TTSVAR_ScaleStepSampler", "Scales 7-12", state=cut.out("state"))
        final = graph.add("TTSVAR_RewardScorer", state=rest, reward=parts["reward"])
        told = graph.add("TTSVAR_InspectState", f"Finished with lambda {lam:g}", state=final.out("state"))
        _, low = graph.group(f"3  lambda {lam:g}", "answer", [[cut, rest], [final], [told]], (right + 40, top))
        top = low + 40


def choose_by_hand(graph: Graph) -> None:
    """Sketch eight, pick by eye, run on."""
    parts = loaders(graph, "a photo of a yellow diamond above a purple circle", extractor=False)
    start = graph.add("TTSVAR_StartState", model=parts["model"], conditioning=parts["prompt"], samples=8)
    to_7 = graph.add("TTSVAR_ScaleStepSampler", "Sketch: scales 0-7", state=start, through_scale=7)
    sheet = graph.add("TTSVAR_InspectState", "Look at the numbers", state=to_7)
    chosen = graph.add("TTSVAR_SelectByHand", "Type the ones you like", state=to_7, numbers="0, 3")
    rest = graph.add("TTSVAR_ScaleStepSampler", "Finish: scales 8-12", state=chosen.out("state"))
    scored, best, decoded, saved = finish(graph, rest, parts["reward"], "ttsvar/choose_by_hand")
    told = graph.add("TTSVAR_InspectState", "Your choice, finished", state=scored.out("state"))
    note = graph.note(
        "## Choose by hand\n\n1. Run once and look at the eight sketches.\n2. Type the numbers you like into **Select by Hand** "
        "(0-3 and 5, 5 work too).\n3. Run again: the sketches are remembered, only the rest is drawn.\n\n"
        "**Try** stopping the sketch at scale 4 or 9: how early can you tell?", 260,
    )
    right, _ = load_group(graph, parts, start)
    right, _ = graph.group("2  Sketch and choose", "look", [[to_7, chosen, note], [sheet]], (right + 40, 0))
    graph.group("3  Finish", "answer", [[rest, scored, best, decoded], [saved], [told]], (right + 40, 0))


def from_image(graph: Graph) -> None:
    """Keep a picture's first scales, draw the rest for another prompt."""
    parts = loaders(graph, "a photo of a red square left of a blue circle", extractor=False)
    source = graph.add("TTSVAR_Generate", "A picture to start from", prompt=PROMPT, method="Best-of-N", n=4, seed=11)
    shown = graph.add("PreviewImage", "The picture", images=source.out("image"))
    state = graph.add(
        "TTSVAR_StateFromImage", model=parts["model"], conditioning=parts["prompt"], image=source.out("image"), through_scale=4,
        samples=6,
    )
    rest = graph.add("TTSVAR_ScaleStepSampler", "Draw the other scales", state=state)
    scored, best, decoded, saved = finish(graph, rest, parts["reward"], "ttsvar/from_image")
    told = graph.add("TTSVAR_InspectState", "Variations", state=scored.out("state"))
    note = graph.note(
        "## Continue from an image\n\nThe first scales are taken from a picture (colours, layout), the others are drawn for "
        "the new prompt: here colours and places stay, and the shapes change.\n\n"
        "**Try**\n- through_scale 1, 4, 8: from a hint of the picture to nearly all of it\n"
        "- Load Image in place of the generated picture", 260,
    )
    right, _ = graph.group("1  A picture", "load", [[source], [shown, note]], (0, 0))
    first = [parts[name] for name in ("model", "encoder", "reward")]
    right, _ = graph.group("2  Encode its first scales", "load", [first, [parts["prompt"], state]], (right + 40, 0))
    graph.group("3  Draw on and choose", "answer", [[rest, scored, best, decoded], [saved], [told]], (right + 40, 0))


def resume_from_disk(graph: Graph) -> None:
    """Save a state, load it again, finish it."""
    parts = loaders(graph, extractor=False)
    start = graph.add("TTSVAR_StartState", model=parts["model"], conditioning=parts["prompt"], samples=4, seed=5)
    to_6 = graph.add("TTSVAR_ScaleStepSampler", "Scales 0-6", state=start, through_scale=6)
    kept = graph.add("TTSVAR_SaveState", state=to_6, filename_prefix="ttsvar/resume")
    loaded = graph.add("TTSVAR_LoadState", model=parts["model"], text_encoder=parts["encoder"], path=kept)
    rest = graph.add("TTSVAR_ScaleStepSampler", "Scales 7-12", state=loaded)
    scored, best, decoded, saved = finish(graph, rest, parts["reward"], "ttsvar/resume_from_disk")
    told = graph.add("TTSVAR_InspectState", "Finished from the file", state=scored.out("state"))
    note = graph.note(
        "## Resume from disk\n\nA saved state is a few kilobytes: the bits of every finished scale. Keys and values are "
        "computed again when sampling goes on.\n\n**Try**\n- after the first run, remove the wire from Save State to Load State: "
        "Load State takes the newest file, today, tomorrow, or on another machine\n- *with_cache* stores keys and values too", 280,
    )
    right, _ = load_group(graph, parts, start)
    right, _ = graph.group("2  Sample and save", "search", [[to_6, kept, note]], (right + 40, 0))
    right, _ = graph.group("3  Load and finish", "search", [[loaded, rest]], (right + 40, 0))
    graph.group("4  Answer", "answer", [[scored, best, decoded], [saved], [told]], (right + 40, 0))


def infinity_2b(graph: Graph) -> None:
    """The full graph set up for Infinity-2B, ImageReward and DINOv2."""
    parts = {
        "model": graph.add("TTSVAR_InfinityLoader", transformer="infinity_2b_reg.pth", tokenizer="infinity_vae_d32reg.pth"),
        "encoder": graph.add("TTSVAR_TextEncoderLoader", encoder="flan-t5-xl"),
        "reward": graph.add("TTSVAR_RewardLoader", reward="ImageReward"),
        "extractor": graph.add("TTSVAR_ExtractorLoader", extractor="DINOv2 PCA"),
    }
    parts["prompt"] = graph.add(
        "TTSVAR_PromptEncode", text_encoder=parts["encoder"],
        text="a red panda reading a newspaper at a small round table, morning light, photograph",
    )
    _full(graph, parts, "ttsvar/infinity_2b", (
        "## Infinity-2B with ImageReward and DINOv2\n\nPut these in place, then press R and Run:\n"
        "- models/infinity: **infinity_2b_reg.pth**\n- models/vae: **infinity_vae_d32reg.pth** (not d32)\n"
        "- models/text_encoders: the folder **flan-t5-xl**\n"
        "- models/reward_models: **ImageReward.pt**, **dinov2_vitl14_reg4_pretrain.pth**\n\n"
        "Each loader's help page (select it and press (i)) says where its files are published.\n\n"
        "1024x1024 should fit on a card with 12 GB. **For smaller cards**\n- precision *float8* in Infinity Loader\n"
        "- budget 0.25M in Start State: it has 10 scales, so let the samplers end at 2, 4, 5, 7 and -1\n"
        "- 4 samples in Start State, and keep 3 and 2 in the Cluster Selectors"
    ), cache_policy="offload")


WORKFLOWS = {
    build.__name__: build
    for build in (
        quick_start, full_search, compare_methods, swap_reward, branch_lambda, choose_by_hand, from_image, resume_from_disk,
        infinity_2b, any_model,
    )
}
