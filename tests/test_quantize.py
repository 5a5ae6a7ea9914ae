"""One-byte weights: how much smaller, and how far from exact."""

import pytest
import torch
from tiny_models import make_conditioning, make_tiny_model
from torch import nn

from ttsvar_core.infinity.cache import KVCache
from ttsvar_core.quantize import store_blocks_in_float8, store_in_float8
from ttsvar_core.sampling import sample
from ttsvar_core.state import start


def in_float8(linear):
    store_in_float8(linear)
    return linear


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_a_float8_layer_is_within_a_sixteenth_of_every_weight(dtype):
    torch.manual_seed(0)
    linear, x = nn.Linear(40, 24), torch.randn(5, 40)
    weight, exact = linear.weight.detach().clone(), linear(x)
    in_float8(linear)
    stored = linear.weight.float() * linear.step
    assert ((stored - weight).abs() <= weight.abs() / 16 + linear.step * 2**-9).all()
    assert (linear(x.to(dtype)).float() - exact).norm() / exact.norm() < 0.04


def test_a_float8_layer_that_was_left_elsewhere_computes_where_its_input_is():
    """A host short of memory may leave parameters behind."""
    out = in_float8(nn.Linear(40, 24))(torch.empty(5, 40, device="meta", dtype=torch.bfloat16))
    assert out.device.type == "meta" and out.dtype == torch.bfloat16


def test_a_hosts_layer_keeps_its_class_and_its_parameters():
    """The host finds its layer by what it hung on it, pages the parameters of one byte, and widens them itself."""

    class HostLinear(nn.Linear):
        streams = True

        def forward(self, x):
            return nn.functional.linear(x, self.weight.to(x), self.bias.to(x))

    layer, x = HostLinear(40, 24), torch.randn(5, 40)
    exact = layer(x)
    in_float8(layer)
    assert layer.streams and isinstance(layer, HostLinear) and not list(layer.buffers())
    assert {name: parameter.element_size() for name, parameter in layer.named_parameters()} == {"weight": 1, "bias": 4}
    assert 0 < (layer(x) - exact).norm() / exact.norm() < 0.04


def test_zeros_stay_zero():
    linear = nn.Linear(4, 2, bias=False)
    nn.init.zeros_(linear.weight)
    assert torch.equal(in_float8(linear)(torch.ones(1, 4)), torch.zeros(1, 2))


def first_logits(model):
    transformer, schedule = model.transformer, model.schedule()
    text = transformer.project_text(transformer.guidance_texts(make_conditioning()))
    return transformer.forward_scale(torch.zeros(2, 8, 6, 6), 0, schedule, text, KVCache(), model.config.sampling.at(0))[0]


def test_float8_blocks_are_a_quarter_of_the_bytes_and_their_logits_close():
    model = make_tiny_model()
    exact = first_logits(model)
    full = sum(p.numel() * p.element_size() for b in model.transformer.layers for p in b.parameters())
    store_blocks_in_float8(model)
    blocks = [t for b in model.transformer.layers for t in b.parameters()]
    assert not list(model.transformer.buffers())  # which a host would bring to the card at every load
    assert sum(t.numel() * t.element_size() for t in blocks) < 0.3 * full
    assert 0 < (first_logits(model) - exact).norm() / exact.norm() < 0.05
    assert sample(start(model, make_conditioning(), 2, 0), 4).finished
