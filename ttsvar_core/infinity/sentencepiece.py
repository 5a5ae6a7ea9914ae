"""Read T5's ``spiece.model`` without the sentencepiece and protobuf packages.

The file is a protobuf message (source: sentencepiece_model.proto): field 1 repeats the pieces (text, score, type), field 3 holds
the normaliser with its character map.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from ..weights.reading import read_bytes

if TYPE_CHECKING:
    from tokenizers import Tokenizer

_MAX_BYTES = 2 * 2**20  # T5's has 0.8 MB
_PIECES, _NORMALISER = 1, 3  # fields of the model
_TEXT, _SCORE, _TYPE = 1, 2, 3  # fields of a piece
_CHARACTER_MAP = 2  # field of the normaliser
_UNKNOWN = 2  # type of the piece that stands for anything else
_EXTRA_MARKS = 100  # <extra_id_99> ... <extra_id_0>, which T5 adds behind the pieces
_SPACE = "\u2581"  # sentencepiece writes a space as this


def read_sentencepiece(path: Path) -> Tokenizer:
    """The tokenizer in a T5 ``spiece.model``. Raises ValueError if the file is not such a model."""
    from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

    parts = list(_fields(read_bytes(path, _MAX_BYTES)))
    pieces = [dict(_fields(piece)) for field, piece in parts if field == _PIECES]
    vocabulary = [(piece[_TEXT].decode("utf-8"), piece.get(_SCORE, 0.0)) for piece in pieces]
    unknown = next((i for i, piece in enumerate(pieces) if piece.get(_TYPE) == _UNKNOWN), None)
    words = [word for word, _ in vocabulary]
    if unknown is None or "</s>" not in words:
        raise ValueError(f"{path.name} has {len(pieces)} pieces and no marks for unknown and end; it is no T5 vocabulary")
    if not all(math.isfinite(score) for _, score in vocabulary):
        raise ValueError("it has scores that are no numbers")
    vocabulary += [(f"<extra_id_{i}>", 0.0) for i in reversed(range(_EXTRA_MARKS))]
    tokenizer = Tokenizer(models.Unigram(vocabulary, unk_id=unknown, byte_fallback=False))
    normaliser = next((dict(_fields(message)) for field, message in parts if field == _NORMALISER), {})
    steps = [normalizers.Precompiled(normaliser[_CHARACTER_MAP])] if normaliser.get(_CHARACTER_MAP) else []
    steps += [normalizers.Strip(), normalizers.Replace(Regex(" {2,}"), " ")]
    tokenizer.normalizer = normalizers.Sequence(steps)
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(replacement=_SPACE, prepend_scheme="always")
    tokenizer.decoder = decoders.Metaspace(replacement=_SPACE, prepend_scheme="always")
    tokenizer.post_processor = processors.TemplateProcessing(
        single="$A </s>", special_tokens=[("</s>", words.index("</s>"))]
    )
    return tokenizer


def _fields(message: bytes) -> Iterator[tuple[int, bytes | int | float]]:
    """The fields of a protobuf message: number and value. Raises ValueError if it is none."""
    position = 0
    while position < len(message):
        key, position = _varint(message, position)
        wire = key & 7
        if wire == 0:
            value, position = _varint(message, position)
        elif wire == 2:
            size, position = _varint(message, position)
            value, position = message[position : position + size], position + size
        elif wire == 5:
            value, position = struct.unpack("<f", message[position : position + 4])[0], position + 4
        elif wire == 1:
            value, position = struct.unpack("<d", message[position : position + 8])[0], position + 8
        else:
            raise ValueError(f"no protobuf message: wire type {wire} at byte {position}")
        if position > len(message):
            raise ValueError("the file is truncated")
        yield key >> 3, value


def _varint(message: bytes, position: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        if position >= len(message) or shift > 63:
            raise ValueError("the file is truncated or no protobuf message")
        byte = message[position]
        value |= (byte & 127) << shift
        position, shift = position + 1, shift + 7
        if byte < 128:
            return value, position
