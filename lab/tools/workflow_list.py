"""What the example graphs hold, in an order of learning. Each function fills one graph; its name is the file's."""

from __future__ import annotations

from any_model_graph import any_model
from graph_builder import GAP, HEAD, NOTE, PAD, Graph, Node
from parts import GULF, LOOK, OWN_2B, OWN_8B, PROMPT, VIEW, finish, image_model, left_column, load_node, loaders, pick, shown

COUNTED = "a photo of three green triangles"  # what many samples get wrong
STEERED = {"guidance": 2.0, "guidance_until": 8}  # the models' own, so that it can be read and changed


def quick_start(graph: Graph) -> None:
    """One node, the best picture, and what was in the running."""
    generate = graph.add("TTSVAR_Generate", "", (360, 800), prompt=COUNTED, budget=2.0, attempts=4, compare=True, **STEERED)
    saved = graph.add("SaveImage", "Best picture", (330, 300), images=generate.out("image"), filename_prefix="ttsvar/quick_start")
    alone = graph.add("PreviewImage", "Without a search", (330, 270), images=generate.out("raw"))
    seen = graph.add(VIEW, "How it was found", (560, 735), show="family tree", state=generate.out("state"))
    x = left_column(graph, (
        "## Quick start\n\nPress **Run**. Everything comes with the pack: a small model that draws scenes of coloured shapes, its "
        "text encoder, and a verifier that checks pictures against the prompt.\n\n"
        "*What will it cost?* tells that before you run. The node says how far it is and what it found; it searches again, four "
        "times at most, until the verifier finds it **good enough**. Below the best picture is what the same seed draws "
        "**without** a search.\n\n"
        "**Try**\n- *a photo of two red hearts and a blue cross*\n- *a photo of a yellow star above a purple circle*\n"
        "- another seed\n- **budget (pictures)** 4: more samples start in every attempt, more are finished\n"
        "- **budget** 0 and **method** TTS-VAR: the paper's search, by N\n\n"
        "**Next:** *02 choose by hand* lets you pick the sketches."
    ), None)
    graph.group("1  Search", "search", [generate], (x, HEAD))
    graph.row([saved, seen], (generate.right + GULF, HEAD), GAP)
    alone.position = (saved.position[0], saved.bottom + 110)
    graph.group("2  Result", "answer", [saved, alone, seen])
    graph.lead([(generate.right + 18, saved.bottom + 40)], (seen, "state"))
    asked = [(generate, name) for name in ("prompt", "budget", "attempts", "seed")]
    graph.on_phone([*asked, (seen, "ttsvar_view")], [saved])


def choose_by_hand(graph: Graph) -> None:
    """Sketch eight, pick by eye, run on."""
    load = load_node(graph, "a photo of a yellow star above a purple circle")
    start = graph.add("TTSVAR_StartState", "", model=load.out("model"), conditioning=load.out("conditioning"), samples=8)
    sketched = graph.add("TTSVAR_ScaleStepSampler", "Sketch: scales 0-7", state=start, through_scale=7, preview="off", **STEERED)
    chosen = graph.add("TTSVAR_ChooseSketches", "Click the ones you like", (560, 560), state=sketched)
    ended = graph.fold(finish(graph.catalogue), state=chosen.out("state"), reward=load.out("reward"))
    x = left_column(graph, (
        "## Choose by hand\n\nYou are the reward.\n\n"
        "1. Press **Run**: eight sketches appear, and it stops there.\n2. Click those you like; a second click releases, "
        "shift-click takes one twice.\n3. Press **Continue**: only what follows your choice runs.\n\n"
        "**Try** stopping the sketch at scale 4 or 9: how early can you tell?\n\n**Next:** *03 full search* lets a reward choose."
    ), load)
    graph.group("2  Sketch", "search", [start, sketched], (x, HEAD))
    graph.group("3  Choose", "look", [chosen], (sketched.right + GULF, HEAD))
    ended.position = (chosen.right + GULF, HEAD)
    result = shown(graph, ended, "ttsvar/choose_by_hand", (ended.right + GAP, HEAD), "Your choice, finished")
    graph.group("4  Finish", "answer", [ended, *result])
    graph.lead([(load.right + 45, chosen.bottom + 60)], (ended, "reward"))
    asked = [(load, "prompt"), (start, "seed"), (chosen, "choice"), (chosen, "ttsvar_choose")]
    graph.on_phone(asked, [result[0], chosen])


