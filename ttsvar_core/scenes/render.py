"""Pictures of the scene world: where objects go, and an antialiased renderer for whole batches at once."""

from __future__ import annotations

from typing import NamedTuple

import numpy

from .grammar import COLOURS, SHAPES, Noun, ScenePrompt, combination_split

PALETTE = numpy.array(
    [
        [0.86, 0.10, 0.10],
        [0.08, 0.60, 0.16],
        [0.12, 0.20, 0.86],
        [0.96, 0.82, 0.06],
        [0.58, 0.10, 0.76],
        [0.06, 0.76, 0.86],
    ],
    numpy.float32,
)
PLACES = 4
CELL_CENTRES = numpy.array([[16.0, 16.0], [48.0, 16.0], [16.0, 48.0], [48.0, 48.0]], numpy.float32)
WORLD_SIDE = 64.0
RADII = (8.0, 10.0)
REACH = {"circle": 1.0, "square": 0.9, "triangle": 1.3, "diamond": 1.25}
TRIANGLE_HALF_HEIGHT = 1.15
MAX_JITTER = 3.0
CELL_REACH = 14.5
RELATED_CELLS = {
    "left of": ((0, 1), (2, 3)),
    "right of": ((1, 0), (3, 2)),
    "above": ((0, 2), (1, 3)),
    "below": ((2, 0), (3, 1)),
}


class Scenes(NamedTuple):
    """A batch of scenes in world units (64 to a side): absent objects have shape -1."""

    shapes: numpy.ndarray  # (B, 4) int64
    colours: numpy.ndarray  # (B, 4) int64
    centres: numpy.ndarray  # (B, 4, 2) x, y
    radii: numpy.ndarray  # (B, 4)
    paints: numpy.ndarray  # (B, 4, 3) in [0, 1]
    background: numpy.ndarray  # (B, 3, 3) colour at the centre, change across x, change across y


def sample_scenes(prompts: list[ScenePrompt], generator: numpy.random.Generator) -> Scenes:
    """Draw one scene for each prompt, free in everything the prompt leaves open.

    A scene drawn for a training prompt never shows a held-out combination, whatever the prompt leaves open.
    """
    batch = len(prompts)
    shapes = numpy.full((batch, PLACES), -1, numpy.int64)
    colours = numpy.zeros((batch, PLACES), numpy.int64)
    centres = numpy.zeros((batch, PLACES, 2), numpy.float32)
    radii = generator.uniform(*RADII, (batch, PLACES)).astype(numpy.float32)
    for row, prompt in enumerate(prompts):
        objects = _painted(prompt, generator)
        cells = _cells(prompt, len(objects), generator)
        for place, (noun, cell) in enumerate(zip(objects, cells, strict=True)):
            shapes[row, place] = SHAPES.index(noun.shape)
            colours[row, place] = COLOURS.index(noun.colour)
            slack = min(MAX_JITTER, CELL_REACH - REACH[noun.shape] * radii[row, place])
            centres[row, place] = CELL_CENTRES[cell] + generator.uniform(-slack, slack, 2)
    paints = PALETTE[colours] + generator.uniform(-0.03, 0.03, (batch, PLACES, 3)).astype(numpy.float32)
    background = numpy.empty((batch, 3, 3), numpy.float32)
    background[:, 0] = generator.uniform(0.88, 0.97, (batch, 1))
    background[:, 1:] = generator.uniform(-0.04, 0.04, (batch, 2, 1))
    return Scenes(shapes, colours, centres, radii, paints.clip(0, 1), background)


def _painted(prompt: ScenePrompt, generator: numpy.random.Generator) -> list[Noun]:
    while True:
        free = COLOURS[generator.integers(len(COLOURS))] if prompt.count > 1 else None
        objects = [
            noun if noun.colour else Noun(noun.shape, free or COLOURS[generator.integers(len(COLOURS))])
            for noun in prompt.objects
        ]
        if prompt.split != "train" or combination_split(tuple(objects)) == "train":
            return objects


def _cells(prompt: ScenePrompt, count: int, generator: numpy.random.Generator) -> tuple[int, ...]:
    if prompt.relation:
        options = RELATED_CELLS[prompt.relation]
        return options[generator.integers(len(options))]
    return tuple(generator.permutation(PLACES)[:count].tolist())


def shape_distance(shape: int, x: numpy.ndarray, y: numpy.ndarray, radius: numpy.ndarray) -> numpy.ndarray:
    """Signed distance (negative inside) of points relative to the centre of a shape's bounding box, y downwards."""
    name = SHAPES[shape]
    if name == "circle":
        return numpy.hypot(x, y) - radius
    if name == "square":
        return numpy.maximum(numpy.abs(x), numpy.abs(y)) - REACH[name] * radius
    if name == "diamond":
        return (numpy.abs(x) + numpy.abs(y) - REACH[name] * radius) / numpy.sqrt(2.0)
    half, height = REACH[name] * radius, TRIANGLE_HALF_HEIGHT * radius
    side = (2 * height * numpy.abs(x) - half * (y + height)) / numpy.sqrt(4 * height**2 + half**2)
    return numpy.maximum(y - height, side)


def render(scenes: Scenes, side: int = 64) -> numpy.ndarray:
    """Paint scenes, antialiased over one pixel: (B, side, side, 3) float32 in [0, 1]."""
    pixel = WORLD_SIDE / side
    ticks = (numpy.arange(side, dtype=numpy.float32) + 0.5) * pixel
    across = (ticks / WORLD_SIDE - 0.5)[None, None, :, None]
    centre, over_x, over_y = (scenes.background[:, i, None, None, :] for i in range(3))
    images = centre + over_x * across + over_y * across.swapaxes(1, 2)
    images = numpy.broadcast_to(images, (len(scenes.shapes), side, side, 3)).astype(numpy.float32)
    for place in range(scenes.shapes.shape[1]):
        for shape in range(len(SHAPES)):
            rows = numpy.flatnonzero(scenes.shapes[:, place] == shape)
            if not len(rows):
                continue
            x = ticks[None, None, :] - scenes.centres[rows, place, 0, None, None]
            y = ticks[None, :, None] - scenes.centres[rows, place, 1, None, None]
            distance = shape_distance(shape, x, y, scenes.radii[rows, place, None, None])
            cover = numpy.clip(0.5 - distance / pixel, 0, 1)[..., None]
            images[rows] += cover * (scenes.paints[rows, place, None, None] - images[rows])
    return images.clip(0, 1)


def coverage(scenes: Scenes, side: int = 64) -> numpy.ndarray:
    """How much of each pixel any object covers, (B, side, side) in [0, 1]: the training loss weighs pixels by it."""
    white = Scenes(*scenes[:4], numpy.ones_like(scenes.paints), numpy.zeros_like(scenes.background))
    return render(white, side)[..., 0]
