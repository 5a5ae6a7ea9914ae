"""The verifier: what is in a picture, from its pixels alone, and how far that is what a prompt asked for.

The background is a plane of colour fitted robustly; objects are connected regions that stand out from it, cut at half of
their own contrast so that blur does not grow or shrink them. What a prompt asks for is taken apart into atoms: each object's
presence, shape, colour and size, each count, each relation, and that there is nothing besides. An atom's value is a soft
probability. The grade is the mean over the atoms, as GenEval 2 takes it (arXiv 2512.16853), so that it tells a near miss from
a far one; the verdict wants every atom above a half, so that what lies half way between two answers is neither.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import NamedTuple

import numpy

from .grammar import COLOURS, SHAPES, SIZES, Noun, ScenePrompt
from .render import PALETTE, direction, shape_distance

SIDE = 128
FAINT = 0.14  # contrast from which a region is looked at: twice what textures and gradients leave
CLEAR_CONTRAST = 0.28  # half as much as any colour of the palette has on any background, and enough for presence 1/2
SMALLEST_AREA = 100.0  # pixels at which presence is 1/2; the smallest object rendered has 255
SPECK_AREA = 12.0
GHOST = 0.2  # presence of something besides at which a picture is right no more
# Overlap with a shape at which a region is it by half. Outlines drawn by hand are still the shape they mean; only the circle
# is what every blob and polygon comes near to, so it must be a good one.
CLEAR_FITS = numpy.array([0.90 if shape == "circle" else 0.82 for shape in SHAPES])
CLEAR_MARGIN = 0.05
BLURS = (0.0, 0.8, 1.5)
COLOUR_DISTANCE = 0.16
COLOUR_SPREAD = 0.26
SIZE_LIMITS = (14.2, 15.8)  # radii up to which an object is small, and from which it is large
RELATION_COSINE = 0.5  # GenEval's rule
SOFTNESS = {"fit": 0.02, "margin": 0.012, "distance": 0.025, "spread": 0.03, "size": 0.5, "cosine": 0.08}
MOST_SEEN = 10


class Detection(NamedTuple):
    """One object; lengths in pixels of a 128-pixel side, the rest soft probabilities."""

    x: float
    y: float
    area: float
    presence: float  # how far it stands out
    shapes: numpy.ndarray  # (6,)
    colours: numpy.ndarray  # (8,)
    sizes: numpy.ndarray  # (2,)

    def atoms(self, noun: Noun) -> dict[str, float]:
        """How far this is the noun, in each respect that the noun names."""
        found = {"presence": self.presence, "shape": float(self.shapes[SHAPES.index(noun.shape)])}
        found["colour"] = float(self.colours[COLOURS.index(noun.colour)] if noun.colour else self.colours.max())
        if noun.size:
            found["size"] = float(self.sizes[SIZES.index(noun.size)])
        return found


class Judgement(NamedTuple):
    """The verdict on a picture, why, the grade in [0, 1] that serves as a reward, and the atoms it is the mean of."""

    correct: bool
    reason: str
    score: float
    atoms: dict[str, float]


# Finding objects -----------------------------------------------------------------------------------------------------


def background_plane(image: numpy.ndarray) -> numpy.ndarray:
    """Fit a colour plane to the background, (H, W, 3) -> (H, W, 3), however much of the picture objects cover."""
    height, width, _ = image.shape
    y, x = numpy.mgrid[0:height, 0:width]
    basis = numpy.stack([numpy.ones_like(x), x / width - 0.5, y / height - 0.5], -1).astype(numpy.float64)
    few, pixels = basis[::2, ::2].reshape(-1, 3), image[::2, ::2].reshape(-1, 3).astype(numpy.float64)
    paleness = pixels.min(1) - 0.5 * (pixels.max(1) - pixels.min(1))
    keep = paleness >= numpy.quantile(paleness, 0.6) - 0.12
    for limit in (0.14, 0.10, 0.10):
        fit = numpy.linalg.lstsq(few[keep], pixels[keep], rcond=None)[0]
        distance = numpy.abs(pixels - few @ fit).max(1)
        keep = distance <= max(limit, float(numpy.quantile(distance, 0.3)))
    return basis @ fit


def _as_world(image: numpy.ndarray) -> numpy.ndarray:
    if image.ndim != 3 or image.shape[-1] != 3:
        raise ValueError(f"The verifier reads one RGB picture (H, W, 3); got an array of shape {image.shape}.")
    if image.shape[:2] == (SIDE, SIDE):
        return image
    import torch

    pixels = torch.from_numpy(numpy.ascontiguousarray(image, numpy.float32)).permute(2, 0, 1)[None]
    sized = torch.nn.functional.interpolate(pixels, size=(SIDE, SIDE), mode="bilinear", antialias=True)
    return sized[0].permute(1, 2, 0).numpy()


def detect(image: numpy.ndarray) -> list[Detection]:
    """Find the objects of a picture (H, W, 3) in [0, 1], the most visible first, ten at most."""
    from scipy import ndimage

    image = _as_world(image)
    contrast = numpy.sqrt(numpy.square(image - background_plane(image)).sum(-1))
    smooth = ndimage.uniform_filter(contrast, 3)
    labels, count = ndimage.label(smooth > FAINT)
    found = []
    for label, window in enumerate(ndimage.find_objects(labels, count), start=1):
        inside = labels[window] == label
        peak = float(numpy.quantile(smooth[window][inside], 0.85))
        # Cut every region again at half of its own contrast: regions joined by a faint haze come apart here.
        parts, _ = ndimage.label(inside & (contrast[window] > 0.5 * peak))
        for part, inner in enumerate(ndimage.find_objects(parts), start=1):
            mask = parts[inner] == part
            if mask.sum() >= SPECK_AREA:
                top, left = (outer.start + part.start for outer, part in zip(window, inner, strict=True))
                found.append(_describe(image, contrast, mask, top, left))
    return sorted(found, key=lambda d: -d.area * d.presence)[:MOST_SEEN]


def _describe(image: numpy.ndarray, contrast: numpy.ndarray, mask: numpy.ndarray, top: int, left: int) -> Detection:
    """One region: its mask and where in the picture the mask's window lies."""
    from scipy import ndimage

    border = 4
    mask = numpy.pad(mask, border)
    rows, columns = (numpy.arange(n) + at - border for n, at in zip(mask.shape, (top, left), strict=True))
    outside = (rows < 0)[:, None] | (rows >= SIDE)[:, None] | (columns < 0) | (columns >= SIDE)
    window = numpy.ix_(rows.clip(0, SIDE - 1), columns.clip(0, SIDE - 1))
    contrast, pixels = numpy.where(outside, 0.0, contrast[window]), image[window]
    core = ndimage.binary_erosion(mask, iterations=2)
    core = core if core.sum() >= 9 else mask
    height = float(numpy.median(contrast[core]))
    # Soft edges: partial pixels count by how much of the object's own contrast they have.
    around = ndimage.binary_dilation(mask, iterations=1)
    cover = numpy.where(around, numpy.clip(contrast / max(height, 1e-6), 0, 1), 0)
    # Holes stay holes, but a spot of another colour inside is cover.
    cover = numpy.where(mask & (cover > 0.5), numpy.maximum(cover, 0.5), cover)
    x, y, area = _extent(cover)
    presence = min(1.0, height / (2 * CLEAR_CONTRAST)) * min(1.0, area / (2 * SMALLEST_AREA))
    shapes, radius = _shapes(cover)
    return Detection(x + columns[0], y + rows[0], area, presence, shapes, _colours(pixels[core]), _sizes(radius))