def full_search(graph: Graph) -> None:
    """The search of the paper's figure, node by node."""
    load = load_node(graph)
    _full(graph, load, "ttsvar/full_search", (
        "## TTS-VAR, node by node\n\n8 samples start. **Clustering** after scales 2 and 5 keeps sketches that differ (8 → 6 → 4); "
        "**resampling** after scales 6 and 9 keeps what the reward promises most (4 → 2 → 1). Every node says why.\n\n"
        "ComfyUI remembers each state: change **lambda** of the last resampler and only what follows runs again. "
        "**Try** lambda 0 (blind) and 50 (greedy), scheme *top-k*, or bypass (Ctrl+B) all Selectors and Resamplers: Best-of-8."
    ), {"preview": "off", **STEERED})


def _full(graph: Graph, load: Node, prefix: str, words: str, drawn: dict) -> None:
    """Four rows: load, keep what differs, keep what promises, finish; the long wires run in the lanes between them."""
    given = {"model": load.out("model"), "conditioning": load.out("conditioning")}
    start = graph.add("TTSVAR_StartState", "", (260, 195), samples=8, **given)
    rows, views, state = [[], [], []], [], start
    for scales, through, keep in (("0-2", 2, 6), ("3-5", 5, 4)):
        sampled = graph.add("TTSVAR_ScaleStepSampler", f"Scales {scales}", state=state, through_scale=through, **drawn)
        state = graph.add(
            "TTSVAR_ClusterSelector", f"Keep {keep} that differ", state=sampled, extractor=load.out("extractor"), keep=keep
        )
        rows[0] += [sampled, state]
        state = state.out("state")
    views.append(graph.add(VIEW, "Four layouts", LOOK, state=state))
    for title, through, keep in (("Scale 6", 6, 2), ("Scales 7-9", 9, 1)):
        sampled = graph.add("TTSVAR_ScaleStepSampler", title, state=state, through_scale=through, **drawn)
        scored = graph.add("TTSVAR_RewardScorer", "", state=sampled, reward=load.out("reward"))
        cut = graph.add("TTSVAR_PotentialResampler", f"Resample to {keep}", state=scored.out("state"), keep=keep)
        rows[1] += [sampled, scored, cut]
        state = cut.out("state")
    last = graph.add("TTSVAR_ScaleStepSampler", "Scales 10-12", state=state, through_scale=-1, **drawn)
    scored = graph.add("TTSVAR_RewardScorer", "", state=last, reward=load.out("reward"))
    best = graph.add("TTSVAR_SelectBest", "", state=scored.out("state"), keep=1)
    decoded = graph.add("TTSVAR_DecodeState", "", state=best.out("state"))
    views.append(graph.add(VIEW, "The whole search", (520, 840), show="family tree", state=scored.out("state")))
    views.append(graph.add("SaveImage", "Best picture", (480, 300), images=decoded, filename_prefix=prefix))
    rows[2] = [last, scored, best, decoded]
    _place_full(graph, load, start, rows, views, words)


