"""Keys and values of finished scales: append-only, shared between states, selected by index.

The cache is a value. Appending makes a longer tuple, selecting composes row indices; neither copies keys or values, and no
older cache ever changes. ``compacted`` copies only the rows still in use, and only where that makes the storage smaller.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor


class Chunk(NamedTuple):
    """Keys and values of one scale: per layer (G, P, H, L, D). ``rows`` (P',) says which stored sample each living one uses
    (None: each its own)."""

    keys: tuple[Tensor, ...]
    values: tuple[Tensor, ...]
    rows: Tensor | None = None

    @property
    def stored(self) -> int:
        """Number of samples whose keys and values are stored."""
        return self.keys[0].shape[1]

    @property
    def samples(self) -> int:
        """Number of samples that read this chunk."""
        return self.stored if self.rows is None else len(self.rows)

    def layer(self, index: int) -> tuple[Tensor, Tensor]:
        """Keys and values (G, P, H, L, D) of one layer, a row per living sample."""
        pair = self.keys[index], self.values[index]
        return pair if self.rows is None else tuple(_take(side, self.rows) for side in pair)

    def mapped(self, function: Callable[[Tensor], Tensor]) -> Chunk:
        """The chunk with ``function`` of everything stored, (G, P, H, L, D) each."""
        keys, values = (tuple(map(function, side)) for side in (self.keys, self.values))
        return self._replace(keys=keys, values=values)

    def select(self, ancestors: Tensor) -> Chunk:
        """The same storage read by other samples; ``ancestors`` lie where keys and values do, so that no layer moves them."""
        return self._replace(rows=ancestors if self.rows is None else self.rows[ancestors])

    def compacted(self) -> Chunk:
        """Only the rows in use, if that is fewer than are stored; otherwise the chunk itself."""
        if self.rows is None:
            return self
        used, rows = torch.unique(self.rows, return_inverse=True)
        least = self if len(used) == self.stored else self.mapped(lambda t: _take(t, used))._replace(rows=rows)
        return least._replace(rows=None) if least.rows.tolist() == list(range(least.stored)) else least

    def to(self, device: torch.device | str) -> Chunk:
        """The chunk on a device; a copy to another one takes along only the rows in use."""
        if self.keys[0].device == torch.device(device):
            return self
        used = self.compacted().mapped(lambda t: t.to(device))
        return used if used.rows is None else used._replace(rows=used.rows.to(device))

    def in_float8(self) -> Chunk:
        """The chunk in one byte per number (e4m3: 4 bits of exponent, 3 of fraction). Keys are unit vectors, so no scale is
        needed; readers cast back to their own precision."""
        return self.mapped(lambda t: t.to(torch.float8_e4m3fn))

    def first_branch(self) -> Chunk:
        """The conditional branch alone, copied out so that the other can go."""
        return self.mapped(lambda t: t[:1].clone())

    @property
    def nbytes(self) -> int:
        """Bytes of the stored keys and values."""
        return sum(t.numel() * t.element_size() for t in (*self.keys, *self.values))

    def __repr__(self) -> str:
        return f"Chunk(tokens={self.keys[0].shape[3]}, samples={self.samples}, stored={self.stored})"


def _take(stored: Tensor, rows: Tensor) -> Tensor:
    """Rows of axis 1; one-byte floats have no kernels of their own for this and are moved as plain bytes."""
    if stored.element_size() > 1:
        return stored.index_select(1, rows)
    return stored.view(torch.uint8).index_select(1, rows).view(stored.dtype)


class KVCache(NamedTuple):
    """Keys and values of the finished scales, one chunk per scale. The chunk of the last scale is never made."""

    chunks: tuple[Chunk, ...] = ()

    def append(self, chunk: Chunk) -> KVCache:
        return KVCache((*self.chunks, chunk))

    def select(self, ancestors: Tensor) -> KVCache:
        """The cache of the samples that descend from ``ancestors`` (P',); copies no keys or values."""
        if not self.chunks:
            return self
        ancestors = ancestors.to(self.chunks[0].keys[0].device)
        return KVCache(tuple(chunk.select(ancestors) for chunk in self.chunks))

    def layer(self, index: int) -> tuple[Tensor, ...]:
        """Chunk by chunk the keys, then the values, (G, P, H, L, D) each, of one layer."""
        pairs = [chunk.layer(index) for chunk in self.chunks]
        return tuple(k for k, _ in pairs), tuple(v for _, v in pairs)

    def to(self, device: torch.device | str) -> KVCache:
        return KVCache(tuple(chunk.to(device) for chunk in self.chunks))

    def in_float8(self) -> KVCache:
        """The cache in one byte per number."""
        return KVCache(tuple(chunk.in_float8() for chunk in self.chunks))

    def first_branch(self) -> KVCache:
        """The cache after guidance has ended for good: of the conditional branch alone."""
        return KVCache(tuple(chunk.first_branch() for chunk in self.chunks))

    @property
    def branches(self) -> int:
        """Number of guidance branches stored (0 if nothing is)."""
        return self.chunks[0].keys[0].shape[0] if self.chunks else 0

    @property
    def nbytes(self) -> int:
        """Bytes of the stored keys and values."""
        return sum(chunk.nbytes for chunk in self.chunks)

    def __repr__(self) -> str:
        return f"KVCache({len(self.chunks)} scales, {self.nbytes / 2**20:.1f} MiB)"


def compact(chunks: list[Chunk]) -> KVCache:
    """Compact a cache chunk by chunk, emptying ``chunks`` as it goes.

    Where the caller holds no other reference, each chunk's old storage is freed before the next is copied, so the peak is one
    chunk above the larger of before and after.
    """
    return KVCache(tuple(chunks.pop(0).compacted() for _ in range(len(chunks))))


def merge(parts: list[Chunk]) -> Chunk:
    """One chunk from the chunks of consecutive groups of samples."""
    if len(parts) == 1:
        return parts[0]
    layers = range(len(parts[0].keys))
    keys = tuple(torch.cat([part.keys[i] for part in parts], dim=1) for i in layers)
    values = tuple(torch.cat([part.values[i] for part in parts], dim=1) for i in layers)
    return Chunk(keys, values)
