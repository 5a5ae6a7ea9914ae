"""Scenes to train on: where objects go, free in everything a prompt leaves open, and how much of each pixel they cover."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy

from ttsvar_core.scenes.grammar import COLOURS, MOST_OBJECTS, SHAPES, SIZES, Noun, ScenePrompt, combination_split
from ttsvar_core.scenes.render import PALETTE, REACH, WORLD_SIDE, Scenes, cover_of, direction

RADII = {"small": (10.0, 12.0), "large": (18.0, 21.0)}
CORNERS = {"square": 1.27, "cross": 1.23}  # where the farthest point lies beyond the reach along the axes
MARGIN = 2.0
GAP = 4.0
RELATION_COSINE = 0.78
DARTS = 48
LARGE_SHARE = (0.0, 0.5, 0.5, 0.4, 0.3, 0.1, 0.05, 0.0)  # of objects whose size is free, by their number
WAVES = 4


def sample_scenes(prompts: list[ScenePrompt], generator: numpy.random.Generator) -> Scenes:
    """Draw one scene for each prompt, free in everything the prompt leaves open.

    A scene drawn for a training prompt never shows a held-out combination, whatever the prompt leaves open.
    """
    batch = len(prompts)
    shapes = numpy.full((batch, MOST_OBJECTS), -1, numpy.int64)
    colours = numpy.zeros((batch, MOST_OBJECTS), numpy.int64)
    centres = numpy.zeros((batch, MOST_OBJECTS, 2), numpy.float32)
    radii = numpy.zeros((batch, MOST_OBJECTS), numpy.float32)
    for row, prompt in enumerate(prompts):
        objects = _painted(prompt, generator)
        places = None
        while places is None:
            sizes = _sized(objects, generator)
            places = _places(objects, sizes, prompt.relations, generator)
        few = len(objects)
        shapes[row, :few] = [SHAPES.index(noun.shape) for noun in objects]
        colours[row, :few] = [COLOURS.index(noun.colour) for noun in objects]
        centres[row, :few], radii[row, :few] = places, sizes
    paints = PALETTE[colours] + generator.uniform(-0.03, 0.03, (batch, MOST_OBJECTS, 3)).astype(numpy.float32)
    background = numpy.empty((batch, 3, 3), numpy.float32)
    background[:, 0] = generator.uniform(0.84, 0.96, (batch, 1)) + generator.uniform(-0.03, 0.03, (batch, 3))
    background[:, 1:] = generator.uniform(-0.05, 0.05, (batch, 2, 1))
    return Scenes(shapes, colours, centres, radii, paints.clip(0, 1), background, _waves(batch, generator))


def _waves(batch: int, generator: numpy.random.Generator) -> numpy.ndarray:
    """A soft texture for every second scene: a few waves of 2 to 8 cycles, 0.03 high together at most."""
    turn, cycles = generator.uniform(0, math.tau, (batch, WAVES)), generator.uniform(2, 8, (batch, WAVES))
    phase = generator.uniform(0, math.tau, (batch, WAVES))
    height = generator.uniform(0.3, 1.0, (batch, WAVES)) * 0.03 / WAVES * (generator.random((batch, 1)) < 0.5)
    return numpy.stack([cycles * numpy.cos(turn), cycles * numpy.sin(turn), phase, height], -1).astype(numpy.float32)


def _painted(prompt: ScenePrompt, generator: numpy.random.Generator) -> list[Noun]:
    """The prompt's objects with a colour each; those of one noun share theirs."""
    while True:
        free = [noun.colour or COLOURS[generator.integers(len(COLOURS))] for noun in prompt.nouns]
        objects = [
            replace(noun, colour=colour, count=1)
            for noun, colour in zip(prompt.nouns, free, strict=True) for _ in range(noun.count)
        ]
        if prompt.split != "train" or combination_split(tuple(objects)) == "train":
            return objects


def _sized(objects: list[Noun], generator: numpy.random.Generator) -> numpy.ndarray:
    """A radius for every object, of the size asked for or of either."""
    large = generator.random(len(objects)) < LARGE_SHARE[len(objects)]
    names = [noun.size or SIZES[int(size)] for noun, size in zip(objects, large, strict=True)]
    return numpy.array([generator.uniform(*RADII[name]) for name in names])


def _places(
    objects: list[Noun], radii: numpy.ndarray, relations: tuple[str, ...], generator: numpy.random.Generator
) -> numpy.ndarray | None:
    """Centres (N, 2) of objects that keep apart and lie as told, or None where the darts thrown missed."""
    reach = radii * [REACH[noun.shape] for noun in objects]
    round_ = radii * [CORNERS.get(noun.shape, REACH[noun.shape]) for noun in objects]
    found = numpy.zeros((len(objects), 2))
    for i in range(len(objects)):
        edge = reach[i] + MARGIN
        darts = generator.uniform(edge, WORLD_SIDE - edge, (DARTS, 2))
        apart = numpy.linalg.norm(darts[:, None] - found[None, :i], axis=2) >= round_[:i] + round_[i] + GAP
        good = apart.all(1)
        if relations and i:
            good &= direction(relations[i - 1], found[0] - darts) > RELATION_COSINE
        if not good.any():
            return None
        found[i] = darts[good.argmax()]
    return found


def coverage(scenes: Scenes, side: int = 128, grown: float = 0.0) -> numpy.ndarray:
    """How much of each pixel any object covers, (B, side, side) in [0, 1]: training weighs pixels by it."""
    found = numpy.zeros((len(scenes.shapes), side, side), numpy.float32)
    for row, place in zip(*numpy.nonzero(scenes.shapes >= 0), strict=True):
        top, left, cover = cover_of(scenes, row, place, side, grown)
        part = found[row, top : top + cover.shape[0], left : left + cover.shape[1]]
        numpy.maximum(part, cover, out=part)
    return found
