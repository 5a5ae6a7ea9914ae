"""``python -m ttsvar_core score IMAGE... --prompt P --reward NAME[=FILE]``: what rewards say of any pictures."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from .. import names, registry
from .choices import device

if TYPE_CHECKING:
    from torch import Tensor

SUMMARY = "score pictures, best first"
_MAX_BYTES = 2**28  # of a picture's file
_SHOWN = 60  # characters of a picture's name


class Column(NamedTuple):
    """One number for each picture: a reward's score, or the answer to one of its questions."""

    name: str
    values: list[float]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("images", nargs="+", type=Path, metavar="IMAGE", help="pictures of any size")
    parser.add_argument("--prompt", required=True, help="what the pictures should show")
    parser.add_argument(
        "--reward", action="append", required=True, metavar="NAME", help=f"{registry.usages(registry.REWARDS)}; repeat to blend"
    )
    parser.add_argument("--blend", choices=names.BLENDS, default="rank", help="how rewards become one (default: %(default)s)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all numbers there")
    parser.add_argument("--device", type=device, default="cpu", help="where to compute, such as cuda (default: %(default)s)")
    parser.add_argument("--dtype", default="float32", choices=names.DTYPES, help="of the networks (default: %(default)s)")
    asking = parser.add_argument_group("rewards that ask")
    asking.add_argument("--questions", type=Path, metavar="FILE", help="ask these, one per line, in place of the prompt")
    asking.add_argument("--template", metavar="TEXT", help="ask the whole prompt like this; {} stands for it")
    asking.add_argument("--mean", choices=names.MEANS, help="of a picture's answers (default: geometric)")


def main(args: argparse.Namespace) -> int:
    import torch

    from ..atomic import write
    from ..rewards.base import check_prompt
    from ..rewards.blend import Blend

    given = _asking(args)
    pictures = [_picture(path) for path in args.images]
    rewards = [registry.load(registry.REWARDS, spec, args.device, dtype=getattr(torch, args.dtype)) for spec in args.reward]
    if given and not any(hasattr(reward, "asked") for reward in rewards):
        raise ValueError(f"--{next(iter(given))} is for rewards that ask; none of {', '.join(args.reward)} does")
    rewards = [replace(reward, **given) if hasattr(reward, "asked") else reward for reward in rewards]
    for reward in rewards:
        check_prompt(reward, args.prompt)
    scored = [_columns(reward, pictures, args.prompt) for reward in rewards]
    columns = [column for of_reward in scored for column in of_reward]
    if len(rewards) > 1:
        blend = Blend(rewards, args.blend)
        columns.insert(0, Column(blend.name, blend.combine(torch.tensor([columns[0].values for columns in scored])).tolist()))
    order = torch.tensor(columns[0].values).argsort(descending=True, stable=True).tolist()
    print(table(args.images, columns, order))
    if args.json:
        rows = [{"file": str(args.images[row]), "scores": {c.name: c.values[row] for c in columns}} for row in order]
        write(args.json, json.dumps({"prompt": args.prompt, "pictures": rows}, indent=1, allow_nan=False) + "\n")
    return 0


def table(files: Sequence[Path], columns: Sequence[Column], order: Sequence[int]) -> str:
    """The pictures in an order, a column for each number, and below what the columns are."""
    width = min(_SHOWN, max(len(str(file)) for file in files))
    marks = [chr(ord("a") + i % 26) * (1 + i // 26) for i in range(len(columns))]
    lines = [" " * width + "".join(f"{mark:>10}" for mark in marks)]
    for row in order:
        lines.append(f"{str(files[row])[-width:]:{width}}" + "".join(f"{column.values[row]:10.4f}" for column in columns))
    return "\n".join(lines + [""] + [f"{mark}: {column.name}" for mark, column in zip(marks, columns, strict=True)])


def _asking(args: argparse.Namespace) -> dict[str, Any]:
    """Settings of rewards that ask, where any are given. Raises ValueError for a file without a question."""
    from ..reading import read_text, refusing

    given = {name: getattr(args, name) for name in ("template", "mean") if getattr(args, name) is not None}
    if args.questions:
        with refusing(args.questions, "Write one question per line."):
            given["questions"] = tuple(line.strip() for line in read_text(args.questions).splitlines() if line.strip())
            if not given["questions"]:
                raise ValueError("it holds no question")
    return given


def _columns(reward: Any, pictures: Sequence[Tensor], prompt: str) -> list[Column]:
    """A reward's scores, and after them its answers where there are several."""
    from ..rewards.base import check_scores

    if not hasattr(reward, "explain"):
        scores, answers = _by_size(lambda images: reward.score(images, prompt), pictures), []
    else:
        values = _by_size(lambda images: reward.explain(images, prompt).values, pictures)
        scores = reward.combine(values)
        asked = reward.asked(prompt) if values.shape[1] > 1 else ()
        answers = [Column(f"{reward.name}: {question}", values[:, i].tolist()) for i, question in enumerate(asked)]
    check_scores(scores, len(pictures), reward.name)
    return [Column(reward.name, scores.tolist()), *answers]


def _by_size(function: Callable[[Tensor], Tensor], pictures: Sequence[Tensor]) -> Tensor:
    """What a function makes of pictures (H, W, 3), those of one size together, in the pictures' order."""
    import torch

    sizes: dict[torch.Size, list[int]] = {}
    for row, picture in enumerate(pictures):
        sizes.setdefault(picture.shape, []).append(row)
    values = torch.cat([function(torch.stack([pictures[row] for row in rows])).float().cpu() for rows in sizes.values()])
    return values[torch.tensor([row for rows in sizes.values() for row in rows]).argsort()]


def _picture(path: Path) -> Tensor:
    """(H, W, 3) in [0, 1] of a picture's file, turned as it says and without transparency. Raises UnusableFile."""
    import io

    import numpy
    from PIL import Image, ImageOps

    from ..inspect.canvas import to_tensor
    from ..reading import read_bytes, refusing

    with refusing(path, "Choose a picture."), Image.open(io.BytesIO(read_bytes(path, _MAX_BYTES))) as opened:
        picture = ImageOps.exif_transpose(opened)
        if picture.mode.startswith("I"):  # grey in 16 bits, which Pillow would cut off at 255
            picture = Image.fromarray((numpy.asarray(picture) / 257).clip(0, 255).round().astype(numpy.uint8))
        return to_tensor(picture)[0]