def _place_full(graph: Graph, load: Node, start: Node, rows: list[list[Node]], views: list[Node], words: str) -> None:
    note = graph.note(words, 540)
    note.position = (-20, 30)
    graph.group("1  Load and start", "load", [load, start], (note.right + GULF - 20, HEAD))
    low, lanes = max(load.bottom, note.bottom, start.bottom) + 20, []
    titles = (("2  Keep diverse", "search"), ("3  Keep good", "search"), ("4  Finish", "answer"))
    for row, (title, kind) in zip(rows, titles, strict=True):
        lanes.append(low)
        low = graph.group(title, kind, row, (0, low + 44 + HEAD))
    layouts, whole, saved = views
    graph.group("Look", "look", [layouts], (start.right + GULF, HEAD))
    whole.position = (layouts.right + GULF, HEAD)
    saved.position = (whole.right - saved.size[0], whole.bottom + 50)
    graph.group("5  See", "answer", [whole, saved])
    around = [(load.right + 26, lanes[0] + 22), (-46, lanes[0] + 22), (-46, lanes[1] + 28)]
    graph.lead([(start.right + 26, lanes[0] + 10)], (rows[0][0], "state"))
    graph.lead([(load.right + 18, lanes[0] + 34)], (rows[0][1], "extractor"), (rows[0][3], "extractor"))
    graph.lead([(rows[0][3].right + 26, lanes[1] + 10)], (rows[1][0], "state"))
    graph.lead(around, (rows[1][1], "reward"), (rows[1][4], "reward"))
    graph.lead([*around, (around[-1][0], lanes[2] + 34)], (rows[2][1], "reward"))
    graph.lead([(rows[1][5].right + 26, lanes[2] + 10)], (rows[2][0], "state"))
    graph.lead([(rows[2][1].right + 18, lanes[2] + 22)], (whole, "state"))
    graph.lead([(layouts.position[0] - 35, rows[0][3].position[1])], (layouts, "state"))
    graph.lead([(rows[2][3].right + 18, rows[2][3].position[1] + 14)], (saved, "images"))


def compare_methods(graph: Graph) -> None:
    """Four ways to spend samples, same prompt and seed, in a square."""
    prompt = graph.add("PrimitiveStringMultiline", "Prompt for all", (300, 130), value=COUNTED)
    x = left_column(graph, (
        "## Four ways to spend samples\n\n- **raw**: one picture, no search\n- **Best-of-N**: N full pictures, the best one\n"
        "- **Importance Sampling**: N pictures, resampled by score at scales 6 and 9\n- **TTS-VAR**: 8N sketches, the different "
        "ones, then the promising ones, N pictures\n\n"
        "One prompt feeds all four, the seed is the same. Each node says what it cost.\n\n"
        "**Try** other seeds and see who answers the prompt."
    ), None)
    note = next(node for node in graph.nodes if node.type == NOTE)
    graph.group("Shared by all", "load", [prompt], (20, note.bottom + 40 + HEAD))
    cells, low = [], 0
    for at, (method, n) in enumerate((("raw", 1), ("Best-of-N", 2), ("Importance Sampling", 2), ("TTS-VAR", 2))):
        settings = {"method": method, "n": n, "preview": "off", **STEERED}
        generate = graph.add("TTSVAR_Generate", "", (290, 560), prompt=prompt, **settings)
        answer = graph.add("PreviewImage", f"{method}: the answer", (330, 400), images=generate.out("image"))
        row, column = divmod(at, 2)
        place = (x + column * (290 + GAP + 330 + GULF), HEAD + row * (low + 60))
        bottom = graph.group(method if method == "raw" else f"{method}, N = {n}", "search", [generate, answer], place)
        low, cells = low or bottom, [*cells, generate]
    for cell in (cells[1], cells[3]):
        graph.lead([(prompt.right + 50, low + 30)], (cell, "prompt"))


