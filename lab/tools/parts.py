"""Pieces the example graphs share: their left column, what they load, and the subgraphs that are the pack's blueprints."""

from __future__ import annotations

from collections.abc import Callable

from graph_builder import HEAD, PAD, Graph, Node

from ttsvar_core.config import PRESETS, Sampling
from ttsvar_core.registry import EXTRACTORS, MODEL_FILES, REWARDS, TEXT_ENCODER, WeightFile

VIEW = "TTSVAR_InspectState"  # what shows a state
PROMPT = "a photo of a red circle left of a blue square"
GULF = 90  # between neighbouring groups
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
    inside.returns(model=model, conditioning=prompt, reward=reward, extractor=extractor, text_encoder=encoder)
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
    return max(note.right, load.right + PAD if load else 0) + GULF - PAD


def load_node(graph: Graph, text: str = PROMPT) -> Node:
    """The bundled model, its text encoder, reward, extractor and the prompt as one node."""
    return graph.fold(loaders(graph.catalogue, text=text), "Load and read the prompt", (300, 205))


def shown(graph: Graph, ended: Node, prefix: str, at: tuple[int, int], title: str = "How it was found") -> list[Node]:
    """The picture saved above the view of all finished samples."""
    saved = graph.add("SaveImage", "Best picture", (LOOK[0], 330), images=ended.out("images"), filename_prefix=prefix)
    seen = graph.add(VIEW, title, LOOK, state=ended.out("all_finished"))
    saved.position = at
    seen.position = (at[0], saved.bottom + 60)
    return [saved, seen]


# Subgraphs, most of which are blueprints ------------------------------------------------------------------------------


def subgraph(name: str, first: int, about: str, *aliases: str) -> Callable:
    """Turns a function that fills a graph, its nodes in a row, into one that makes it of a catalogue; see `Graph`."""

    def made(fill: Callable[[Graph], None]) -> Callable[[dict], Graph]:
        def build(catalogue: dict) -> Graph:
            inside = Graph(name, catalogue, about, aliases, first)
            fill(inside)
            inside.row(inside.nodes, (0, 0))
            return inside

        return build

    return made


@subgraph(
    "Diverse step", 200, "Samples the next scales and keeps sketches that differ. The paper does it at scales 2 and 5.",
    "cluster", "diversity", "filter images", "tts-var",
)
def diverse_step(inside: Graph) -> None:
    """Sample on, then keep samples that differ."""
    sampled = _sampled(inside, 2)
    cut = inside.add(
        "TTSVAR_ClusterSelector", state=sampled, extractor=inside.takes("extractor"), keep=inside.takes("keep", default=6)
    )
    inside.returns(state=cut.out("state"), reason=cut.out("reason"))


@subgraph(
    "Reward step", 300, "Samples the next scales, scores the sketches and draws those that go on by their scores. "
    "The paper does it at scales 6 and 9.", "resample", "rank images", "select images", "lambda", "tts-var",
)
def reward_step(inside: Graph) -> None:
    """Sample on, score, and draw the samples that promise most."""
    scored = inside.add("TTSVAR_RewardScorer", state=_sampled(inside, 6), reward=inside.takes("reward"))
    keep, lambda_ = inside.takes("keep", default=2), inside.takes("lambda")
    cut = inside.add("TTSVAR_PotentialResampler", state=scored.out("state"), keep=keep, lambda_=lambda_)
    inside.returns(state=cut.out("state"), reason=cut.out("reason"))


@subgraph(
    "Sketch and choose", 800, "Samples a few scales of every sample and lets you click those that go on.",
    "choose image", "select images", "pick", "human in the loop", "tts-var",
)
def sketch_and_choose(inside: Graph) -> None:
    """Sketch, and wait for a person's choice."""
    chosen = inside.add("TTSVAR_ChooseSketches", state=_sampled(inside, 7), choice=inside.takes("choice"))
    inside.returns(state=chosen.out("state"))


