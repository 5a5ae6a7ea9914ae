"""The only module that knows the host: its folders, devices, offloading, progress, interrupt."""

from __future__ import annotations

import os
import re
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import comfy.cli_args
import comfy.model_management
import comfy.model_patcher
import comfy.ops
import comfy.utils
import folder_paths
import torch
from comfy_api.latest import io
from comfy_execution.graph_utils import ExecutionBlocker

from ..ttsvar_core import costs, names
from ..ttsvar_core.image_model import ImageModel
from ..ttsvar_core.registry import MODEL_FILES, WeightFile

if TYPE_CHECKING:
    from PIL import Image

    from ..ttsvar_core.config import Sampling
    from ..ttsvar_core.rewards.base import Answers
    from ..ttsvar_core.scales import ScaleSchedule
    from ..ttsvar_core.search.plan import Plan
    from ..ttsvar_core.state import SearchState

BUNDLED = f"{names.BUNDLED} (bundled)"
FLOAT8 = "float8"
# What "auto" takes, the first that the device computes in, for the transformer and for the text encoder (as the published code has
# it: bfloat16, and float16 for T5). Whether the host says so stands beside each.
IMAGE_PRECISIONS = {torch.bfloat16: "should_use_bf16", torch.float16: "should_use_fp16"}
TEXT_PRECISIONS = {torch.float16: "should_use_fp16"}
REWARD_PRECISIONS = {torch.bfloat16: "should_use_bf16"}
OWN_FOLDERS = ("infinity", "reward_models")
PREVIEW_SIDE = 512
STATE_SUFFIX = ".state.safetensors"
_EXTENSIONS = {".safetensors", ".sft", ".pth", ".pt", ".bin", ".ckpt"}


# Folders and files ----------------------------------------------------------------------------------------------------


def register_folders() -> None:
    """Tell ComfyUI of models/infinity and models/reward_models; paths from extra_model_paths.yaml stay in front."""
    for name in OWN_FOLDERS:
        folder_paths.add_model_folder_path(name, os.path.join(folder_paths.models_dir, name))
        paths, extensions = folder_paths.folder_names_and_paths[name]
        folder_paths.folder_names_and_paths[name] = (paths, set(extensions) | _EXTENSIONS)


def bundled(name: str) -> str:
    """Path of a file that comes with the pack."""
    return str(Path(__file__).resolve().parent.parent / "ttsvar_core" / "bundled" / name)


def choices(folder: str) -> list[str]:
    """Names a loader offers: model files of a ComfyUI folder, and its sub-folders in the Hugging Face layout."""
    return sorted({*folder_paths.get_filename_list(folder), *_model_folders(folder)})


def find(folder: str, name: str) -> str:
    """Full path of a name from ``choices``. Raises FileNotFoundError that says where to put what."""
    path = folder_paths.get_full_path(folder, name)
    candidates = [path] if path else []
    candidates += [os.path.join(root, name) for root in folder_paths.get_folder_paths(folder)]
    found = next((candidate for candidate in candidates if os.path.exists(candidate)), None)
    if found is None:
        where = " or ".join(folder_paths.get_folder_paths(folder))
        published = next((file for file in MODEL_FILES if file.folder == folder), None)
        source = f" It is published at {published.page} (for example {published.what})." if published else ""
        raise FileNotFoundError(f"There is no {name!r} in {where}. Put it there and refresh the browser page (R).{source}")
    return found


def whole(path: str) -> str:
    """The folder of a file that is one of several it holds, "model-00001-of-00002.safetensors"; any other path as it is."""
    return os.path.dirname(path) if re.search(r"-\d{5}-of-\d{5}\.", os.path.basename(path)) else path


def find_first(file: WeightFile) -> str:
    """Path of a published file under the first of its usual names. Raises FileNotFoundError naming it and its page."""
    roots = folder_paths.get_folder_paths(file.folder)
    for name in file.names:
        for root in roots:
            if os.path.exists(os.path.join(root, name)):
                return os.path.join(root, name)
    raise FileNotFoundError(
        f"{file.title} needs its weights: get {file.what} from {file.page} and put it into {roots[0]}, or choose a file by name."
    )


def _model_folders(folder: str) -> Iterator[str]:
    """Folders in the Hugging Face layout: with a configuration, or with an index of shards."""
    for root in folder_paths.get_folder_paths(folder):
        for place, _, files in os.walk(root, followlinks=True):  # as ComfyUI lists files: folders may be links
            if any(name == "config.json" or name.endswith(".index.json") for name in files):
                yield Path(place).relative_to(root).as_posix()


