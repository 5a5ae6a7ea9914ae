"""Pieces the example graphs share: their left column, what they load, and the subgraphs that are the pack's blueprints."""

from __future__ import annotations

from graph_builder import Graph, Node

from ttsvar_core.config import PRESETS, Sampling
from ttsvar_core.registry import EXTRACTORS, MODEL_FILES, REWARDS, TEXT_ENCODER, WeightFile

VIEW = "TTSVAR_InspectState"  # what shows a state
PROMPT = "a photo of a red circle left of a blue square"
HEAD = 64  # from a group's upper edge to its nodes' bodies
GAP, GULF = 36, 90  # between nodes of a group, and of neighbouring groups
LOOK = (460, 560)  # of a view: eight rows of a family tree fit, so that it does not grow when it is filled
T5_FILE = "model-00001-of-00002.safetensors"  # the first of its folder; named, the editor sees that it is missing


# What is loaded -------------------------------------------------------------------------------------------------------


def drawn(sampling: Sampling) -> dict:
    """A model's own sampling, said in numbers."""
    return {"guidance": sampling.guidance, "tau": sampling.tau, "top_p": sampling.top_p}


def published(file: WeightFile) -> dict:
    """What the editor offers where a file is missing."""
    return {"name": file.names[0], "url": file.address, "directory": file.folder}


def image_model(graph: Graph, size: str, **inputs) -> tuple[Node, Node]:
    """The loaders of a published Infinity, "2b" or "8b", and of its text encoder."""
    files = MODEL_FILES[:2] if size == "2b" else MODEL_FILES[2:4]
    model = graph.add(
        "TTSVAR_InfinityLoader", f"Infinity-{size.upper()}", (300, 142), transformer=files[0].names[0],
        tokenizer=files[1].names[0], **inputs,
    )
    model.models = [published(file) for file in files if "." in file.names[0]]
    name = f"{TEXT_ENCODER.names[0]}/{T5_FILE}"
    encoder = graph.add("TTSVAR_TextEncoderLoader", "", (300, 114), encoder=name)
    encoder.models = [{"name": name, "url": f"{TEXT_ENCODER.page}/resolve/main/{T5_FILE}", "directory": TEXT_ENCODER.folder}]
    return model, encoder


def loaders(catalogue: dict, published_ones: bool = False, text: str = PROMPT) -> Graph:
    """Everything a search loads, and the prompt, checked by the reward: the bundled ones, or Infinity-2B with the paper's."""
    inside = Graph("Load Infinity-2B and read the prompt" if published_ones else "Load and read the prompt", catalogue, first=100)
    if published_ones:
        model, encoder = image_model(inside, "2b")
        judge, looker = REWARDS["image-reward"], EXTRACTORS["dinov2-PCA"]
        reward = inside.add("TTSVAR_RewardLoader", reward=judge.title, file=judge.files[0].names[0])
        extractor = inside.add("TTSVAR_ExtractorLoader", extractor=looker.title, file=looker.files[0].names[0])
        reward.models, extractor.models = [published(judge.files[0])], [published(looker.files[0])]
    else:
        model, encoder = inside.add("TTSVAR_InfinityLoader"), inside.add("TTSVAR_TextEncoderLoader")
        reward, extractor = inside.add("TTSVAR_RewardLoader"), inside.add("TTSVAR_ExtractorLoader")
    check = {} if published_ones else {"reward": reward}  # which refuses what it cannot judge before anything is sampled
    prompt = inside.add("TTSVAR_PromptEncode", text_encoder=encoder, text=inside.takes("prompt", default=text), **check)
    for name, node in (("model", model), ("conditioning", prompt), ("reward", reward), ("extractor", extractor)):
        inside.returns(name, node)
    inside.returns("text_encoder", encoder)
    inside.row([model, encoder, prompt], (0, 0))
    inside.row([reward, extractor], (0, 260))
    return inside


# The left column and the result ---------------------------------------------------------------------------------------


