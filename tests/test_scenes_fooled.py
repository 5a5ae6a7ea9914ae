"""Pictures that are meant to fool the verifier: whatever lies between two answers must be refused as either.

Each picture is painted at 512 pixels from a signed distance and read at 128, as any picture from elsewhere would be.
"""

import itertools
import math

import numpy
import pytest
import torch

from ttsvar_core.scenes import render
from ttsvar_core.scenes.grammar import COLOURS, SHAPES, Noun, ScenePrompt, parse_prompt
from ttsvar_core.scenes.render import PALETTE, shape_distance
from ttsvar_core.scenes.verify import detect, judge

SIDE, SCALE = 512, 4
PAPER = 0.92
RED, BLUE = PALETTE[0], PALETTE[5]
TICKS = (numpy.arange(SIDE) + 0.5) / SCALE
X, Y = TICKS[None, :], TICKS[:, None]
STEPS = numpy.linspace(0, 1, 17)
RADIUS = 12.0


def paint(*layers, paper=PAPER):
    """A picture of (distance, colour, opacity) layers, at the verifier's own size."""
    image = numpy.full((SIDE, SIDE, 3), paper, numpy.float64)
    for distance, colour, opacity in layers:
        cover = numpy.clip(0.5 - distance * SCALE, 0, 1)[..., None] * opacity
        image += cover * (numpy.asarray(colour) - image)
    pixels = torch.from_numpy(image).permute(2, 0, 1)[None]
    return torch.nn.functional.avg_pool2d(pixels, SCALE)[0].permute(1, 2, 0).float().numpy()


def shape(name, x=64.0, y=64.0, radius=RADIUS, turn=0.0):
    across, down = (X - x) + 0 * Y, (Y - y) + 0 * X
    angle = math.radians(turn)
    turned = math.cos(angle) * across + math.sin(angle) * down, math.cos(angle) * down - math.sin(angle) * across
    return shape_distance(SHAPES.index(name), *turned, numpy.float64(radius))


def one(distance, colour=RED, opacity=1.0):
    return paint((distance, colour, opacity))


def judged(image, text):
    return judge(detect(image), parse_prompt(text))


def right(image, text):
    return judged(image, text).correct


def names(image):
    """What the one object of a picture passes for, by verdict: shapes, then colours."""
    found = detect(image)
    passes = [(s, c) for s in SHAPES for c in ("", *COLOURS) if judge(found, ScenePrompt((Noun(s, c),))).correct]
    return [s for s, c in passes if not c], [c for _, c in passes if c]


def equal_area(name, area=420.0):
    inside = (shape(name, radius=10.0) <= 0).sum() / SCALE**2
    return 10.0 * math.sqrt(area / inside)


def blend(first, second):
    ends = [(name, equal_area(name)) for name in (first, second)]
    return lambda t: sum(w * shape(name, radius=r) for w, (name, r) in zip((1 - t, t), ends, strict=True))


def superellipse(t):
    """Circle at t = 0, square at t = 1."""
    power, radius = 2 / (1 - min(t, 0.97)), RADIUS * (1 - 0.15 * t)
    return ((numpy.abs(X - 64) / radius) ** power + (numpy.abs(Y - 64) / radius) ** power) ** (1 / power) * radius - radius


def with_constant(name, value, drawn):
    """A distance drawn with one of the renderer's constants changed."""
    kept = getattr(render, name)
    try:
        setattr(render, name, value)
        return shape(drawn)
    finally:
        setattr(render, name, kept)


MORPHS = {
    "circle to square": superellipse,
    "circle to triangle": blend("circle", "triangle"),
    "circle to heart": blend("circle", "heart"),
    "square to triangle": blend("square", "triangle"),
    "heart to triangle": blend("heart", "triangle"),
    "star to triangle": blend("star", "triangle"),
    "cross to square": lambda t: with_constant("CROSS_ARM", 0.42 + 0.73 * t, "cross"),
    "cross to star": blend("cross", "star"),
    "cross to circle": blend("cross", "circle"),
    "heart to square": blend("heart", "square"),
}


