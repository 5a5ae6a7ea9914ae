"""Rewards and feature extractors: loading them, and blending several rewards into one."""

from dataclasses import replace

from comfy_api.latest import io

from ..ttsvar_core import registry
from ..ttsvar_core.names import BLENDS, MEANS
from .host import folders, hosted
from .score import numbers
from .types import CATEGORY, Extractor, Reward, mean, only, precision

FOLDER = "reward_models"
AUTO = "auto"
SCENES = registry.REWARDS["scenes"].title
LATENT_POOL = registry.EXTRACTORS["latent-pool"].title
MORE = [f"reward_{number}" for number in range(5, 17)]  # that Blend Rewards takes beside its first four
REWARDS = [entry.title for entry in registry.REWARDS.values()]
EXTRACTORS = [entry.title for entry in registry.EXTRACTORS.values()]


def _load(entry: registry.Entry, files: tuple, precision: str, **options) -> hosted.Hosted:
    """What an entry of the registry loads, of a choice for each of its files; ``options`` are its loader's."""
    if not entry.files:
        return hosted.host(entry.load(**options), (), named=(entry.network,))
    loaded = entry.load(*_paths(entry, files), dtype=hosted.precision(precision), **options)
    return hosted.host(loaded, loaded.models, named=(entry.network,))


def _paths(entry: registry.Entry, files: tuple) -> list[str]:
    """Where the files of an entry lie. Raises FileNotFoundError for the first that does not, naming its page."""
    pairs = zip(entry.files, files, strict=False)
    return [folders.find_first(file) if chosen == AUTO else folders.find(FOLDER, chosen) for file, chosen in pairs]


def _missing(entries: dict, title: str | None, *files: str | None) -> bool | str:
    """True, or what is missing, told before anything of a graph runs; a choice that a wire brings is None here."""
    if title is None or None in files:
        return True
    try:
        _paths(registry.titled(entries, title), files)
    except (FileNotFoundError, ValueError) as error:
        return str(error)
    return True


def _titles(entries: dict, has: str) -> list[str]:
    """What the loaders call the entries that have something: files, a number, questions."""
    return [entry.title for entry in entries.values() if getattr(entry, has)]


def _file(name: str, tooltip: str, **options):
    return io.Combo.Input(name, options=[AUTO, *folders.choices(FOLDER)], default=AUTO, tooltip=tooltip, **options)


class RewardLoader(io.ComfyNode):
    """Something that scores pictures against a prompt."""

    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="TTSVAR_RewardLoader",
            display_name="Reward Loader",
            category=f"{CATEGORY}/load",
            description="Loads what scores pictures. The scene verifier comes with the pack and judges the bundled model's "
            "scenes; for real pictures take ImageReward, HPS v2.1, PickScore, CLIPScore or Aesthetic v2.5.",
            search_aliases=["image reward", "hps", "aesthetic score", "pickscore", "clip score", "scorer", "tts-var", "评分模型"],
            inputs=[
                io.Combo.Input(
                    "reward", options=REWARDS, default=SCENES, tooltip="Which reward. The scene verifier needs no file."
                ),
                _file(
                    "file", "Weights from models/reward_models; auto takes the file under the name it is published with.",
                    **only(reward=_titles(registry.REWARDS, "files")),
                ),
                _file(
                    "head_file", "The head of Aesthetic v2.5, which needs two files; other rewards ignore this.",
                    **only(reward=[entry.title for entry in registry.REWARDS.values() if len(entry.files) > 1]),
                ),
                precision(
                    "Number type of the network: auto takes bfloat16 on a graphics card that computes in it.",
                    **only(reward=_titles(registry.REWARDS, "files")),
                ),
                io.String.Input(
                    "questions", multiline=True, default="", optional=True, **only(reward=_titles(registry.REWARDS, "asks")),
                    tooltip="For yes or no, in place of the published words: questions of your own, one per line, to which yes is "
                    "the answer that you want; or one line with {} where the prompt goes. Other rewards ignore this.",
                ),
                mean(" Only yes or no asks.", optional=True, **only(reward=_titles(registry.REWARDS, "asks"))),
            ],
            outputs=[Reward.Output("reward", tooltip="For Reward Scorer, Score Images, Blend Rewards or TTS-VAR Generate.")],
        )

    @classmethod
    def validate_inputs(cls, reward=None, file=None, head_file=None):
        return _missing(registry.REWARDS, reward, file, head_file)

    @classmethod
    def execute(cls, reward, file, head_file, precision, questions="", mean=MEANS[0]) -> io.NodeOutput:
        return io.NodeOutput(load_reward(reward, file, head_file, precision, questions, mean))


def load_reward(
    kind: str = SCENES, file: str = AUTO, head_file: str = AUTO, precision: str = "auto", questions: str = "", mean: str = MEANS[0]
) -> hosted.Hosted:
    """A reward by the name the loader offers; ``questions`` as `own_words` reads them and the ``mean`` of their answers, where it
    asks any."""
    from ..ttsvar_core.rewards.questions import own_words

    entry = registry.titled(registry.REWARDS, kind)
    if not entry.asks:
        return _load(entry, (file, head_file), precision)
    asking = _load(entry, (file,), precision, **own_words(questions))
    return hosted.Hosted(replace(asking.inner, mean=mean), asking.patchers, asking.networks)


