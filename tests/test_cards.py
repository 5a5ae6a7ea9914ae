"""What a card is asked to do, tried without one: tensors that say they are on it but hold nothing."""

import pytest
import torch
from tiny_models import make_conditioning, make_tiny_model
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from ttsvar_core.bsq.bits import empty_features
from ttsvar_core.infinity.cache import KVCache

CARD = torch.device("meta")


class Crossings(TorchDispatchMode):
    """Notes every tensor that goes from the processor to the card."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        made = function(*args, **(kwargs or {}))
        came = next((a for a in args if isinstance(a, torch.Tensor)), None)
        if isinstance(made, torch.Tensor) and came is not None and (came.device.type, made.device.type) == ("cpu", "meta"):
            self.seen.append(f"{function} {tuple(made.shape)}")
        return made


def on_the_card(module):
    """The module with parameters that say they are on the card."""
    for part in module.modules():
        for name, parameter in part.named_parameters(recurse=False):
            setattr(part, name, nn.Parameter(torch.empty_like(parameter, device=CARD), requires_grad=False))
    return module


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_nothing_crosses_to_the_card_within_a_scale(dtype):
    """Neither positions, nor the number of the scale, nor which sample reads which keys; and all devices and types agree."""
    model = make_tiny_model()
    schedule, step, transformer = model.schedule(), model.config.sampling.at(0), model.transformer.in_precision(dtype)
    text = transformer.project_text(transformer.guidance_texts(make_conditioning())).to(CARD)
    transformer = on_the_card(transformer)
    with FakeTensorMode(allow_non_fake_inputs=True), torch.inference_mode():
        features, cache = empty_features(4, 8, schedule, False).to(CARD), KVCache()
        for scale in range(len(schedule)):
            rows = torch.tensor([3, 1, 1, 0])
            cache = cache.select(rows)
            with Crossings() as crossings:
                logits, chunk = transformer.forward_scale(features, scale, schedule, text, cache, step)
            assert crossings.seen == [] and logits.device == CARD and logits.dtype == torch.float32
            cache = cache.append(chunk)
