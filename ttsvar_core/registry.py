"""Published files, rewards and extractors, each told once: nodes, command line, experiments and README read them here.

A loader is named and only imported when it is used, so that this is quick to import. A new reward is a file in `rewards/` and
an entry in `REWARDS`.
"""

from collections.abc import Mapping
from importlib import import_module
from typing import Any, NamedTuple

from .names import REDUCERS

_HUB = "https://huggingface.co/"
BROUGHT = "brought"  # a network of the user's own, whose operations nobody here can tell


class WeightFile(NamedTuple):
    """A file or folder as its authors publish it.

    names: the published one, then others it is usually kept under. page: empty for what is published nowhere. folder: of
    ComfyUI's models, where users keep it. billions: of parameters, where the README tells. direct: the file's own address where
    the page's does not tell it.
    """

    title: str
    names: tuple[str, ...]
    page: str
    folder: str = "reward_models"
    billions: float = 0.0
    direct: str = ""

    @property
    def what(self) -> str:
        """What to get from the page."""
        return self.names[0] if "." in self.names[0] else f"the folder {self.names[0]}"

    @property
    def address(self) -> str:
        """Where the file itself is, or the page of a folder."""
        single = self.page.startswith(_HUB) and "." in self.names[0]
        return self.direct or (f"{self.page}/resolve/main/{self.names[0]}" if single else self.page)

    @property
    def advice(self) -> str:
        """The sentence every error about this file ends with."""
        if not self.page:
            return f"{self.title}: train one with python -m lab.value and put it into models/{self.folder}."
        return f"{self.title}: get {self.what} from {self.page} and put it into models/{self.folder}."


class Entry(NamedTuple):
    """A reward or extractor: its key on the command line, its title in the nodes, its files in the order they are given.

    loader: "module:function", called with a path for each file and ``options``. number: the option that stands in a file's
    place, where there is no file. network: the one in `networks.NETWORKS` that it runs (none: arithmetic on few numbers).
    """

    key: str
    title: str
    loader: str
    files: tuple[WeightFile, ...] = ()
    options: Mapping[str, Any] = {}
    number: str = ""
    network: str = ""

    def load(self, *paths: str, **options: Any) -> Any:
        """The reward or extractor. Raises MissingFile or UnusableFile, with the page, as its loader does."""
        module, function = self.loader.split(":")
        return getattr(import_module(f".{module}", __package__), function)(*paths, **{**self.options, **options})

    @property
    def asks(self) -> bool:
        """Whether it asks about a picture in words that a user may choose."""
        return self.files == (_JUDGE,)

    @property
    def usage(self) -> str:
        """How a command line names it."""
        given = ",".join(file.names[0] for file in self.files)
        return f"{self.key}={given}" if given else self.key + (f"[={self.number.upper()}]" if self.number else "")


TEXT_ENCODER = WeightFile("the T5 text encoder", ("flan-t5-xl",), f"{_HUB}google/flan-t5-xl", "text_encoders", 1.22)
MODEL_FILES = (
    WeightFile("Infinity-2B", ("infinity_2b_reg.pth",), f"{_HUB}FoundationVision/Infinity", "infinity", 2.20),
    WeightFile("its tokenizer (not d32)", ("infinity_vae_d32reg.pth",), f"{_HUB}FoundationVision/Infinity", "vae", 0.11),
    WeightFile("Infinity-8B", ("infinity_8b_weights",), f"{_HUB}FoundationVision/Infinity", "infinity", 8.38),
    WeightFile("its tokenizer", ("infinity_vae_d56_f8_14_patchify.pth",), f"{_HUB}FoundationVision/Infinity", "vae", 0.08),
    TEXT_ENCODER,
)
_IMAGE_REWARD = WeightFile(
    "ImageReward", ("ImageReward.pt", "ImageReward.safetensors", "ImageReward"), f"{_HUB}THUDM/ImageReward", billions=0.45
)
_HPS = WeightFile(
    "HPS v2.1", ("HPS_v2.1_compressed.pt", "HPS_v2.1_compressed.safetensors", "HPS_v2.1.pt"), f"{_HUB}xswu/HPSv2", billions=0.986
)
_SIGLIP = WeightFile("the SigLIP of Aesthetic v2.5", ("siglip-so400m-patch14-384",), f"{_HUB}google/siglip-so400m-patch14-384")
_AESTHETIC_HEAD = WeightFile(
    "the head of Aesthetic v2.5", ("aesthetic_predictor_v2_5.pth", "aesthetic_predictor_v2_5.safetensors"),
    "https://github.com/discus0434/aesthetic-predictor-v2-5/tree/main/models",
)
_PICK = WeightFile("PickScore", ("PickScore_v1", "PickScore_v1.safetensors"), f"{_HUB}yuvalkirstain/PickScore_v1")
_CLIP = WeightFile(
    "CLIP", ("clip-vit-large-patch14", "clip-vit-large-patch14.safetensors"), f"{_HUB}openai/clip-vit-large-patch14"
)
_JUDGE = WeightFile(
    "a vision-language model", ("Qwen3-VL-4B-Instruct", "Qwen3-VL-8B-Instruct", "Qwen2.5-VL-7B-Instruct", "SmolVLM2-2.2B-Instruct"),
    f"{_HUB}Qwen/Qwen3-VL-4B-Instruct",
)
_VALUE = WeightFile("a value model", ("value.safetensors",), "")
_DINOV2 = WeightFile(
    "DINOv2 with registers", ("dinov2_vitl14_reg4_pretrain.pth", "dinov2-with-registers-large"),
    "https://github.com/facebookresearch/dinov2", billions=0.304,
    direct="https://dl.fbaipublicfiles.com/dinov2/dinov2_vitl14/dinov2_vitl14_reg4_pretrain.pth",
)
_INCEPTION = WeightFile(
    "InceptionV3", ("inception_v3_google-0cc3c7bd.pth",), "https://pytorch.org/vision/stable/models/inception.html"
)