class BlendRewards(io.ComfyNode):
    """Several rewards as one."""

    @classmethod
    def define_schema(cls):
        weight = "How much this reward counts."
        return io.Schema(
            node_id="TTSVAR_BlendRewards",
            display_name="Blend Rewards",
            category=f"{CATEGORY}/load",
            description="Makes one reward of two or more. Rewards come in different units; softmax (the paper's HPS+IR), "
            "z-score and rank compare the pictures of one batch, weighted adds the raw scores.",
            search_aliases=["combine rewards", "mix", "ensemble", "average", "tts-var", "混合"],
            inputs=[
                Reward.Input("reward_1", tooltip="First reward."),
                Reward.Input("reward_2", tooltip="Second reward."),
                io.Combo.Input(
                    "how", options=list(BLENDS), default="softmax",
                    tooltip="How scores are made comparable: softmax over the batch, z-score, rank, or weighted raw scores.",
                ),
                io.Float.Input("weight_1", default=1.0, min=-100.0, max=100.0, step=0.05, tooltip=weight),
                io.Float.Input("weight_2", default=1.0, min=-100.0, max=100.0, step=0.05, tooltip=weight),
                Reward.Input("reward_3", optional=True, tooltip="Third reward, if you like."),
                Reward.Input("reward_4", optional=True, tooltip="Fourth reward, if you like."),
                io.Float.Input("weight_3", default=1.0, min=-100.0, max=100.0, step=0.05, advanced=True, tooltip=weight),
                io.Float.Input("weight_4", default=1.0, min=-100.0, max=100.0, step=0.05, advanced=True, tooltip=weight),
                io.Autogrow.Input(
                    "more", optional=True, tooltip="As many rewards more as you like: a new input appears as you wire one.",
                    template=io.Autogrow.TemplateNames(Reward.Input("reward", optional=True), names=MORE, min=0),
                ),
                io.String.Input(
                    "more_weights", default="", optional=True, advanced=True,
                    tooltip="How much each of these counts, in their order with commas between: 1, 0.5. Empty counts each 1.",
                ),
            ],
            outputs=[Reward.Output("reward", tooltip="The blend, used like any reward.")],
        )

    @classmethod
    def execute(
        cls, reward_1, reward_2, how, weight_1, weight_2, weight_3, weight_4, reward_3=None, reward_4=None, more=None,
        more_weights="",
    ) -> io.NodeOutput:
        from ..ttsvar_core.rewards.blend import Blend

        pairs = [(reward_1, weight_1), (reward_2, weight_2), (reward_3, weight_3), (reward_4, weight_4)]
        wired = [(reward, weight) for reward, weight in pairs if reward is not None]
        others = [more[name] for name in MORE if (more or {}).get(name) is not None]
        rewards = [*(reward for reward, _ in wired), *others]
        weights = [*(weight for _, weight in wired), *(numbers(more_weights) if more_weights.strip() else [1.0] * len(others))]
        parts = ([part for reward in rewards for part in getattr(reward, name, ())] for name in ("patchers", "networks"))
        return io.NodeOutput(hosted.Hosted(Blend(rewards, how, weights), *parts))


class ExtractorLoader(io.ComfyNode):
    """What samples are compared by when diverse ones are kept."""

    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="TTSVAR_ExtractorLoader",
            display_name="Extractor Loader",
            category=f"{CATEGORY}/load",
            description="Loads what samples are compared by when diverse ones are kept. The latent pool needs no model and no "
            "decoding; DINOv2 PCA is the paper's.",
            search_aliases=["dinov2", "feature extractor", "inception", "diversity", "tts-var", "特征"],
            inputs=[
                io.Combo.Input(
                    "extractor", options=EXTRACTORS, default=LATENT_POOL,
                    tooltip="Latent pool: the model's own features on a coarse grid. DINOv2 PCA: the layout of each picture "
                    "(the paper's); PCA-shared: layouts on one common axis; Pool: what is in it. Inception: needs torchvision.",
                ),
                _file(
                    "file", "Weights from models/reward_models; auto takes the file under the name it is published with.",
                    **only(extractor=_titles(registry.EXTRACTORS, "files")),
                ),
                precision(
                    "Number type of the network: auto takes bfloat16 on a graphics card that computes in it.",
                    **only(extractor=_titles(registry.EXTRACTORS, "files")),
                ),
                io.Int.Input(
                    "grid", default=4, min=1, max=16, advanced=True, **only(extractor=_titles(registry.EXTRACTORS, "number")),
                    tooltip="Side of the latent pool's coarse grid; the networks ignore it.",
                ),
            ],
            outputs=[Extractor.Output("extractor", tooltip="For Cluster Selector, Inspect State or TTS-VAR Generate.")],
        )

    @classmethod
    def validate_inputs(cls, extractor=None, file=None):
        return _missing(registry.EXTRACTORS, extractor, file)

    @classmethod
    def execute(cls, extractor, file, precision, grid) -> io.NodeOutput:
        return io.NodeOutput(load_extractor(extractor, file, precision, grid))


def load_extractor(kind: str = LATENT_POOL, file: str = AUTO, precision: str = "auto", grid: int = 4) -> hosted.Hosted:
    """A feature extractor by the name the loader offers."""
    entry = registry.titled(registry.EXTRACTORS, kind)
    return _load(entry, (file,), precision, **({entry.number: grid} if entry.number else {}))


NODES = [RewardLoader, BlendRewards, ExtractorLoader]