def _soft(value: float | numpy.ndarray, width: float) -> float | numpy.ndarray:
    """A probability: one half at zero, within 2% of 0 and 1 from four widths on."""
    return 1 / (1 + numpy.exp(-numpy.clip(value / width, -40, 40)))


def _extent(cover: numpy.ndarray) -> tuple[float, float, float]:
    """Centre of mass and area of a cover (h, w)."""
    rows, columns = numpy.mgrid[0 : cover.shape[0], 0 : cover.shape[1]]
    area = float(cover.sum())
    return float((cover * columns).sum() / area), float((cover * rows).sum() / area), area


@lru_cache(maxsize=16)
def _template_moments(shape: int) -> tuple[float, float]:
    """Area of a shape of radius 1, and how far its centre of mass lies below its centre."""
    ticks = (numpy.arange(600) + 0.5) / 600 * 3 - 1.5
    inside = shape_distance(shape, ticks[None, :], ticks[:, None], numpy.float64(1.0)) <= 0
    return float(inside.mean() * 9), float((inside * ticks[:, None]).sum() / inside.sum())


def _templates(cover: numpy.ndarray) -> tuple[numpy.ndarray, numpy.ndarray]:
    """How much of each pixel each shape of a cover's area and centre of mass covers, (6, h, w), and the shapes' radii (6,)."""
    x, y, area = _extent(cover)
    rows, columns = numpy.mgrid[0 : cover.shape[0], 0 : cover.shape[1]]
    covers, radii = [], []
    for shape in range(len(SHAPES)):
        unit_area, drop = _template_moments(shape)
        radius = math.sqrt(area / unit_area)
        distance = shape_distance(shape, columns - x, rows - y + drop * radius, numpy.float64(radius))
        covers.append(numpy.clip(0.5 - distance, 0, 1))
        radii.append(radius)
    return numpy.stack(covers), numpy.array(radii)


