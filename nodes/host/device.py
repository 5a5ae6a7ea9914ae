"""Who lies on the device when: networks brought there with room for what they make, keys and values kept or moved away."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import comfy.model_management
import torch

from ...ttsvar_core import footprint
from .hosted import HostedModel, torch_device
from .page import check_interrupt

if TYPE_CHECKING:
    from ...ttsvar_core.config import Sampling
    from ...ttsvar_core.image_model import ImageModel
    from ...ttsvar_core.scales import ScaleSchedule
    from ...ttsvar_core.search.plan import Plan
    from ...ttsvar_core.state import SearchState


def load_transformer(model: HostedModel, memory: float = 0, preview: bool = False) -> None:
    """Bring the transformer to its device, leaving ``memory`` bytes for keys, values and activations.

    With ``preview`` the tokenizer as well: brought first and named beside it, it stays where both do not fit whole, and the
    transformer's layers are streamed instead.
    """
    from ...ttsvar_core.inspect.preview import largest_cells

    patchers = [model.patcher]
    if preview:
        memory = max(memory, footprint.decoding_bytes(model.config.tokenizer, (largest_cells(model),) * 2))
        load_tokenizer(model, memory)
        patchers.append(model.tokenizer_patcher)
    comfy.model_management.load_models_gpu(patchers, memory_required=memory)
    _settle(model.transformer, model.patcher.load_device)


def load_tokenizer(model: HostedModel, memory: float = 0) -> None:
    """Bring the tokenizer to its device."""
    comfy.model_management.load_models_gpu([model.tokenizer_patcher], memory_required=memory, force_full_load=True)


@contextmanager
def running(thing: Any, images: torch.Tensor | None = None) -> Iterator[None]:
    """Networks of a hosted thing on their device, with room to look at ``images``; every forward pass of theirs first looks whether
    the user wants to stop."""
    patchers = getattr(thing, "patchers", ())
    if patchers:
        room = 0 if images is None else footprint.looking_bytes(len(images))
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

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._inner, name)
        if name not in ("score", "explain", "describe", "foretell"):
            return found

        def looking(seen: Any, *prompt: str) -> Any:
            with running(self._inner, images=None if name == "foretell" else seen):
                return found(seen, *prompt)

        return looking


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
    needed = _needed(state.model, state.schedule, sampling, lambda scale: state.samples)
    return max(0, max(needed[state.next_scale : through + 1], default=0) - _resident(state))


def replaying_memory(state: SearchState) -> int:
    """Bytes that bringing back a state's keys and values under the prompt needs beside the weights."""
    return footprint.sampling_bytes(state.model, state.schedule, state.last_scale, state.samples, 1)


def plan_memory(model: HostedModel, plan: Plan, schedule: ScaleSchedule, sampling: Sampling, first: int = 0) -> int:
    """Bytes that the dearest of a plan's scales from ``first`` on needs beside the weights."""
    return max(_needed(model, schedule, sampling, plan.running)[first:])


def _needed(model: ImageModel, schedule: ScaleSchedule, sampling: Sampling, running: Callable[[int], int]) -> list[int]:
    """Bytes that each scale needs beside the weights for the samples that run it."""
    branches = enumerate(sampling.branches(len(schedule)))
    return [footprint.sampling_bytes(model, schedule, scale, running(scale), count) for scale, count in branches]


def _resident(state: SearchState) -> int:
    """Bytes of the living samples' keys and values that lie on the device."""
    if not state.cache or not state.cache.chunks or state.cache.chunks[0].keys[0].device.type != torch_device().type:
        return 0
    return state.samples * footprint.cache_bytes(state.model, state.schedule, state.last_scale, state.cache.branches)


def put_cache(state: SearchState, policy: str) -> SearchState:
    """The state with its keys and values kept where they are, moved to the intermediate device, or dropped.

    Those of a finished state are dropped in any case: nothing reads them, and ComfyUI would hold them with the node's output.
    """
    if policy == "drop" or state.finished:
        return state.without_cache()
    if policy in ("keep", "float8") or state.cache is None:
        return state
    return state._replace(cache=state.cache.to(comfy.model_management.intermediate_device()))
