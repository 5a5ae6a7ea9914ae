"""Operations of the image model, from shapes alone. A multiply and an add are two; what `costs` says of counting holds here."""

import math

from .config import ForesightConfig, TokenizerConfig, TransformerConfig
from .scales import Grid, ScaleSchedule


def scale_flops(
    sizes: TransformerConfig, schedule: ScaleSchedule, scale: int, samples: int, branches: int, text_tokens: int
) -> int:
    """Operations of ``Infinity.forward_scale`` for ``samples`` samples in ``branches`` guidance branches.

    Per token and layer 12 C^2 + 4 C F in the linear layers (queries, keys, values and output of self-attention, query and output
    of cross-attention, two feed-forward layers) and 4 C per attended token. The branches share the embedding of their input.
    """
    width, tokens = sizes.embed_dim, samples * schedule.tokens[scale]
    attended = sum(schedule.tokens[: scale + 1]) + text_tokens
    layers = sizes.depth * tokens * (12 * width**2 + 4 * width * sizes.mlp_dim + 4 * width * attended)
    head = 4 * width * (tokens * sizes.bits_per_token + width)
    return branches * (layers + head) + (2 * tokens * width * sizes.bits_per_token if scale else 0)


def text_flops(sizes: TransformerConfig, text_tokens: int) -> int:
    """Operations of ``Infinity.project_text`` for a prompt and its negative, for all layers."""
    width, channels = sizes.embed_dim, sizes.text_channels
    per_token = 6 * channels * width + 2 * width**2 + sizes.depth * 4 * width**2 + 4 * width
    return 2 * (text_tokens * per_token + 14 * width**2)


def decoder_flops(sizes: TokenizerConfig, cells: Grid) -> int:
    """Operations of decoding one picture whose features lie on ``cells``."""
    area, width = math.prod(cells), sizes.base_ch * sizes.ch_mult[-1]
    total = area * (_conv(sizes.codebook_dim, width) + 4 * _conv(width, width))
    for level in range(len(sizes.ch_mult) - 1, -1, -1):
        before, width = width, sizes.base_ch * sizes.ch_mult[level]
        total += area * _blocks(before, width, sizes.num_res_blocks + 1)
        if sizes.upsamples(level):
            area *= 4
            total += area * _conv(width, width)
    return total + area * _conv(width, 3)


def foresight_flops(sizes: ForesightConfig, transformer: TransformerConfig, cells: Grid) -> int:
    """Operations of foretelling one sample's final features on ``cells``."""
    features, width = transformer.codebook_dim, sizes.width
    seen = features + len(sizes.layers) * transformer.embed_dim
    blocks = sizes.depth * (_conv(width, width) + _conv(width, width, 1))
    return math.prod(cells) * (_conv(seen, width, 1) + blocks + _conv(width, features, 1))


def _conv(channels_in: int, channels_out: int, side: int = 3) -> int:
    return 2 * side**2 * channels_in * channels_out


def _blocks(before: int, width: int, count: int) -> int:
    """Residual blocks of one resolution, per cell; the first changes the width."""
    return _conv(before, width) + (2 * count - 1) * _conv(width, width) + (before != width) * _conv(before, width, 1)