def branch_lambda(graph: Graph) -> None:
    """Two lambdas from one scale 6."""
    load = load_node(graph, COUNTED)
    start = graph.add("TTSVAR_StartState", "", model=load.out("model"), conditioning=load.out("conditioning"), samples=8)
    to_6 = graph.add("TTSVAR_ScaleStepSampler", "Scales 0-6, once", state=start, through_scale=6, preview="off", **STEERED)
    scored = graph.add("TTSVAR_RewardScorer", "", state=to_6, reward=load.out("reward"))
    note = graph.note((
        "## Branch from one state\n\nThe state after scale 6 is a value: two resamplers take it, neither changes it. "
        "Scales 0-6 run once.\n\n**Try**\n- change a lambda and press Run: only its branch runs again\n"
        "- lambda 0 draws blindly, 1000 keeps the best only\n- in the family trees, see how many first samples survive"
    ), 561)
    note.position = (0, 30)
    low = graph.group("1  Load and start", "load", [load, start], (0, note.bottom + 40 + HEAD))
    graph.group("2  The shared part", "search", [to_6, scored], (0, low + 60 + HEAD))
    top, branches = HEAD, []
    for lam in (1.0, 50.0):
        cut = graph.add("TTSVAR_PotentialResampler", f"lambda {lam:g}", state=scored.out("state"), keep=4, lambda_=lam)
        rest = graph.add("TTSVAR_ScaleStepSampler", "Scales 7-12", state=cut.out("state"), preview="off", **STEERED)
        final = graph.add("TTSVAR_RewardScorer", "", state=rest, reward=load.out("reward"))
        told = graph.add(VIEW, f"Finished with lambda {lam:g}", LOOK, show="family tree", state=final.out("state"))
        end = graph.group(f"3  lambda {lam:g}", "answer", [cut, rest, final, told], (start.right + PAD + GULF, top))
        top, branches = end + 60 + HEAD, [*branches, (cut, final, end)]
    aside, lane = start.right + 20, branches[0][2] + 30
    graph.lead([(start.right + 26, low + 10)], (to_6, "state"))
    shared = (load.right + 18, low + 28)
    graph.lead([shared], (scored, "reward"))
    graph.lead([shared, (aside + 40, shared[1]), (aside + 40, lane)], (branches[0][1], "reward"), (branches[1][1], "reward"))
    graph.lead([(aside + 22, HEAD + 14)], (branches[0][0], "state"))


def swap_reward(graph: Graph) -> None:
    """Two rewards on one state."""
    load = load_node(graph, COUNTED)
    start = graph.add("TTSVAR_StartState", "", model=load.out("model"), conditioning=load.out("conditioning"), samples=6)
    sampled = graph.add("TTSVAR_ScaleStepSampler", "All scales, once", state=start, preview="off", **STEERED)
    upside = graph.add(
        "TTSVAR_BlendRewards", "The reward upside down", reward_1=load.out("reward"), reward_2=load.out("reward"), how="weighted",
        weight_1=-1.0, weight_2=0.0,
    )
    x = left_column(graph, (
        "## Swap the reward\n\nSix finished samples, two opinions. The second reward is the first one upside down, so it picks "
        "the *worst* picture: a search gives what its reward asks for, nothing else.\n\n**Try**\n- put ImageReward or HPS v2.1 "
        "in a Reward Loader of your own and wire it in place of the upside-down one\n- blend them with *softmax* (the paper's "
        "HPS+IR)\n\nThe six samples are not drawn again when you change a reward."
    ), load)
    graph.group("2  Sample once", "search", [start, sampled], (x, HEAD))
    top, picks = HEAD, []
    for title, reward in (("The reward's choice", load.out("reward")), ("The other reward's choice", upside)):
        best = graph.fold(pick(graph.catalogue), state=sampled, reward=reward)
        picture = graph.add("PreviewImage", title, (320, 420), images=best.out("images"))
        seen = graph.add(VIEW, "All six with their scores", (460, 500), state=best.out("all_finished"))
        low = graph.group(f"3  {title}", "answer", [best, picture, seen], (sampled.right + GULF, top))
        graph.lead([(best.right + 18, seen.bottom + 30)], (seen, "state"))
        top, picks = low + 60 + HEAD, [*picks, best]
    level = picks[1].position[1]
    graph.group("Another reward", "load", [upside], (sampled.position[0], level))
    for height, wire in ((-HEAD - 30, (picks[0], "reward")), (14, (upside, "reward_1")), (34, (upside, "reward_2"))):
        graph.lead([(load.right + 45, level + height)], wire)


