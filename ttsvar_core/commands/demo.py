"""``python -m ttsvar_core demo``: one search with the bundled model, told in pictures, and raw generation beside TTS-VAR."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from . import numbers

if TYPE_CHECKING:
    from PIL import Image, ImageDraw

    from ..scenes.verify import Judgement
    from ..search.budget import Usual
    from ..search.plan import Plan
    from ..search.run import Result
    from ..state import SearchState

SUMMARY = "search with the bundled model and draw how it went"
PROMPT = "a photo of a red circle left of a blue square"
PROMPTS = 12  # in the comparison: the head of the test list, the scene world's categories in turn
SIDE = 176
_PAIR, _CAPTION, _GAP = 2 * SIDE + 6, 62, 20
_RIGHT, _WRONG = (88, 178, 106), (214, 88, 82)
_NEXT = """
Look next:
  python quickstart.py comfyui     the same search as a graph in ComfyUI, node by node
  README.md                        the files for Infinity-2B and 8B, the nodes, the library
  {python} -m ttsvar_core --help
                                   search with your own prompt, model and reward"""


class Answer(NamedTuple):
    """A prompt's picture (1, H, W, 3) by one method, what the verifier says of it, and after how many attempts."""

    prompt: str
    image: Any
    judgement: Judgement
    attempts: int = 1


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--out", type=Path, default=Path("output/demo"), help="folder for the pictures (default: %(default)s)")
    parser.add_argument("--prompt", default=PROMPT, help="a scene the bundled model knows (default: %(default)s)")
    parser.add_argument("--seed", type=numbers.SEED, default=1)


def main(args: argparse.Namespace) -> int:
    for line in demo(args.prompt, args.seed, args.out):
        print(line, flush=True)
    return 0


def demo(prompt: str, seed: int, out: Path):
    """Search, draw and write everything to ``out``; yields what there is to say, line by line.

    Raises ValueError (PromptError) for a prompt that is not of the scene world, before anything is loaded.
    """
    from ..atomic import write, write_picture
    from ..inspect.canvas import fitted, to_pictures
    from ..scenes.grammar import benchmark_prompts, parse_prompt
    from ..weights import load_bundled

    parse_prompt(prompt)
    models = load_bundled()
    yield f"A search for {prompt!r} ..."
    result, told, why = _search(models, prompt, seed)
    yield f"  {why}"
    image = result.images[result.best][None]
    judgement = _judge(image, prompt)
    out.mkdir(parents=True, exist_ok=True)
    write_picture(out / "picture.png", fitted(to_pictures(image)[0], 512))
    write_picture(out / "search.png", told)
    write(out / "report.json", json.dumps(result.report, indent=1) + "\n")
    yield f"  {out / 'picture.png'}  the picture; the verifier says: {judgement.reason}"
    yield f"  {out / 'search.png'}  samples with scores, the family tree, scores per scale"
    yield f"  {out / 'report.json'}  every step in numbers ({result.report['seconds']:.1f} s)"
    yield f"One picture beside the search's, {PROMPTS} prompts of the test list, same seed ..."
    pairs = [_pair(models, scene.text, seed) for scene in benchmark_prompts("test", PROMPTS)]
    write_picture(out / "raw-beside-search.png", comparison(pairs))
    raw, searched = (sum(pair[side].judgement.correct for pair in pairs) for side in (0, 1))
    attempts = sum(answer.attempts for _, answer in pairs)
    told = f"raw {raw} of {PROMPTS} right, searched {searched} of {PROMPTS} in {attempts} attempts"
    yield f"  {out / 'raw-beside-search.png'}  {told}"
    yield _NEXT.format(python=_this_python())


def _this_python() -> str:
    """The interpreter that runs this, as one types it in this folder."""
    python = Path(sys.executable)
    return str(python.relative_to(Path.cwd())) if python.is_relative_to(Path.cwd()) else str(python)


class Searches(NamedTuple):
    """The usual search for a prompt with the bundled model: how so many samples begin with a seed, and why it is that."""

    begin: Callable[[int, int], SearchState]
    plan: Plan
    how: Usual
    why: str

    def run(self, seed: int, decode: Any = None, on_step: Any = None) -> Result:
        """One attempt."""
        from ..rewards.scenes import SceneReward
        from ..search.run import run

        return run(self.begin(self.plan.samples, seed), self.plan, SceneReward(), decode=decode, on_step=on_step)


