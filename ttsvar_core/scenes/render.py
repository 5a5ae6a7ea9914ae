"""Pictures of the world: what a scene is, and an antialiased renderer."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy

from .grammar import SHAPES

PALETTE = numpy.array(
    [
        [0.86, 0.08, 0.10],
        [0.96, 0.47, 0.04],
        [0.99, 0.86, 0.10],
        [0.08, 0.60, 0.16],
        [0.06, 0.78, 0.86],
        [0.12, 0.20, 0.86],
        [0.58, 0.10, 0.72],
        [0.07, 0.07, 0.08],
    ],
    numpy.float32,
)
WORLD_SIDE = 128.0
REACH = {"circle": 1.0, "square": 0.9, "triangle": 1.4, "star": 1.4, "cross": 1.15, "heart": 1.13}  # farthest point, per radius
INNER_STAR = 0.5
CROSS_ARM = 0.42
HEART_SIDE = 0.66


class Scenes(NamedTuple):
    """A batch of scenes in world units (128 to a side): absent objects have shape -1."""

    shapes: numpy.ndarray  # (B, 7) int64
    colours: numpy.ndarray  # (B, 7) int64
    centres: numpy.ndarray  # (B, 7, 2) x, y
    radii: numpy.ndarray  # (B, 7)
    paints: numpy.ndarray  # (B, 7, 3) in [0, 1]
    background: numpy.ndarray  # (B, 3, 3) colour at the centre, change across x, change across y
    waves: numpy.ndarray  # (B, 4, 4) cycles across x and y, phase, amplitude: the background's soft texture


def direction(relation: str, offset: numpy.ndarray) -> numpy.ndarray:
    """Cosine between offsets (..., 2), y downwards, and the way a relation points."""
    x, y = {"left of": (-1, 0), "right of": (1, 0), "above": (0, -1), "below": (0, 1)}[relation]
    return (offset[..., 0] * x + offset[..., 1] * y) / numpy.maximum(numpy.linalg.norm(offset, axis=-1), 1e-6)


def shape_distance(shape: int, x: numpy.ndarray, y: numpy.ndarray, radius: numpy.ndarray) -> numpy.ndarray:
    """Signed distance (negative inside) of points relative to a shape's centre, y downwards."""
    name = SHAPES[shape]
    if name == "circle":
        return numpy.hypot(x, y) - radius
    if name == "square":
        return numpy.maximum(numpy.abs(x), numpy.abs(y)) - REACH[name] * radius
    if name == "cross":
        small, big = numpy.minimum(numpy.abs(x), numpy.abs(y)), numpy.maximum(numpy.abs(x), numpy.abs(y))
        return numpy.maximum(small - CROSS_ARM * radius, big - REACH[name] * radius)
    if name == "triangle":
        slant = math.sqrt(0.75) * numpy.abs(x) - 0.5 * y
        return numpy.maximum(slant, y) - 0.5 * REACH[name] * radius
    if name == "star":
        return _star(x, y, REACH[name] * radius)
    side = HEART_SIDE * radius  # a square on its corner, and a disc on each of its upper sides
    y = y - 0.13 * radius
    square = (numpy.abs(x) + numpy.abs(y)) / math.sqrt(2) - side
    disc = numpy.hypot(numpy.abs(x) - side / math.sqrt(2), y + side / math.sqrt(2)) - side
    return numpy.minimum(square, disc)


def _star(x: numpy.ndarray, y: numpy.ndarray, outer: numpy.ndarray) -> numpy.ndarray:
    """Five points, the first upwards: every tenth of the star is bounded by the line from a tip to an inner corner."""
    length, tenth = numpy.hypot(x, y), math.pi / 5
    turn = numpy.abs((numpy.arctan2(x, -y) + tenth) % (2 * tenth) - tenth)
    inner = INNER_STAR * outer
    corner_x, corner_y = inner * math.cos(tenth) - outer, inner * math.sin(tenth)
    size = numpy.hypot(corner_x, corner_y)
    return (corner_y * (length * numpy.cos(turn) - outer) - corner_x * length * numpy.sin(turn)) / size


def _ticks(side: int) -> numpy.ndarray:
    return (numpy.arange(side, dtype=numpy.float32) + 0.5) * (WORLD_SIDE / side)


def render(scenes: Scenes, side: int = 128) -> numpy.ndarray:
    """Paint scenes, antialiased over one pixel: (B, side, side, 3) float32 in [0, 1]."""
    ticks = _ticks(side) / WORLD_SIDE
    across = (ticks - 0.5)[None, None, :, None]
    centre, over_x, over_y = (scenes.background[:, i, None, None, :] for i in range(3))
    images = centre + over_x * across + over_y * across.swapaxes(1, 2)
    for row, waves in enumerate(scenes.waves):
        for over_x, over_y, phase, height in waves[waves[:, 3] > 0]:
            texture = numpy.sin(math.tau * (over_x * ticks[None] + over_y * ticks[:, None]) + phase) * height
            images[row] += texture[..., None].astype(numpy.float32)
    for row, place in zip(*numpy.nonzero(scenes.shapes >= 0), strict=True):
        top, left, cover = cover_of(scenes, row, place, side)
        part = images[row, top : top + cover.shape[0], left : left + cover.shape[1]]
        part += cover[..., None] * (scenes.paints[row, place] - part)
    return images.clip(0, 1)


def cover_of(scenes: Scenes, row: int, place: int, side: int, grown: float = 0.0) -> tuple[int, int, numpy.ndarray]:
    """How much of each pixel one object covers, grown by some world units: top and left of a window, and the cover in it."""
    pixel, ticks = WORLD_SIDE / side, _ticks(side)
    shape, radius = int(scenes.shapes[row, place]), scenes.radii[row, place]
    x, y = scenes.centres[row, place]
    reach = 1.5 * radius + grown + pixel
    left, right, top, bottom = (int(v) for v in numpy.searchsorted(ticks, [x - reach, x + reach, y - reach, y + reach]))
    distance = shape_distance(shape, ticks[None, left:right] - x, ticks[top:bottom, None] - y, radius) - grown
    return top, left, numpy.clip(0.5 - distance / pixel, 0, 1).astype(numpy.float32)