def from_image(graph: Graph) -> None:
    """Keep a picture's first scales, draw the rest for another prompt."""
    load = load_node(graph, "a photo of a red square left of a blue circle")
    source = graph.add(
        "TTSVAR_Generate", "A picture to start from", (290, 560), prompt=PROMPT, method="Best-of-N", n=4, seed=11, preview="off",
        **STEERED,
    )
    picture = graph.add("PreviewImage", "The picture", (290, 300), images=source.out("image"))
    state = graph.add(
        "TTSVAR_StateFromImage", "Keep scales 0-4", model=load.out("model"), conditioning=load.out("conditioning"),
        image=source.out("image"), through_scale=4, samples=6,
    )
    ended = graph.fold(finish(graph.catalogue), state=state, reward=load.out("reward"))
    x = left_column(graph, (
        "## Start from a picture\n\nThe first scales are taken from a picture (colours, layout), the others are drawn for "
        "the new prompt: here colours and places stay, and the shapes change.\n\n"
        "**Try**\n- through_scale 1, 4, 8: from a hint of the picture to nearly all of it\n"
        "- Load Image in place of the generated picture"
    ), load)
    graph.group("2  A picture", "load", [source, picture], (x, HEAD))
    graph.row([state, ended], (picture.right + GULF, HEAD), GAP)
    result = shown(graph, ended, "ttsvar/from_image", (ended.right + GAP, HEAD), "Variations")
    graph.group("3  Draw on", "answer", [state, ended, *result])
    for height, wire in ((40, (state, "model")), (56, (state, "conditioning")), (72, (ended, "reward"))):
        graph.lead([(load.right + 45, source.bottom + height)], wire)
    graph.lead([(source.right + 18, picture.bottom + 60)], (state, "image"))


def resume_from_disk(graph: Graph) -> None:
    """Save a state, load it again, finish it."""
    load = load_node(graph)
    start = graph.add("TTSVAR_StartState", "", model=load.out("model"), conditioning=load.out("conditioning"), samples=4, seed=5)
    to_6 = graph.add("TTSVAR_ScaleStepSampler", "Scales 0-6", state=start, through_scale=6, preview="off", **STEERED)
    kept = graph.add("TTSVAR_SaveState", "", state=to_6, filename_prefix="ttsvar/resume")
    given = {"model": load.out("model"), "text_encoder": load.out("text_encoder")}
    loaded = graph.add("TTSVAR_LoadState", "", (225, 210), **given, path=kept)
    ended = graph.fold(finish(graph.catalogue), state=loaded.out("state"), reward=load.out("reward"))
    x = left_column(graph, (
        "## Save and resume\n\nA saved state is a few kilobytes: the bits of every finished scale. Keys and values are "
        "computed again when sampling goes on.\n\n**Try**\n- after the first run, remove the wire from Save State to Load State: "
        "Load State takes the newest file, today, tomorrow, or on another machine\n- *with_cache* stores keys and values too"
    ), load)
    graph.group("2  Sample and save", "search", [start, to_6, kept], (x, HEAD))
    graph.row([loaded, ended], (kept.right + GULF, HEAD), GAP)
    result = shown(graph, ended, "ttsvar/resume_from_disk", (ended.right + GAP, HEAD), "Finished from the file")
    graph.group("3  Load and finish", "answer", [loaded, ended, *result])
    for height, name in ((40, "model"), (56, "text_encoder")):
        graph.lead([(load.right + 45, max(start.bottom, kept.bottom) + height)], (loaded, name))
    graph.lead([(load.right + 45, loaded.bottom + 70)], (ended, "reward"))


PANDA = "a red panda reading a newspaper at a small round table, morning light, photograph"


def infinity_2b_simple(graph: Graph) -> None:
    """Pictures by Infinity-2B, without a search."""
    _simple(graph, "2b", "infinity_2b", OWN_2B, {}, {"samples": 2}, (
        "## Pictures by Infinity-2B\n\nLoader, prompt, picture: no search. If files are missing, the editor lists all of them with "
        "their addresses. They belong into\n- models/infinity: **infinity_2b_reg.pth**\n- models/vae: **infinity_vae_d32reg.pth** "
        "(not d32)\n- models/text_encoders: the whole folder **flan-t5-xl**\n\nthen press R and Run. 1024x1024 should fit on a "
        "card with 12 GB.\n\n**samples** is the number of pictures, **aspect ratio** is width : height.\n\n**Try** guidance 2 to 5."
    ))


