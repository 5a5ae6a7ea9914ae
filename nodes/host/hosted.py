"""Networks as the host takes them: built of its layers, in the precision its device has, behind the patchers it moves them by."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import comfy.model_management
import comfy.model_patcher
import comfy.ops
import torch

from ...ttsvar_core.image_model import ImageModel

FLOAT8 = "float8"
# What "auto" takes, the first that the device computes in, for the transformer and for the text encoder (as the published code has
# it: bfloat16, and float16 for T5). Whether the host says so stands beside each.
IMAGE_PRECISIONS = {torch.bfloat16: "should_use_bf16", torch.float16: "should_use_fp16"}
TEXT_PRECISIONS = {torch.float16: "should_use_fp16"}
REWARD_PRECISIONS = {torch.bfloat16: "should_use_bf16"}


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
    from ...ttsvar_core.compiled import check_compiler, compile_blocks
    from ...ttsvar_core.quantize import store_blocks_in_float8
    from ...ttsvar_core.weights import load_model

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
        model.config, model.transformer, model.tokenizer, model.fingerprint, model.foresight,
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
