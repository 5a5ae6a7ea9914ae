"""``python -m lab.benchmark.option_errors``: how far the options for memory and speed change what the bundled model does.

The logits of the final scale are compared at the same bits (so errors do not add up over scales), pictures at the same features.
What half precision does to rewards and extractors is told by `python -m lab.gpu --only parity`, also with --device cpu.
"""

import torch
from torch import Tensor

from ttsvar_core.decoding import decode, decoder_in
from ttsvar_core.infinity.cache import KVCache
from ttsvar_core.infinity.text import encode_prompt
from ttsvar_core.quantize import store_blocks_in_float8
from ttsvar_core.sampling import replay, sample
from ttsvar_core.state import SearchState, start
from ttsvar_core.weights import load_bundled

from .models import PROMPT

SAMPLES = 16
HALVES = (torch.bfloat16, torch.float16)


def last_logits(state: SearchState, cache: KVCache) -> Tensor:
    """Logits (P, L, Z, 2) of the scale after ``state``, given its bits and some cache of them."""
    model, scale = state.model, state.next_scale
    step = model.config.sampling.at(scale)
    with torch.inference_mode():
        text = state.text.branches(cache.branches)
        return model.transformer.forward_scale(state.features, scale, state.schedule, text, cache, step)[0]


def set_probability(logits: Tensor) -> Tensor:
    return torch.sigmoid(logits[..., 1] - logits[..., 0])


def main() -> int:
    """Print one line per option."""
    model, encoder = load_bundled()
    whole = sample(start(model, encode_prompt(encoder, PROMPT), SAMPLES, 0), len(model.schedule()) - 2)
    exact = set_probability(last_logits(whole, whole.cache))
    pictures = decode(whole)
    tiled = decode(whole, tile=48)
    print(f"float8 cache: probability of a bit changes by {_change(whole, whole.cache.in_float8(), exact)}")
    grey = float((tiled - pictures).abs().mean()) * 255
    print(f"tiled decode, 48 of 128 pixels: pixels change by {grey:.1f} grey levels on average")
    for dtype in HALVES:  # as a card decodes
        with torch.inference_mode():
            made = (decoder_in(model, torch.device("cpu"), dtype)(whole.features) + 1) / 2
        moved = (made.permute(0, 2, 3, 1) - pictures).abs() * 255
        print(f"decoding in {dtype}: pixels change by {moved.mean():.2f} grey levels on average, {moved.max():.1f} at most")
    store_blocks_in_float8(model)
    again = replay(whole.without_cache(), whole.cache.branches)
    print(f"float8 weights: probability of a bit changes by {_change(whole, again.cache, exact)}")
    return 0


def _change(state: SearchState, cache: KVCache, exact: Tensor) -> str:
    changed = (set_probability(last_logits(state, cache)) - exact).abs()
    return f"{float(changed.mean()):.4f} on average, {float(changed.max()):.3f} at most"


if __name__ == "__main__":
    raise SystemExit(main())