def infinity_2b_small_cards(graph: Graph) -> None:
    """The same for cards with 8 GB: float8 weights, half the side, guidance ended early."""
    _simple(graph, "2b", "infinity_2b_small", OWN_2B | {"guidance_until": 6, "cache_policy": "float8"}, {"precision": "float8"},
            {"samples": 1, "pixel_budget": "0.25M"}, (
        "## Infinity-2B on a small card\n\nAs *infinity 2b simple*, set for 8 GB and less: weights and cache in **float8**, one "
        "picture of 512x512 (**pixel budget** 0.25M, ten scales), no guidance in the last three scales.\n\nIf files are missing, "
        "the editor lists all of them with their addresses:\n- models/infinity: **infinity_2b_reg.pth**\n- models/vae: "
        "**infinity_vae_d32reg.pth** (not d32)\n- models/text_encoders: the whole folder **flan-t5-xl**\n\n"
        "**Try** pixel budget 1M with *guidance_until* 9: 6 GB by arithmetic; *tile_size* 512 in Decode State saves more."
    ))


def infinity_8b_simple(graph: Graph) -> None:
    """Pictures by Infinity-8B, without a search."""
    _simple(graph, "8b", "infinity_8b", OWN_8B, {}, {"samples": 1}, (
        "## Pictures by Infinity-8B\n\nAs *infinity 2b simple* with the larger model and its own settings (tau 1). Files:\n"
        "- models/infinity: the whole folder **infinity_8b_weights**\n- models/vae: **infinity_vae_d56_f8_14_patchify.pth**\n"
        "- models/text_encoders: the whole folder **flan-t5-xl**\n\nfrom huggingface.co/FoundationVision/Infinity and "
        "google/flan-t5-xl. About 25 GB at 1024x1024; **Try** precision *float8* for a card with 24 GB."
    ))


def _simple(graph: Graph, size: str, name: str, drawn: dict, loading: dict, starting: dict, words: str) -> None:
    model, encoder = image_model(graph, size, **loading)
    prompt = graph.add("TTSVAR_PromptEncode", "", (270, 200), text_encoder=encoder, text=PANDA)
    start = graph.add("TTSVAR_StartState", "How many, how large", (230, 195), model=model, conditioning=prompt, **starting)
    sampled = graph.add("TTSVAR_ScaleStepSampler", "", (230, 410), state=start, **drawn)
    decoded = graph.add("TTSVAR_DecodeState", "", state=sampled)
    saved = graph.add("SaveImage", "Pictures", (420, 480), images=decoded, filename_prefix=f"ttsvar/{name}")
    x = left_column(graph, words, model)
    encoder.position = (model.position[0], model.bottom + 60)
    graph.groups.clear()
    graph.group("1  Load", "load", [model, encoder])
    graph.group("2  Prompt", "load", [prompt], (x, encoder.position[1]))
    graph.group("3  Pictures", "answer", [start, sampled, decoded, saved], (prompt.right + GULF, HEAD))
    graph.on_phone([(prompt, "text"), (start, "aspect_ratio"), (start, "samples"), (start, "seed")], [saved])


def infinity_2b_full_search(graph: Graph) -> None:
    """The full graph set up for Infinity-2B, ImageReward and DINOv2."""
    load = graph.fold(loaders(graph.catalogue, True, PANDA), "Load Infinity-2B", (300, 205))
    _full(graph, load, "ttsvar/infinity_2b", (
        "## Infinity-2B with ImageReward and DINOv2\n\nMissing files are listed with their addresses, all at once; *flan-t5-xl* is "
        "a whole folder. Double-click *Load Infinity-2B* for precision and files. 1024x1024 should fit on a card with 12 GB.\n\n"
        "**Try, for smaller cards**: precision *float8*; budget 0.25M in Start State, which has 10 scales: let the samplers end "
        "at 2, 4, 5, 7 and -1; 4 samples, and keep 3 and 2 in the Cluster Selectors."
    ), {"cache_policy": "offload", "preview": "off", **OWN_2B})


LEARNED = (
    quick_start, choose_by_hand, full_search, compare_methods, branch_lambda, swap_reward, from_image, resume_from_disk,
    infinity_2b_simple, infinity_2b_small_cards, infinity_8b_simple, infinity_2b_full_search, any_model,
)
WORKFLOWS = {f"{place:02}_{build.__name__}": build for place, build in enumerate(LEARNED, 1)}
# What the pack does not bring the models of.
NEEDS_DOWNLOADS = {name for name in WORKFLOWS if "infinity" in name or "any_model" in name}
