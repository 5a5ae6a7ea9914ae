"""Does this tokenizer belong to that transformer?"""

import re
from collections.abc import Mapping
from typing import Any

from ..reading import UnusableFile

# The tokenizer files published for each number of bits per token.
_TOKENIZER_FOR_BITS = {
    16: "infinity_vae_d16.pth",
    24: "infinity_vae_d24.pth",
    32: "infinity_vae_d32reg.pth (for 2B) or infinity_vae_d32.pth",
    56: "infinity_vae_d56_f8_14_patchify.pth",
    64: "infinity_vae_d64.pth",
}
_PLAIN_D32 = re.compile(r"d32(?![-_]?reg)", re.IGNORECASE)
_PUBLISHED_TOKEN_PIXELS = 16


def check_bits(transformer: Mapping[str, Any], tokenizer: Mapping[str, Any], names: tuple[str, str]) -> None:
    """Refuse a tokenizer whose bits do not make up the transformer's tokens.

    ``names`` are the names of the transformer's and the tokenizer's file. Raises UnusableFile.
    """
    wanted, cell = transformer["bits_per_token"], tokenizer["codebook_dim"]
    if wanted in (cell, 4 * cell):
        return
    fitting = _TOKENIZER_FOR_BITS.get(wanted, f"a tokenizer of {wanted} bits per cell")
    raise UnusableFile(
        f"The tokenizer {names[1]} has {cell} bits per cell, the transformer {names[0]} wants {wanted} bits per token "
        f"({wanted} per cell, or {wanted / 4:g} with 2x2 patchify). Use {fitting}."
    )


def check_stride(config_stated: bool, transformer: Mapping[str, Any], tokenizer: Mapping[str, Any], name: str) -> None:
    """Without a configuration file, a token must cover 16x16 pixels as in all published models. Raises UnusableFile."""
    patchify = transformer["bits_per_token"] == 4 * tokenizer["codebook_dim"]
    pixels = tokenizer["patch_size"] * (2 if patchify else 1)
    if config_stated or pixels == _PUBLISHED_TOKEN_PIXELS:
        return
    fitting = _TOKENIZER_FOR_BITS.get(transformer["bits_per_token"], "the tokenizer it was trained with")
    raise UnusableFile(
        f"With the tokenizer {name} (stride {tokenizer['patch_size']}{', 2x2 patchify' if patchify else ''}) a token would "
        f"cover {pixels}x{pixels} pixels; published models have 16x16. Use {fitting}, or put a configuration file beside the "
        "transformer if this is a model of your own."
    )


def check_d32(transformer: Mapping[str, Any], transformer_name: str, tokenizer_name: str) -> None:
    """The trap of two tokenizers with the same shapes: 2B was trained with d32reg, and d32 gives bad images and no error.

    Only the name can tell, so a name that says d32 without reg is refused for a 2B transformer (32 layers of width 2048), and
    for any transformer whose own name says reg. Raises UnusableFile.
    """
    is_2b = (transformer["depth"], transformer["embed_dim"], transformer["bits_per_token"]) == (32, 2048, 32)
    named_reg = transformer["bits_per_token"] == 32 and re.search(r"(?<![a-z])reg(?![a-z])", transformer_name.lower())
    if (is_2b or named_reg) and _PLAIN_D32.search(tokenizer_name):
        raise UnusableFile(
            f"The transformer {transformer_name} was trained with infinity_vae_d32reg.pth, and {tokenizer_name} is by its name "
            "the other 32-bit tokenizer, d32: it has the same shapes, loads without complaint and gives bad images. Use "
            "infinity_vae_d32reg.pth (if this file is that one under another name, rename it)."
        )
