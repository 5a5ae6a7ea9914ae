"""GenEval's verdict on images in its folder layout, by a detector the user has.

The rules are GenEval's (Ghosh, Hajishirzi and Schmidt 2023, and its public evaluation): what a prompt's metadata include must
be found, with colour and position judged on the most confident objects; what it excludes must not be. Its detector is a
Mask2Former and its colours are CLIP's; `detectors.load_detector` takes both from transformers folders on this machine, so
figures come close to the published evaluator's but are comparable only with each other.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

if TYPE_CHECKING:
    import numpy as np
    from PIL.Image import Image

# GenEval's published settings.
CONFIDENCE = 0.3
CONFIDENCE_COUNTING = 0.9
MAX_OBJECTS = 16
POSITION_MARGIN = 0.1
DIRECTION = 0.5
COLOURS = ("red", "orange", "yellow", "green", "blue", "purple", "pink", "brown", "black", "white")
CATEGORIES = ("single_object", "two_object", "counting", "colors", "position", "color_attr")


class Found(NamedTuple):
    """One detected object: GenEval's class name, confidence, box (left, top, right, bottom) and mask (H, W) or None."""

    name: str
    confidence: float
    box: tuple[float, float, float, float]
    mask: np.ndarray | None = None


class Detector(Protocol):
    """Finds objects in an image and names the colour of each."""

    def detect(self, image: Image) -> list[Found]: ...

    def colours(self, image: Image, objects: Sequence[Found]) -> list[str]: ...


class Verdict(NamedTuple):
    """Whether an image is what its metadata ask for, and if not, why."""

    correct: bool
    reasons: tuple[str, ...]


ColourOf = Callable[[Sequence[Found]], Sequence[str]]


def judge(found: Iterable[Found], metadata: Mapping[str, Any], colour_of: ColourOf) -> Verdict:
    """The verdict on one image from its detections. ``colour_of`` is asked only where the metadata name a colour."""
    objects = confident(found, metadata.get("tag") == "counting")
    reasons: list[str] = []
    matched: list[list[Found] | None] = []
    for clause in metadata.get("include", ()):
        chosen = objects.get(clause["class"], [])[: clause["count"]]
        fault = _missing(chosen, clause) or _wrong_colour(chosen, clause, colour_of) or _misplaced(chosen, clause, matched)
        matched.append(None if fault else chosen)
        if fault:
            reasons.append(fault)
    for clause in metadata.get("exclude", ()):
        number = len(objects.get(clause["class"], []))
        if number >= clause["count"]:
            reasons.append(f"expected fewer than {clause['count']} {clause['class']}, found {number}")
    return Verdict(not reasons, tuple(reasons))


def confident(found: Iterable[Found], counting: bool) -> dict[str, list[Found]]:
    """Detections above GenEval's threshold (a stricter one where objects are counted), by class, most confident first."""
    least = CONFIDENCE_COUNTING if counting else CONFIDENCE
    by_class: dict[str, list[Found]] = {}
    for one in sorted(found, key=lambda one: -one.confidence):
        of_class = by_class.setdefault(one.name, [])
        if one.confidence > least and len(of_class) < MAX_OBJECTS:
            of_class.append(one)
    return by_class


def relations(first: Found, second: Found) -> set[str]:
    """Where the first object lies from the second: none if they overlap too far, up to two on a diagonal."""
    offsets, revised = [], []
    for axis in (0, 1):
        ends = [(one.box[axis], one.box[axis + 2]) for one in (first, second)]
        offset = sum(ends[0]) / 2 - sum(ends[1]) / 2
        reach = POSITION_MARGIN * sum(abs(end - start) for start, end in ends)
        offsets.append(offset)
        revised.append(max(abs(offset) - reach, 0.0) * (1 if offset > 0 else -1))
    length = (offsets[0] ** 2 + offsets[1] ** 2) ** 0.5
    if max(map(abs, revised)) < 1e-3:
        return set()
    across, down = (value / length for value in revised)
    named = {"left of": -across, "right of": across, "above": -down, "below": down}
    return {name for name, share in named.items() if share > DIRECTION}


def _missing(chosen: list[Found], clause: Mapping[str, Any]) -> str:
    if len(chosen) >= clause["count"]:
        return ""
    return f"expected {clause['count']} {clause['class']}, found {len(chosen)}"


def _wrong_colour(chosen: list[Found], clause: Mapping[str, Any], colour_of: ColourOf) -> str:
    if "color" not in clause:
        return ""
    seen = list(colour_of(chosen))
    if seen.count(clause["color"]) >= clause["count"]:
        return ""
    return f"expected {clause['count']} {clause['color']} {clause['class']}, found {', '.join(seen)}"


def _misplaced(chosen: list[Found], clause: Mapping[str, Any], matched: list[list[Found] | None]) -> str:
    if "position" not in clause:
        return ""
    relation, target = clause["position"]
    targets = matched[target]
    if targets is None:
        return f"nothing that {clause['class']} could be {relation}"
    for one in chosen:
        for other in targets:
            seen = relations(one, other)
            if relation not in seen:
                return f"expected {clause['class']} {relation} {other.name}, found {' and '.join(sorted(seen)) or 'neither'}"
    return ""


def judge_folder(folder: str | Path, detector: Detector) -> list[dict[str, Any]]:
    """Judge every image of a folder in GenEval's layout, in order: one record per image, with GenEval's keys.

    Raises ValueError if the folder has no such images.
    """
    from PIL import Image

    records = []
    for home in sorted(path for path in Path(folder).iterdir() if path.is_dir() and path.name.isdigit()):
        metadata = json.loads((home / "metadata.jsonl").read_text(encoding="utf-8"))
        for path in sorted(path for path in (home / "samples").iterdir() if re.fullmatch(r"\d+\.png", path.name)):
            with Image.open(path) as opened:
                image = opened.convert("RGB")
            verdict = judge(detector.detect(image), metadata, lambda objects, image=image: detector.colours(image, objects))
            records.append({
                "filename": str(path), "tag": metadata.get("tag", ""), "prompt": metadata["prompt"],
                "correct": verdict.correct, "reason": "\n".join(verdict.reasons), "metadata": json.dumps(metadata),
            })
    if not records:
        raise ValueError(f"{folder} holds no images in GenEval's layout (00000/metadata.jsonl, 00000/samples/0000.png)")
    return records


def summary(records: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Share of correct images per category, and GenEval's overall score: the mean over categories."""
    groups: dict[str, list[bool]] = {}
    for one in records:
        groups.setdefault(one["tag"], []).append(bool(one["correct"]))
    order = sorted(groups, key=lambda tag: (CATEGORIES.index(tag) if tag in CATEGORIES else len(CATEGORIES), tag))
    shares = {tag: sum(groups[tag]) / len(groups[tag]) for tag in order}
    return {**shares, "overall": sum(shares.values()) / len(shares)}