def saved_states() -> list[str]:
    """Names of the states in the input and output folders, as ComfyUI writes such names."""
    inputs, outputs = _states_in(folder_paths.get_input_directory()), _states_in(folder_paths.get_output_directory())
    return [*(f"{name} [output]" for name in outputs), *inputs]


def saved_state(name: str) -> str:
    """Path of a saved state by its name, or of the newest one for an empty name.

    Raises FileNotFoundError if there is none, ValueError for a path outside ComfyUI's input, output and temp folders.
    """
    if not name:
        root = folder_paths.get_output_directory()
        found = [os.path.join(root, name) for name in _states_in(root)]
        if not found:
            raise FileNotFoundError(f"There is no saved state in {root}. Run Save State first.")
        return max(found, key=os.path.getmtime)
    path = os.path.realpath(name if os.path.isabs(name) else folder_paths.get_annotated_filepath(name))
    folders = folder_paths.get_input_directory(), folder_paths.get_output_directory(), folder_paths.get_temp_directory()
    if not any(Path(path).is_relative_to(os.path.realpath(folder)) for folder in folders):
        raise ValueError(f"{path} lies outside ComfyUI's input and output folders; move the state there.")
    if not os.path.exists(path):
        raise FileNotFoundError(f"There is no saved state at {path}. Choose another, or run Save State first.")
    return path


def _states_in(root: str) -> list[str]:
    return sorted(path.relative_to(root).as_posix() for path in Path(root).glob(f"**/*{STATE_SUFFIX}"))


def fresh_output_path(prefix: str, suffix: str) -> str:
    """A path in the output folder that is not taken: the prefix (sub-folders allowed), a running number, the suffix.

    The number ends in an underscore, where ComfyUI before 0.21 stops reading it; without one it would always say 1.
    """
    folder, name, number, _, _ = folder_paths.get_save_image_path(prefix, folder_paths.get_output_directory())
    while os.path.exists(path := os.path.join(folder, f"{name}_{number:05}_{suffix}")):
        number += 1
    return path


def temp_pictures(pictures: Sequence[Image.Image]) -> list[dict]:
    """Pictures written into the temp folder, as the page asks for them."""
    root = folder_paths.get_temp_directory()
    os.makedirs(root, exist_ok=True)
    names = [f"ttsvar_{uuid.uuid4().hex[:16]}.png" for _ in pictures]
    for name, picture in zip(names, pictures, strict=True):
        picture.save(os.path.join(root, name), compress_level=1)
    return [{"filename": name, "subfolder": "", "type": "temp"} for name in names]


def is_there(picture: Mapping) -> bool:
    """Whether a picture of ``temp_pictures`` is still on the disk."""
    return os.path.exists(os.path.join(folder_paths.get_temp_directory(), picture["filename"]))


# Devices and offloading -----------------------------------------------------------------------------------------------


class Network(torch.nn.Module):
    """A module as ComfyUI moves it about; its bookkeeping attributes land here and not on the core's module."""

    def __init__(self, module: torch.nn.Module) -> None:
        super().__init__()
        self.module = module


@dataclass(frozen=True, eq=False, repr=False)
class HostedModel(ImageModel):
    """An image model with the patchers by which ComfyUI loads and offloads its two networks."""

    patcher: Any = field(default=None)
    tokenizer_patcher: Any = field(default=None)


class Hosted:
    """A reward, extractor or text encoder with the patchers of its networks; in all else it is the object itself."""

    def __init__(self, inner: Any, patchers: Sequence[Any], networks: Sequence[str] = ()) -> None:
        self.inner = inner
        self.patchers = tuple(patchers)
        self.networks = tuple(networks)  # as the registry names them, for what they cost

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return getattr(self.inner, name)

    def __repr__(self) -> str:
        return repr(self.inner)


def torch_device() -> torch.device:
    """The device networks run on."""
    return comfy.model_management.get_torch_device()


def precision(choice: str, usual: Mapping[torch.dtype, str] = REWARD_PRECISIONS) -> torch.dtype:
    """The number type to compute in; "auto" (and float8 storage) is the first usual one that the device has, otherwise float32."""
    if choice not in ("auto", FLOAT8):
        return getattr(torch, choice)
    management = comfy.model_management
    device = management.text_encoder_device() if usual is TEXT_PRECISIONS else torch_device()
    usable = () if management.is_device_cpu(device) else usual
    return next((dtype for dtype in usable if getattr(management, usual[dtype])(device)), torch.float32)