def _steepened(cover: numpy.ndarray) -> numpy.ndarray:
    """A cover with its middle half stretched over the whole range."""
    return numpy.clip(2 * cover - 0.5, 0, 1)


def _fits(cover: numpy.ndarray) -> tuple[numpy.ndarray, numpy.ndarray]:
    """How well each shape fits a cover, as soft intersection over union (6,), and the radius it would have (6,).

    The templates are blurred as the picture is, since blur rounds corners, and both are steepened, which takes out most
    noise.
    """
    from scipy import ndimage

    crisp = numpy.pad(_steepened(cover), 4)
    templates, radii = _templates(crisp)
    overlaps = []
    for blur in BLURS:
        blurred = _steepened(ndimage.gaussian_filter(templates, (0, blur, blur)) if blur else templates)
        overlaps.append(numpy.minimum(crisp, blurred).sum((1, 2)) / numpy.maximum(crisp, blurred).sum((1, 2)))
    return max(overlaps, key=max), radii


def _shapes(cover: numpy.ndarray) -> tuple[numpy.ndarray, float]:
    """How far a cover has each shape (6,): as it fits well, and clearly better than any other; and the radius that fits best."""
    fits, radii = _fits(cover)
    rivals = numpy.array([numpy.delete(fits, i).max() for i in range(len(fits))])
    clear = numpy.minimum(
        _soft(fits - CLEAR_FITS, SOFTNESS["fit"]), _soft(fits - rivals - CLEAR_MARGIN, SOFTNESS["margin"])
    )
    return clear, float(radii[fits.argmax()])


def _colours(pixels: numpy.ndarray) -> numpy.ndarray:
    """How far an object (N, 3) has each colour of the palette (8,): all of it, neither between colours nor faded nor patched."""
    middle = numpy.median(pixels, axis=0)
    distances = numpy.linalg.norm(PALETTE - middle, axis=1)
    spread = numpy.quantile(numpy.linalg.norm(pixels - middle, axis=1), 0.9)
    near = _soft(COLOUR_DISTANCE - distances, SOFTNESS["distance"])
    return numpy.minimum(near, _soft(COLOUR_SPREAD - spread, SOFTNESS["spread"]))