def _sampled(inside: Graph, through: int) -> Node:
    """The state that a subgraph is given, sampled through a scale."""
    state = inside.takes("state")
    return inside.add("TTSVAR_ScaleStepSampler", state=state, through_scale=inside.takes("through_scale", default=through))


@subgraph(
    "Finish and keep the best", 400, "Samples the remaining scales, scores the finished samples and decodes the best.",
    "best of n", "pick best", "decode", "tts-var",
)
def finish(inside: Graph) -> None:
    """Draw what is left, score it, keep the best and decode it."""
    _keep_best(inside, inside.add("TTSVAR_ScaleStepSampler", state=inside.takes("state")))


@subgraph("Keep the best", 500, "Scores the samples of a state and decodes the best.", "best of n", "pick best")
def pick(inside: Graph) -> None:
    """Score samples, keep the best and decode it."""
    _keep_best(inside, inside.takes("state"))


def _keep_best(inside: Graph, state: Node | dict) -> None:
    """The end of a search, inside a subgraph."""
    scored = inside.add("TTSVAR_RewardScorer", state=state, reward=inside.takes("reward"))
    best = inside.add("TTSVAR_SelectBest", state=scored.out("state"), keep=inside.takes("keep"))
    inside.returns(images=inside.add("TTSVAR_DecodeState", state=best.out("state")), all_finished=scored.out("state"))


@subgraph(
    "TTS-VAR search", 600, "The paper's search: 8 samples, 6 and 4 that differ, 2 and 1 that score best. Wire a model, "
    "a conditioning, a reward and an extractor.", "text to image", "best of n", "seed search", "infinity", "tts-var",
)
def search(inside: Graph) -> None:
    """The paper's search from a model, a reward and an extractor to a picture."""
    asked = ("model", "conditioning", "aspect_ratio", "pixel_budget", "samples", "seed")
    state = inside.add("TTSVAR_StartState", **{name: inside.takes(name) for name in asked})
    reward, extractor = inside.takes("reward"), inside.takes("extractor")
    for scale, keep in ((2, 6), (5, 4)):
        sampled = inside.add("TTSVAR_ScaleStepSampler", f"Through scale {scale}", state=state, through_scale=scale)
        state = inside.add("TTSVAR_ClusterSelector", f"Keep {keep} that differ", state=sampled, extractor=extractor, keep=keep)
    for scale, keep in ((6, 2), (9, 1)):
        sampled = inside.add("TTSVAR_ScaleStepSampler", f"Through scale {scale}", state=state, through_scale=scale)
        scored = inside.add("TTSVAR_RewardScorer", state=sampled, reward=reward)
        state = inside.add("TTSVAR_PotentialResampler", f"Keep {keep}", state=scored.out("state"), keep=keep)
    sampled = inside.add("TTSVAR_ScaleStepSampler", "To the end", state=state)
    scored = inside.add("TTSVAR_RewardScorer", state=sampled, reward=reward)
    inside.returns(images=inside.add("TTSVAR_DecodeState", state=scored.out("state")), state=scored.out("state"))


@subgraph(
    "Best of N of any pictures", 700, "Scores a batch of pictures from any model against a prompt and sorts it: the "
    "first is the best. Choose the reward inside.",
    "best of n", "rank images", "filter images", "select images", "aesthetic score", "seed search",
)
def best_of_any(inside: Graph) -> None:
    """The best pictures of any batch, whatever made it."""
    which = inside.takes("reward", default=REWARDS["image-reward"].title)
    reward = inside.add("TTSVAR_RewardLoader", reward=which, file=inside.takes("file"))
    scored = inside.add("TTSVAR_ScoreImages", images=inside.takes("images"), reward=reward, prompt=inside.takes("prompt"))
    inside.returns(**{name: scored.out(name) for name in ("images", "scores", "report")})


BLUEPRINTS = (diverse_step, reward_step, finish, search, best_of_any, sketch_and_choose)
OWN_2B, OWN_8B = drawn(PRESETS["2b"].sampling), drawn(PRESETS["8b"].sampling)