def load_image_model(transformer: str, tokenizer: str, choice: str, compiled: bool = False) -> HostedModel:
    """Load a transformer and tokenizer (paths) built of ComfyUI's own layers, so that it can offload them piece by piece."""
    from ..ttsvar_core.compiled import check_compiler, compile_blocks
    from ..ttsvar_core.quantize import store_blocks_in_float8
    from ..ttsvar_core.weights import load_model

    if compiled:
        check_compiler(torch_device())
    model = load_model(transformer, tokenizer, dtype=precision(choice, IMAGE_PRECISIONS), operations=comfy.ops.manual_cast)
    if choice == FLOAT8:
        model = store_blocks_in_float8(model)
    if compiled:
        model = compile_blocks(model, torch_device())
    offload = comfy.model_management.unet_offload_device()
    piecewise = getattr(comfy.model_patcher, "CoreModelPatcher", comfy.model_patcher.ModelPatcher)
    return HostedModel(
        model.config, model.transformer, model.tokenizer, model.fingerprint,
        piecewise(Network(model.transformer), load_device=torch_device(), offload_device=offload),
        _whole(model.tokenizer, torch_device(), comfy.model_management.vae_offload_device()),
    )


def host(inner: Any, networks: Sequence[torch.nn.Module], text: bool = False, named: Sequence[str] = ()) -> Hosted:
    """Hand the networks of a reward, extractor or text encoder to ComfyUI's memory management."""
    if text:
        place = comfy.model_management.text_encoder_device(), comfy.model_management.text_encoder_offload_device()
    else:
        place = torch_device(), comfy.model_management.unet_offload_device()
    return Hosted(inner, [_whole(module, *place) for module in networks], named)


def _whole(network: torch.nn.Module, device: torch.device, offload: torch.device) -> Any:
    """A patcher that loads a network all at once (its layers are not ComfyUI's)."""
    return comfy.model_patcher.ModelPatcher(Network(network), load_device=device, offload_device=offload)


def load_transformer(model: HostedModel, memory: float = 0, preview: bool = False) -> None:
    """Bring the transformer to its device, leaving ``memory`` bytes for keys, values and activations.

    With ``preview`` the tokenizer as well: brought first and named beside it, it stays where both do not fit whole, and the
    transformer's layers are streamed instead.
    """
    from ..ttsvar_core.inspect.preview import largest_cells

    patchers = [model.patcher]
    if preview:
        memory = max(memory, costs.decoding_bytes(model.config.tokenizer, (largest_cells(model),) * 2))
        load_tokenizer(model, memory)
        patchers.append(model.tokenizer_patcher)
    comfy.model_management.load_models_gpu(patchers, memory_required=memory)
    _settle(model.transformer, model.patcher.load_device)


def load_tokenizer(model: HostedModel, memory: float = 0) -> None:
    """Bring the tokenizer to its device."""
    comfy.model_management.load_models_gpu([model.tokenizer_patcher], memory_required=memory, force_full_load=True)


@contextmanager
def running(*things: Any, images: torch.Tensor | None = None) -> Iterator[None]:
    """Networks of hosted things on their device, with room to look at ``images``; every forward pass of theirs first looks whether
    the user wants to stop."""
    patchers = [patcher for thing in things for patcher in getattr(thing, "patchers", ())]
    if patchers:
        room = 0 if images is None else costs.looking_bytes(len(images))
        comfy.model_management.load_models_gpu(patchers, memory_required=room, force_full_load=True)
    networks = [patcher.model.module for patcher in patchers]
    hooks = [network.register_forward_pre_hook(lambda *_: check_interrupt()) for network in networks]
    try:
        check_interrupt()
        yield
    finally:
        for hook in hooks:
            hook.remove()


class InTurn:
    """A hosted reward or extractor that comes to its device whenever it looks, from wherever it was moved meanwhile."""

    def __init__(self, inner: Any) -> None:
        self._inner = inner

    def score(self, images: torch.Tensor, prompt: str) -> torch.Tensor:
        """As the reward's own."""
        with running(self._inner, images=images):
            return self._inner.score(images, prompt)

    def explain(self, images: torch.Tensor, prompt: str) -> Answers:
        """The scores and what they are made of, where the reward tells."""
        from ..ttsvar_core.rewards.base import explained

        with running(self._inner, images=images):
            return explained(self._inner, images, prompt)

    def describe(self, seen: torch.Tensor) -> torch.Tensor:
        """As the extractor's own."""
        with running(self._inner, images=seen):
            return self._inner.describe(seen)

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._inner, name)
        return self._foretold if name == "foretell" else found

    def _foretold(self, state: SearchState) -> torch.Tensor:
        with running(self._inner):
            return self._inner.foretell(state)