def left_column(graph: Graph, words: str, load: Node | None, width: int = 340) -> int:
    """The note at the top left and the loaders below it; where the first node of the next group stands."""
    note = graph.note(words, width)
    note.position = (0, 30)
    if load:
        load.position = (20, note.bottom + 40 + HEAD)
        graph.group("1  Load", "load", [load])
    return max(note.right, load.right + 20 if load else 0) + GULF - 20


def load_node(graph: Graph, text: str = PROMPT) -> Node:
    """The bundled model, its text encoder, reward, extractor and the prompt as one node."""
    return graph.fold(loaders(graph.catalogue, text=text), "Load and read the prompt", (300, 205))


def shown(graph: Graph, ended: Node, prefix: str, at: tuple[int, int], title: str = "How it was found") -> list[Node]:
    """The picture saved above the view of all finished samples."""
    saved = graph.add("SaveImage", "Best picture", (LOOK[0], 330), images=ended.out("images"), filename_prefix=prefix)
    seen = graph.add(VIEW, title, LOOK, state=ended.out("all_finished"))
    saved.position, seen.position = at, (at[0], saved_bottom(at) + 60)
    return [saved, seen]


def saved_bottom(at: tuple[int, int]) -> int:
    """The lower edge of a saved picture in `shown`."""
    return at[1] + 330


# Subgraphs that are blueprints ----------------------------------------------------------------------------------------


def diverse_step(catalogue: dict) -> Graph:
    """Sample on, then keep samples that differ."""
    inside = Graph(
        "Diverse step", catalogue, "Samples the next scales and keeps sketches that differ. The paper does it at scales 2 and 5.",
        ("cluster", "diversity", "filter images", "tts-var"), first=200,
    )
    sampled = inside.add(
        "TTSVAR_ScaleStepSampler", state=inside.takes("state"), through_scale=inside.takes("through_scale", "through scale", 2)
    )
    cut = inside.add(
        "TTSVAR_ClusterSelector", state=sampled, extractor=inside.takes("extractor"), keep=inside.takes("keep", default=6)
    )
    inside.returns("state", cut.out("state"))
    inside.returns("reason", cut.out("reason"))
    inside.row([sampled, cut], (0, 0))
    return inside


def reward_step(catalogue: dict) -> Graph:
    """Sample on, score, and draw the samples that promise most."""
    inside = Graph(
        "Reward step", catalogue, "Samples the next scales, scores the sketches and draws those that go on by their scores. "
        "The paper does it at scales 6 and 9.", ("resample", "rank images", "select images", "lambda", "tts-var"), first=300,
    )
    sampled = inside.add(
        "TTSVAR_ScaleStepSampler", state=inside.takes("state"), through_scale=inside.takes("through_scale", "through scale", 6)
    )
    scored = inside.add("TTSVAR_RewardScorer", state=sampled, reward=inside.takes("reward"))
    cut = inside.add(
        "TTSVAR_PotentialResampler", state=scored.out("state"), keep=inside.takes("keep", default=2),
        lambda_=inside.takes("lambda"),
    )
    inside.returns("state", cut.out("state"))
    inside.returns("reason", cut.out("reason"))
    inside.row([sampled, scored, cut], (0, 0))
    return inside


def finish(catalogue: dict) -> Graph:
    """Draw what is left, score it, keep the best and decode it."""
    inside = Graph(
        "Finish and keep the best", catalogue, "Samples the remaining scales, scores the finished samples and decodes the best.",
        ("best of n", "pick best", "decode", "tts-var"), first=400,
    )
    sampled = inside.add("TTSVAR_ScaleStepSampler", state=inside.takes("state"))
    keep_best(inside, sampled)
    inside.row(inside.nodes, (0, 0))
    return inside


def pick(catalogue: dict) -> Graph:
    """Score samples, keep the best and decode it."""
    about = "Scores the samples of a state and decodes the best."
    inside = Graph("Keep the best", catalogue, about, ("best of n", "pick best"), 500)
    keep_best(inside, inside.takes("state"))
    inside.row(inside.nodes, (0, 0))
    return inside


def keep_best(inside: Graph, state: Node | dict) -> None:
    """The end of a search, inside a subgraph."""
    scored = inside.add("TTSVAR_RewardScorer", state=state, reward=inside.takes("reward"))
    best = inside.add("TTSVAR_SelectBest", state=scored.out("state"), keep=inside.takes("keep"))
    decoded = inside.add("TTSVAR_DecodeState", state=best.out("state"))
    inside.returns("images", decoded)
    inside.returns("all_finished", scored.out("state"))


