"""Prompts to token ids for BERT's and CLIP's text towers, from vocabulary files and nothing else."""

from __future__ import annotations

import html
import logging
import zlib
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from ..weights.reading import MAX_CONFIGURATION, read_bytes, reading
from .files import MissingWeights

log = logging.getLogger(__name__)

OTHERWISE = "Name no folder to use the one shipped."
SHIPPED = Path(__file__).parent / "vocab"
IMAGE_REWARD_TOKENS = ("[DEC]", "[ENC]")
"""BLIP's additions to BERT's vocabulary; as 30522 and 30523 they follow its 30,522 word pieces."""
BERT_MARKS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
CLIP_START, CLIP_END = "<|startoftext|>", "<|endoftext|>"
CLIP_MERGES = 49152 - 256 - 2
"""Merges CLIP uses of its byte-pair file: 49,152 entries less the bytes and the two markers (openai/CLIP)."""
CLIP_WORDS = r"<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"
"""CLIP's rule for what is one word before byte pairs are merged (openai/CLIP)."""


class PromptTokenizer(NamedTuple):
    """A tokenizer with the length its text tower reads.

    name: whose vocabulary it is. unescape: whether HTML entities are resolved first, as CLIP's authors did.
    """

    name: str
    tokenizer: object
    length: int
    unescape: bool = False

    def __call__(self, prompt: str) -> Tensor:
        """(1, T) token ids of a prompt, T as short as it can be; a longer prompt is cut, with a warning."""
        text = html.unescape(html.unescape(prompt)) if self.unescape else prompt
        encoding = self.tokenizer.encode(text.strip())
        if encoding.overflowing:
            cut = sum(len(part.ids) for part in encoding.overflowing)
            log.warning("%s reads %d tokens; the end of the prompt (%d tokens) is not seen", self.name, self.length, cut)
        return torch.tensor([encoding.ids])

    def __repr__(self) -> str:
        return f"PromptTokenizer({self.name}, {self.length} tokens)"

    @property
    def size(self) -> int:
        """Entries of the vocabulary: the text tower must have at least as many embeddings."""
        return self.tokenizer.get_vocab_size(with_added_tokens=True)


def bert_tokenizer(folder: str | Path | None = None, length: int = 35) -> PromptTokenizer:
    """BERT's uncased word pieces with ImageReward's two extra tokens; the package reads 35 tokens, so does the default.

    folder: one with BERT's vocab.txt, or None for the vocabulary that is shipped. Raises FileNotFoundError.
    """
    from tokenizers import Tokenizer, normalizers, pre_tokenizers, processors
    from tokenizers.models import WordPiece

    path = _vocabulary(folder, ("vocab.txt",), "BERT", "bert_uncased.txt")
    with reading(path, OTHERWISE):
        words = read_bytes(path).decode("utf-8").splitlines()
        if lost := sorted({*BERT_MARKS} - {*words}):
            raise ValueError(f"it lacks {', '.join(lost)} and is no vocabulary of BERT's")
    tokenizer = Tokenizer(WordPiece({word: index for index, word in enumerate(words)}, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.add_special_tokens([*BERT_MARKS, *IMAGE_REWARD_TOKENS])
    tokenizer.post_processor = processors.BertProcessing(
        ("[SEP]", tokenizer.token_to_id("[SEP]")), ("[CLS]", tokenizer.token_to_id("[CLS]"))
    )
    tokenizer.enable_truncation(length)
    return PromptTokenizer("bert-uncased", tokenizer, length)


def clip_tokenizer(folder: str | Path | None = None, length: int = 77) -> PromptTokenizer:
    """CLIP's byte pairs, cut to `length` tokens with start and end marker, not padded (the text tower is causal).

    folder: one with CLIP's merges.txt or bpe_simple_vocab_16e6.txt.gz, or None for the merges that are shipped.
    Raises FileNotFoundError.
    """
    from tokenizers import Regex, Tokenizer, normalizers, pre_tokenizers, processors
    from tokenizers.models import BPE

    path = _vocabulary(folder, ("merges.txt", "bpe_simple_vocab_16e6.txt.gz"), "CLIP", "clip_merges.txt")
    with reading(path, OTHERWISE):
        vocabulary, merges = _clip_vocabulary(_unpacked(path))
        tokenizer = Tokenizer(BPE(vocabulary, merges, end_of_word_suffix="</w>", unk_token=CLIP_END))
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.NFC(), normalizers.Replace(Regex(r"\s+"), " "), normalizers.Lowercase()]
    )
    words = pre_tokenizers.Split(Regex(CLIP_WORDS), behavior="removed", invert=True)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([words, pre_tokenizers.ByteLevel(add_prefix_space=False)])
    start, end = (tokenizer.token_to_id(token) for token in (CLIP_START, CLIP_END))
    tokenizer.post_processor = processors.BertProcessing((CLIP_END, end), (CLIP_START, start))
    tokenizer.enable_truncation(length)
    return PromptTokenizer("clip", tokenizer, length, unescape=True)


@lru_cache(maxsize=2)
def _clip_vocabulary(raw: bytes) -> tuple[dict[str, int], list[tuple[str, str]]]:
    """CLIP's entries by id: the bytes, the bytes that end a word, the merges, the two markers."""
    from tokenizers.pre_tokenizers import ByteLevel

    lines = raw.decode("utf-8").split("\n")[1 : CLIP_MERGES + 1]
    merges = [(first, second) for first, second in (line.split() for line in lines)]
    letters = _byte_letters()
    if set(letters) != set(ByteLevel.alphabet()):
        raise ValueError("the tokenizers library maps bytes to other letters than CLIP does; install tokenizers>=0.13")
    entries = letters + [letter + "</w>" for letter in letters] + ["".join(pair) for pair in merges]
    return {entry: index for index, entry in enumerate([*entries, CLIP_START, CLIP_END])}, merges


def _unpacked(path: Path) -> bytes:
    raw = read_bytes(path)
    return zlib.decompressobj(zlib.MAX_WBITS | 16).decompress(raw, MAX_CONFIGURATION) if path.suffix == ".gz" else raw


def _byte_letters() -> list[str]:
    """One printable letter per byte, in CLIP's order: bytes that print stand for themselves and come first (GPT-2)."""
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = len(set(range(256)) - set(printable))
    return [chr(byte) for byte in printable] + [chr(256 + index) for index in range(others)]


def _vocabulary(folder: str | Path | None, names: tuple[str, ...], whose: str, shipped: str) -> Path:
    if folder is None:
        return SHIPPED / shipped
    for name in names:
        if (path := Path(folder) / name).exists():
            return path
    raise MissingWeights(f"{folder} holds no {whose} vocabulary: expected {' or '.join(names)}. {OTHERWISE}")