def _searches(models: Any, prompt: str) -> Searches:
    from ..infinity.text import encode_prompt
    from ..rewards.scenes import SceneReward
    from ..search.budget import plan_within, usual_search
    from ..state import start

    model, encoder = models
    conditioning, how = encode_prompt(encoder, prompt), usual_search(model, SceneReward())
    chosen = plan_within(how.budget, model, conditioning, model.schedule(), model.config.sampling, SceneReward())
    return Searches(partial(start, model, conditioning), chosen.plan, how, chosen.why + how.told)


def _search(models: Any, prompt: str, seed: int) -> tuple[Result, Image.Image, str]:
    """The best attempt, its story (sketches at the cut, finished samples, family tree, charts), and why it was planned so."""
    import torch

    from ..decoding import sketch
    from ..inspect.canvas import stacked
    from ..inspect.plots import charts
    from ..inspect.sheet import contact_sheet
    from ..inspect.tree import family_tree
    from ..search.attempts import best_of, repeated

    searches, seen = _searches(models, prompt), {}

    def attempt(seed: int) -> Result:
        looked, scored = seen[seed] = {}, {}

        def look(state: SearchState) -> Any:
            looked[state.last_scale] = state, sketch(state, foreseen=searches.plan.foreseen)
            return looked[state.last_scale][1]

        return searches.run(seed, look, lambda step: scored.setdefault(step.state.last_scale, step.before))

    result = best_of(list(repeated(attempt, seed, searches.how.attempts, searches.how.enough)))
    looked, scored = seen[result.state.seed]
    sheets = [contact_sheet(state.with_scores(torch.tensor(scored[at])), images, 128) for at, (state, images) in looked.items()]
    return result, stacked([*sheets, family_tree(result.state, result.images), charts(result.state)]), searches.why


def _pair(models: Any, prompt: str, seed: int) -> tuple[Answer, Answer]:
    """One prompt's picture, drawn alone and searched for."""
    from ..search.attempts import best_of, repeated
    from ..search.plan import raw

    searches = _searches(models, prompt)
    alone = searches._replace(plan=raw()).run(seed)
    found = list(repeated(searches.run, seed, searches.how.attempts, searches.how.enough))
    images = [result.images[result.best][None] for result in (alone, best_of(found))]
    raw_answer, answer = (Answer(prompt, image, _judge(image, prompt)) for image in images)
    return raw_answer, answer._replace(attempts=len(found))


def _judge(image: Any, prompt: str) -> Judgement:
    from ..rewards.scenes import judge_images
    from ..scenes.grammar import parse_prompt

    return judge_images(image, parse_prompt(prompt))[0]


def comparison(pairs: list[tuple[Answer, Answer]], columns: int = 4) -> Image.Image:
    """Pairs of answers, raw at the left of each, framed green where the verifier finds what was asked for."""
    from PIL import Image, ImageDraw

    from ..inspect.canvas import BACKGROUND, MARGIN

    rows = -(-len(pairs) // columns)
    size = (2 * MARGIN + columns * (_PAIR + _GAP) - _GAP, 2 * MARGIN + rows * (SIDE + _CAPTION + _GAP) - _GAP)
    sheet = Image.new("RGB", size, BACKGROUND)
    draw = ImageDraw.Draw(sheet)
    for index, pair in enumerate(pairs):
        left = MARGIN + index % columns * (_PAIR + _GAP)
        top = MARGIN + index // columns * (SIDE + _CAPTION + _GAP)
        _draw_pair(sheet, draw, pair, (left, top))
    return sheet


def _draw_pair(
    sheet: Image.Image, draw: ImageDraw.ImageDraw, pair: tuple[Answer, Answer], corner: tuple[int, int]
) -> None:
    from ..inspect.canvas import MUTED, TEXT, to_pictures
    from ..inspect.letters import font, write

    left, top = corner
    write(draw, (left, top), pair[0].prompt.removeprefix("a photo of "), _PAIR, 17, TEXT)
    for side, answer in enumerate(pair):
        x, y = left + side * (_PAIR - SIDE), top + 30
        picture = to_pictures(answer.image)[0].resize((SIDE - 8, SIDE - 8))
        colour = _RIGHT if answer.judgement.correct else _WRONG
        draw.rectangle((x, y, x + SIDE - 1, y + SIDE - 1), fill=colour)
        sheet.paste(picture, (x + 4, y + 4))
        words = f"{('raw', 'searched')[side]}: {'right' if answer.judgement.correct else 'wrong'}"
        draw.text((x, y + SIDE + 6), words, colour if answer.judgement.correct else MUTED, font(15))