def _sizes(radius: float) -> numpy.ndarray:
    """How far a radius is small, and large, (2,)."""
    small, large = SIZE_LIMITS
    return numpy.array([_soft(small - radius, SOFTNESS["size"]), _soft(radius - large, SOFTNESS["size"])])


# Judging -------------------------------------------------------------------------------------------------------------


def judge(found: list[Detection], prompt: ScenePrompt) -> Judgement:
    """Compare what a picture shows with what the prompt asks for.

    Stricter than GenEval's rules: objects beyond those asked for make any picture wrong, not only a counted one, so that a
    picture of everything is right for nothing; so do ghosts and specks.
    """
    wanted = prompt.objects
    chosen = _assigned(found, prompt)
    atoms: dict[str, float] = {}
    for i, (noun, at) in enumerate(zip(wanted, chosen, strict=True)):
        there = found[at].atoms(noun) if at is not None else dict.fromkeys(_named(noun), 0.0)
        atoms |= {f"{i + 1} {noun.words}: {name}": value for name, value in there.items()}
    for noun in prompt.nouns:
        if noun.count > 1:
            atoms[f"{noun.text}: count"] = _count_atom(found, noun)
    for i, relation in enumerate(prompt.relations, start=1):
        ends = [found[at] for at in (chosen[0], chosen[i]) if at is not None]
        atoms[f"{relation} {wanted[i].text}"] = _relation_atom(relation, *ends) if len(ends) == 2 else 0.0
    besides = sum(seen.presence for at, seen in enumerate(found) if at not in chosen)
    atoms["nothing besides"] = 0.5 ** (besides / GHOST)
    wrong = [name for name, value in atoms.items() if value <= 0.5]
    reason = "not clear: " + "; ".join(wrong[:3]) if wrong else "as asked"
    return Judgement(not wrong, f"{len(found)} seen, {reason}", sum(atoms.values()) / len(atoms), atoms)


def _named(noun: Noun) -> tuple[str, ...]:
    return ("presence", "shape", "colour", "size") if noun.size else ("presence", "shape", "colour")


def _assigned(found: list[Detection], prompt: ScenePrompt) -> list[int | None]:
    """Which detection stands for each object asked for, None for none, so that the most is as asked."""
    from scipy.optimize import linear_sum_assignment

    wanted = prompt.objects
    values = numpy.array([[sum(seen.atoms(noun).values()) for seen in found] for noun in wanted]).reshape(len(wanted), -1)
    if prompt.relations and len(found) >= len(wanted):

        def towards(first: int) -> tuple[float, list[int | None]]:
            """The most there is with one detection as the first object, towards which the others lie."""
            others = [at for at in range(len(found)) if at != first]
            related = [[_relation_atom(relation, found[first], found[at]) for at in others] for relation in prompt.relations]
            rest = values[1:, others] + related
            rows, places = linear_sum_assignment(-rest)
            return values[0, first] + rest[rows, places].sum(), [first, *(others[place] for place in places)]

        return max(map(towards, range(len(found))), key=lambda made: made[0])[1]
    chosen: list[int | None] = [None] * len(wanted)
    for i, at in zip(*linear_sum_assignment(-values), strict=True):
        chosen[i] = int(at)
    return chosen


def _relation_atom(relation: str, first: Detection, second: Detection) -> float:
    cosine = direction(relation, numpy.array([first.x - second.x, first.y - second.y]))
    return float(min(_soft(cosine - RELATION_COSINE, SOFTNESS["cosine"]), first.presence, second.presence))


def _count_atom(found: list[Detection], noun: Noun) -> float:
    """One where as many objects as asked for are the noun, zero where one more or less is."""
    likely = sum(float(_soft(min(seen.atoms(noun).values()) - 0.5, 0.1)) for seen in found)
    return max(0.0, 1.0 - abs(likely - noun.count))


def judge_image(image: numpy.ndarray, prompt: ScenePrompt) -> Judgement:
    """Judge a picture (H, W, 3) in [0, 1] against a prompt."""
    return judge(detect(image), prompt)