@pytest.mark.parametrize("family", MORPHS)
def test_between_two_shapes_lies_neither(family):
    first, _, second = family.split()
    passes, grades = [], []
    for t in STEPS:
        image = one(MORPHS[family](t))
        passes.append("+".join(names(image)[0]))
        grades.append([judged(image, f"a {name}").score for name in (first, second)])
    runs = [name for name, _ in itertools.groupby(passes)]
    # On the way may lie a third shape, as something round between a heart and a triangle, but nothing that is two at once.
    assert (runs[0], runs[-1]) == (first, second) and set(runs[1::2]) == {""} and not {first, second} & set(runs[2:-1])
    assert passes.count("") >= 2 and grades[0][0] > 0.95 and grades[-1][1] > 0.95
    between = one(MORPHS[family](STEPS[passes.index("") + passes.count("") // 2]))
    assert "shape" in judged(between, f"a {first}").reason


@pytest.mark.parametrize("name", SHAPES)
def test_a_rough_outline_is_still_the_shape(name):
    """Large objects whose edge is off by a pixel here and there: nothing else fits them, whatever they were meant to be."""
    ndimage = pytest.importorskip("scipy.ndimage")
    generator = numpy.random.default_rng(0)
    for _ in range(6):
        bumps = ndimage.gaussian_filter(generator.normal(0, 1, (SIDE, SIDE)), 4 * SCALE)
        assert names(one(shape(name, radius=19.0) + 0.7 * bumps / bumps.std()))[0] == [name]


@pytest.mark.parametrize(("first", "second"), list(itertools.combinations(range(len(COLOURS)), 2)))
def test_between_two_colours_lies_neither(first, second):
    passes = []
    for t in STEPS[::2]:
        colour = (1 - t) * PALETTE[first] + t * PALETTE[second]
        passes.append("+".join(names(one(shape("circle"), colour))[1]))
    kinds = [name for name, _ in itertools.groupby(passes)]
    assert kinds[0] == COLOURS[first] and kinds[-1] == COLOURS[second] and all("+" not in kind for kind in kinds)
    between = one(shape("circle"), (PALETTE[first] + PALETTE[second]) / 2)
    # Half way between two colours may lie a third one, as orange between red and yellow, but neither of the two.
    assert not {COLOURS[first], COLOURS[second]} & set(names(between)[1])


def test_between_small_and_large_lies_neither():
    for name in SHAPES:
        passes = []
        for radius in numpy.linspace(11, 20, 28):
            found = detect(one(shape(name, radius=radius)))
            assert judge(found, parse_prompt(f"a {name}")).correct, (name, radius)
            passes.append("".join(size for size in ("small", "large") if judge(found, parse_prompt(f"a {size} {name}")).correct))
        assert [size for size, _ in itertools.groupby(passes)] == ["small", "", "large"], name


def polygon(corners):
    turns = [2 * math.pi * corner / corners for corner in range(corners)]
    return numpy.maximum.reduce([math.sin(turn) * (X - 64) + math.cos(turn) * (Y - 64) - RADIUS for turn in turns])


STRIPES = numpy.sin(2 * math.pi * (X + 0 * Y) / 6)
BOTH = (shape("circle", radius=16), RED, 1.0)


def patched(other, share=0.5):
    """A circle of two colours side by side."""
    return paint(BOTH, (numpy.maximum(BOTH[0], X - 64 + 16 * (1 - 2 * share) + 0 * Y), other, 1.0))


def half(name, *sides):
    return one(numpy.maximum.reduce([shape(name, radius=16), *sides]))


ODD = {
    "half a circle": lambda: half("circle", X - 64 + 0 * Y),
    "half a square": lambda: half("square", Y - 64 + 0 * X),
    "half a cross": lambda: half("cross", X - 64 + 0 * Y),
    "half a star": lambda: half("star", X - 64 + 0 * Y),
    "half a heart": lambda: half("heart", X - 64 + 0 * Y),
    "half a triangle": lambda: half("triangle", X - 64 + 0 * Y),
    "three quarters of a circle": lambda: half("circle", numpy.minimum(X - 64, Y - 64)),
    "three quarters of a square": lambda: half("square", numpy.minimum(X - 64, Y - 64)),
    "a circle the edge cuts in two": lambda: one(shape("circle", x=0)),
    "a square the edge cuts": lambda: one(shape("square", x=4)),
    "a ring": lambda: one(numpy.abs(shape("circle", radius=14)) - 2.5),
    "a frame": lambda: one(numpy.abs(shape("square", radius=14)) - 1.5),
    "an ellipse": lambda: one(numpy.hypot((X - 64) / 1.3, (Y - 64) * 1.3) - 14),
    "an oblong": lambda: one(numpy.maximum(numpy.abs(X - 64) / 1.3, numpy.abs(Y - 64) * 1.3) - 13),
    "a diamond": lambda: one(shape("square", radius=14, turn=45)),
    "a triangle upside down": lambda: one(shape("triangle", radius=14, turn=180)),
    "a triangle on its side": lambda: one(shape("triangle", radius=14, turn=90)),
    "a heart upside down": lambda: one(shape("heart", radius=14, turn=180)),
    "a star upside down": lambda: one(shape("star", radius=14, turn=180)),
    "a cross turned": lambda: one(shape("cross", radius=14, turn=45)),
    "two merged circles": lambda: one(numpy.minimum(shape("circle", x=54), shape("circle", x=74))),
    "a circle and a square merged": lambda: one(numpy.minimum(shape("circle", x=53), shape("square", x=75))),
    "a pentagon": lambda: one(polygon(5)),
    "a flower": lambda: one(numpy.hypot(X - 64, Y - 64) - 12 - 4 * numpy.cos(6 * numpy.arctan2(Y - 64, X - 64))),
    "a four-pointed star": lambda: one(numpy.sqrt(numpy.abs(X - 64)) + numpy.sqrt(numpy.abs(Y - 64)) - 4.5),
    "a thick stripe": lambda: one(numpy.abs(X - 64) - 6 + 0 * Y),
    "striped with paper": lambda: one(numpy.maximum(BOTH[0], STRIPES)),
    "striped red and blue": lambda: paint(BOTH, (numpy.maximum(BOTH[0], STRIPES), BLUE, 1.0)),
    "half red, half blue": lambda: patched(BLUE),
    "a quarter of it yellow": lambda: patched(PALETTE[2], share=0.3),
    "half red, half pale": lambda: patched(0.5 * RED + 0.5 * PAPER),
    "a red rim around paper": lambda: paint(BOTH, (shape("circle", radius=9), [PAPER] * 3, 1.0)),
    "grey": lambda: one(shape("circle"), [0.5, 0.5, 0.5]),
    "brown": lambda: one(shape("circle"), [0.47, 0.30, 0.13]),
    "faded by half": lambda: one(shape("circle"), opacity=0.5),
    "a ghost": lambda: one(shape("circle"), opacity=0.25),
    "a breath": lambda: one(shape("circle"), opacity=0.1),
    "a dot": lambda: one(shape("circle", radius=3)),
    "a tiny square": lambda: one(shape("square", radius=4.5)),
    "nearly everything": lambda: one(shape("circle", radius=88)),
    "a wash from red to paper": lambda: paint((X - 200 + 0 * Y, RED, numpy.clip(X / 128, 0, 1)[..., None] + 0 * Y[..., None])),
}


@pytest.mark.parametrize("picture", ODD)
def test_what_is_no_object_of_the_world_passes_for_none(picture):
    found = detect(ODD[picture]())
    for colour, name in itertools.product(("", *COLOURS), SHAPES):
        for count in (1, 2, 3):
            assert not judge(found, ScenePrompt((Noun(name, colour, count=count),))).correct, (count, colour, name)


def test_two_halves_are_not_two_objects():
    for name in SHAPES:
        halves = one(numpy.maximum(shape(name, radius=18), 2.0 - numpy.abs(X - 64)))
        assert len(detect(halves)) >= 2
        assert not any(right(halves, f"two red {'crosses' if other == 'cross' else other + 's'}") for other in SHAPES)


@pytest.mark.parametrize(("radius", "opacity"), [(12.0, 0.3), (12.0, 0.5), (12.0, 1.0), (5.0, 1.0)])
def test_nothing_may_stand_beside_what_was_asked_for(radius, opacity):
    asked = (shape("circle", 32, 32), RED, 1.0)
    assert right(paint(asked), "a red circle")
    crowded = judged(paint(asked, (shape("square", 96, 96, radius), BLUE, opacity)), "a red circle")
    assert not crowded.correct and "besides" in crowded.reason


def test_a_picture_of_everything_is_right_for_nothing():
    layers = [(shape(name, 24 + 40 * (i % 3), 40 + 48 * (i // 3)), PALETTE[i], 1.0) for i, name in enumerate(SHAPES)]
    found = detect(paint(*layers))
    for text in ("a red circle", "a circle and a square", "two hearts", "a red circle, an orange square and a yellow triangle"):
        judgement = judge(found, parse_prompt(text))
        assert not judgement.correct and judgement.atoms["nothing besides"] < 0.01


def test_colours_swapped_between_two_objects_are_wrong():
    swapped = paint((shape("circle", 32, 64), BLUE, 1.0), (shape("square", 96, 64), RED, 1.0))
    assert right(swapped, "a blue circle and a red square") and not right(swapped, "a red circle and a blue square")


@pytest.mark.parametrize("angle", range(0, 360, 15))
def test_a_relation_holds_within_sixty_degrees_only(angle):
    """Up to 45 degrees one relation holds and beyond 30 two do, as GenEval rules; the opposite of a relation never."""
    x, y = 24 * math.cos(math.radians(angle)), 24 * math.sin(math.radians(angle))
    image = paint((shape("circle", 64 + x, 64 + y), RED, 1.0), (shape("square", 64 - x, 64 - y), BLUE, 1.0))
    towards = {"right of": 0, "below": 90, "left of": 180, "above": 270}
    for relation, at in towards.items():
        away = abs((angle - at + 180) % 360 - 180)
        if away != 60:
            assert right(image, f"a red circle {relation} a blue square") == (away < 60), (relation, away)


def test_noise_never_passes():
    generator = numpy.random.default_rng(0)
    ndimage = pytest.importorskip("scipy.ndimage")
    for blur in (0.0, 1.0, 3.0, 6.0, 12.0):
        for _ in range(4):
            noise = ndimage.gaussian_filter(generator.normal(0, 1, (128, 128, 3)), (blur, blur, 0))
            image = (0.7 + 0.3 * noise / noise.std()).clip(0, 1).astype(numpy.float32)
            assert names(image) == ([], [])