def search(catalogue: dict) -> Graph:
    """The paper's search from a model, a reward and an extractor to a picture."""
    inside = Graph(
        "TTS-VAR search", catalogue, "The paper's search: 8 samples, 6 and 4 that differ, 2 and 1 that score best. Wire a model, "
        "a conditioning, a reward and an extractor.",
        ("text to image", "best of n", "seed search", "infinity", "tts-var"), first=600,
    )
    state = inside.add(
        "TTSVAR_StartState", model=inside.takes("model"), conditioning=inside.takes("conditioning"),
        aspect_ratio=inside.takes("aspect_ratio", "aspect ratio"), pixel_budget=inside.takes("pixel_budget", "pixel budget"),
        samples=inside.takes("samples"), seed=inside.takes("seed"),
    )
    row, reward, extractor = [state], inside.takes("reward"), inside.takes("extractor")
    for scale, keep in ((2, 6), (5, 4)):
        sampled = inside.add("TTSVAR_ScaleStepSampler", f"Through scale {scale}", state=state, through_scale=scale)
        state = inside.add("TTSVAR_ClusterSelector", f"Keep {keep} that differ", state=sampled, extractor=extractor, keep=keep)
        row += [sampled, state]
    for scale, keep in ((6, 2), (9, 1)):
        sampled = inside.add("TTSVAR_ScaleStepSampler", f"Through scale {scale}", state=state, through_scale=scale)
        scored = inside.add("TTSVAR_RewardScorer", state=sampled, reward=reward)
        state = inside.add("TTSVAR_PotentialResampler", f"Keep {keep}", state=scored.out("state"), keep=keep)
        row += [sampled, scored, state]
    sampled = inside.add("TTSVAR_ScaleStepSampler", "To the end", state=state)
    scored = inside.add("TTSVAR_RewardScorer", state=sampled, reward=reward)
    decoded = inside.add("TTSVAR_DecodeState", state=scored.out("state"))
    inside.returns("images", decoded)
    inside.returns("state", scored.out("state"))
    inside.row([*row, sampled, scored, decoded], (0, 0))
    return inside


def best_of_any(catalogue: dict) -> Graph:
    """The best pictures of any batch, whatever made it."""
    inside = Graph(
        "Best of N of any pictures", catalogue, "Scores a batch of pictures from any model against a prompt and sorts it: the "
        "first is the best. Choose the reward inside.",
        ("best of n", "rank images", "filter images", "select images", "aesthetic score", "seed search"), first=700,
    )
    reward = inside.add(
        "TTSVAR_RewardLoader", reward=inside.takes("reward", default=REWARDS["image-reward"].title), file=inside.takes("file")
    )
    scored = inside.add("TTSVAR_ScoreImages", images=inside.takes("images"), reward=reward, prompt=inside.takes("prompt"))
    for name in ("images", "scores", "report"):
        inside.returns(name, scored.out(name))
    inside.row([reward, scored], (0, 0))
    return inside


def sketch_and_choose(catalogue: dict) -> Graph:
    """Sketch, and wait for a person's choice."""
    inside = Graph(
        "Sketch and choose", catalogue, "Samples a few scales of every sample and lets you click those that go on.",
        ("choose image", "select images", "pick", "human in the loop", "tts-var"), first=800,
    )
    sampled = inside.add(
        "TTSVAR_ScaleStepSampler", state=inside.takes("state"), through_scale=inside.takes("through_scale", "through scale", 7)
    )
    chosen = inside.add("TTSVAR_ChooseSketches", state=sampled, choice=inside.takes("choice"))
    inside.returns("state", chosen.out("state"))
    inside.row([sampled, chosen], (0, 0))
    return inside


BLUEPRINTS = (diverse_step, reward_step, finish, search, best_of_any, sketch_and_choose)
OWN_2B, OWN_8B = drawn(PRESETS["2b"].sampling), drawn(PRESETS["8b"].sampling)