def _settle(module: torch.nn.Module, device: torch.device) -> None:
    """Move bare parameters along; ComfyUI streams the weights of its own layers but may leave these behind."""
    for part in module.modules():
        if not hasattr(part, "comfy_cast_weights"):
            for parameter in part.parameters(recurse=False):
                parameter.data = parameter.data.to(device)


def to_image(images: torch.Tensor) -> torch.Tensor:
    """Images as ComfyUI passes them on."""
    return images.to(device=comfy.model_management.intermediate_device(), dtype=torch.float32)


def sampling_memory(state: SearchState, through: int, sampling: Sampling) -> int:
    """Bytes that sampling through a scale needs beside the weights and what lies on the device already."""
    branches = enumerate(sampling.branches(min(through + 1, len(state.schedule))))
    needed = [costs.sampling_bytes(state.model, state.schedule, scale, state.samples, count) for scale, count in branches]
    return max(0, max(needed[state.next_scale :], default=0) - _resident(state))


def plan_memory(model: HostedModel, plan: Plan, schedule: ScaleSchedule, sampling: Sampling, first: int = 0) -> int:
    """Bytes that the dearest of a plan's scales from ``first`` on needs beside the weights."""
    branches = enumerate(sampling.branches(len(schedule)))
    needed = [costs.sampling_bytes(model, schedule, scale, plan.running(scale), count) for scale, count in branches]
    return max(needed[first:])


def _resident(state: SearchState) -> int:
    """Bytes of the living samples' keys and values that lie on the device."""
    if not state.cache or not state.cache.chunks or state.cache.chunks[0].keys[0].device.type != torch_device().type:
        return 0
    return state.samples * costs.cache_bytes(state.model, state.schedule, state.last_scale, state.cache.branches)


def put_cache(state: SearchState, policy: str) -> SearchState:
    """The state with its keys and values kept where they are, moved to the intermediate device, or dropped.

    Those of a finished state are dropped in any case: nothing reads them, and ComfyUI would hold them with the node's output.
    """
    if policy == "drop" or state.finished:
        return state.without_cache()
    if policy in ("keep", "float8") or state.cache is None:
        return state
    return state._replace(cache=state.cache.to(comfy.model_management.intermediate_device()))


# What is shown and what goes on ---------------------------------------------------------------------------------------


def shows_between() -> dict:
    """Schema keywords of a node that shows something in the middle of a graph; hosts before 0.17 know none."""
    return {"has_intermediate_output": True} if "has_intermediate_output" in io.Schema.__dataclass_fields__ else {}


# Progress and interrupt -----------------------------------------------------------------------------------------------


def check_interrupt() -> None:
    """Stop here if the user pressed stop."""
    comfy.model_management.throw_exception_if_processing_interrupted()


def shows_previews() -> bool:
    """Whether the user wants live previews: ComfyUI's setting "Live preview method", or its option --preview-method."""
    return comfy.cli_args.args.preview_method != comfy.cli_args.LatentPreviewMethod.NoPreviews


def say(text: str) -> None:
    """Show a line on the node that is running, where there is a page to show it on."""
    from comfy_execution.utils import get_executing_context
    from server import PromptServer

    context, server = get_executing_context(), getattr(PromptServer, "instance", None)
    if context is not None and server is not None:
        server.send_progress_text(text, context.node_id)


def nothing() -> Any:
    """An output that is not there; nodes that take it do not run, and nobody calls that an error."""
    return ExecutionBlocker(None)


class Progress:
    """The node's progress bar; every step checks for an interrupt and may show a picture and a line of words."""

    def __init__(self, total: int) -> None:
        self.total, self.done = total, 0
        self.bar = comfy.utils.ProgressBar(total)

    def step(self, picture: Image.Image | None = None, words: str = "") -> None:
        """One more piece of work is done."""
        check_interrupt()
        self.done += 1
        shown = None if picture is None else ("JPEG", picture, PREVIEW_SIDE)
        self.bar.update_absolute(self.done, self.total, shown)
        if words:
            say(words)
