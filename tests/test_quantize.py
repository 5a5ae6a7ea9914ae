"""One-byte weights: how much smaller, and how far from exact."""

import torch
from tiny_models import make_conditioning, make_tiny_model
from torch import nn

from ttsvar_core.infinity.cache import KVCache
from ttsvar_core.quantize import Float8Linear, store_blocks_in_float8
from ttsvar_core.sampling import sample
from ttsvar_core.search.state import start


def test_a_float8_layer_is_within_a_sixteenth_of_every_weight():
    torch.manual_seed(0)
    linear = nn.Linear(40, 24)
    small = Float8Linear(linear)
    stored = small.weight.float() * small.weight_scale
    assert ((stored - linear.weight).abs() <= linear.weight.abs() / 16 + small.weight_scale * 2**-9).all()
    x = torch.randn(5, 40)
    assert ((small(x) - linear(x)).norm() / linear(x).norm()) < 0.04


def test_a_float8_layer_that_was_left_elsewhere_computes_where_its_input_is():
    """A host short of memory moves parameters only, and this layer has none."""
    layer = Float8Linear(nn.Linear(40, 24))
    out = layer(torch.empty(5, 40, device="meta", dtype=torch.bfloat16))
    assert out.device.type == "meta" and out.dtype == torch.bfloat16 and not list(layer.parameters())


def test_a_row_of_zeros_stays_zero():
    linear = nn.Linear(4, 2, bias=False)
    nn.init.zeros_(linear.weight)
    assert torch.equal(Float8Linear(linear)(torch.ones(1, 4)), torch.zeros(1, 2))


def first_logits(model):
    transformer, schedule = model.transformer, model.schedule()
    text = transformer.project_text(transformer.guidance_texts(make_conditioning()))
    return transformer.forward_scale(torch.zeros(2, 8, 6, 6), 0, schedule, text, KVCache(), model.config.sampling.at(0))[0]


def test_float8_blocks_are_a_quarter_of_the_bytes_and_their_logits_close():
    model = make_tiny_model()
    exact = first_logits(model)
    full = sum(p.numel() * p.element_size() for b in model.transformer.layers for p in b.parameters())
    store_blocks_in_float8(model)
    blocks = [t for b in model.transformer.layers for t in (*b.parameters(), *b.buffers())]
    assert sum(t.numel() * t.element_size() for t in blocks) < 0.3 * full
    assert 0 < (first_logits(model) - exact).norm() / exact.norm() < 0.05
    assert sample(start(model, make_conditioning(), 2, 0), 4).finished