def _by_key(*entries: Entry) -> dict[str, Entry]:
    return {entry.key: entry for entry in entries}


REWARDS = _by_key(
    Entry("scenes", "scene verifier (bundled)", "rewards.scenes:SceneReward"),
    Entry("image-reward", "ImageReward", "rewards.image_reward:load_image_reward", (_IMAGE_REWARD,), network="blip"),
    Entry(
        "image-reward-package", "ImageReward (package)", "rewards.package:load_packaged_image_reward", (_IMAGE_REWARD,),
        network="blip",
    ),
    Entry("hps", "HPS v2.1", "rewards.clip:load_hps", (_HPS,), network="vit-h"),
    Entry("aesthetic", "Aesthetic v2.5", "rewards.aesthetic:load_aesthetic", (_SIGLIP, _AESTHETIC_HEAD), network="siglip"),
    Entry("pick", "PickScore", "rewards.clip:load_pick_score", (_PICK,), network="vit-h"),
    Entry("clip", "CLIPScore", "rewards.clip:load_clip_score", (_CLIP,), network="vit-l"),
    Entry("ocr", "text in the picture (OCR)", "rewards.words:load_words", network=BROUGHT),
    Entry("yes-no", "yes or no (GenEval 2)", "rewards.yes_no:load_yes_no", (_JUDGE,), network=BROUGHT),
    Entry(
        "yes-no-vqascore", "yes or no (VQAScore)", "rewards.yes_no:load_yes_no", (_JUDGE,), {"template": "vqascore"},
        network=BROUGHT,
    ),
    Entry(
        "yes-no-parts", "yes or no of each part (Soft-TIFA)", "rewards.yes_no:load_yes_no", (_JUDGE,), {"parts": True},
        network=BROUGHT,
    ),
    Entry("value", "value model (decodes nothing)", "rewards.value:load_value", (_VALUE,), network=BROUGHT),
)
EXTRACTORS = _by_key(
    Entry("latent-pool", "latent pool (no model)", "extractors.latent_pool:LatentPool", number="grid"),
    *(
        Entry(
            f"dinov2-{reducer}", f"DINOv2 {reducer}", "extractors.dinov2:load_dinov2", (_DINOV2,), {"reducer": reducer},
            network="dinov2",
        )
        for reducer in REDUCERS
    ),
    Entry("inception", "Inception", "extractors.inception:load_inception", (_INCEPTION,), network="inception"),
)


def usages(entries: Mapping[str, Entry]) -> str:
    """How a command line names each, for help and errors."""
    return ", ".join(entry.usage for entry in entries.values())


def find(entries: Mapping[str, Entry], key: str) -> Entry | None:
    """The entry of a key in capitals or not."""
    return {entry.key.lower(): entry for entry in entries.values()}.get(key.lower())


def titled(entries: Mapping[str, Entry], title: str) -> Entry:
    """The entry of a title. Raises ValueError for one that is none."""
    titles = {entry.title: entry for entry in entries.values()}
    if title not in titles:
        raise ValueError(f"There is no {title!r}; choose one of {', '.join(titles)}.")
    return titles[title]


def load(entries: Mapping[str, Entry], spec: str, device: str, **options: Any) -> Any:
    """What `spec` names in the manner of `usages`, on a device; ``options`` are for what is loaded from files, such as a dtype.

    Raises ValueError for a name or number of files that is none.
    """
    key, _, given = spec.partition("=")
    entry, paths = find(entries, key), tuple(given.split(",")) if given else ()
    if entry and entry.number and given.isdecimal() and int(given) > 0:
        return entry.load(**{entry.number: int(given)})
    if entry is None or len(paths) != len(entry.files) or not all(paths):
        raise ValueError(f"cannot load {spec!r}; write one of {usages(entries)}")
    loaded = entry.load(*paths, **(options if paths else {}))
    return loaded.to(device) if paths else loaded
