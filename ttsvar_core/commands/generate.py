"""``python -m ttsvar_core generate "PROMPT"``: run a search and write its images, its report and its final state."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .. import names, registry
from . import numbers
from .choices import BUNDLED, add_model_arguments, load_extractor, load_models, load_reward, plan_by_name, schedule_of

if TYPE_CHECKING:
    from ..scales import ScaleSchedule
    from ..search.budget import Usual
    from ..search.plan import Plan
    from ..search.run import Result

SUMMARY = "search for the image that answers a prompt best"
STATE_FILE = "state.safetensors"
_SETTINGS = {  # of a plan's resamplings, by the option that sets it
    "lam": "--lambda", "potential": "--potential", "scheme": "--scheme", "target_ess": "--target-ess",
    "ess_threshold": "--ess-threshold",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("prompt")
    parser.add_argument("--negative", default="", help="what guidance leads away from (default: no prompt)")
    parser.add_argument("--seed", type=numbers.SEED, help="of all draws (default: 0, or that of the state gone on from)")
    parser.add_argument("--out", type=Path, default=Path("output/generate"), help="folder to write to (default: %(default)s)")
    parser.add_argument("--resume", type=Path, metavar="STATE", help="go on from the state an interrupted run left")
    _add_search_arguments(parser.add_argument_group("search"))
    _add_sampling_arguments(parser.add_argument_group("sampling"))
    add_model_arguments(parser)


def _add_search_arguments(group: Any) -> None:
    either = group.add_mutually_exclusive_group()
    either.add_argument(
        "--plan", help=f"{', '.join(names.PLANS)}, or a JSON file (default: what was measured to pay for the work of "
        f"{names.BUDGET} pictures, as for the bundled model; {names.PAPER} where nobody measured, or with settings of a plan)"
    )
    either.add_argument(
        "--budget", type=numbers.PICTURES, metavar="PICTURES",
        help="find the plan that should give the best answer for the work of so many",
    )
    group.add_argument(
        "--measured", type=Path, metavar="FILE", help="how scores foretell the end for this model and reward, for --budget (JSON)"
    )
    group.add_argument(
        "--n", type=numbers.COUNT, help="samples left at the end of a plan by name; tts-var, funnel start with 8 n (default: 1)"
    )
    group.add_argument(
        "--attempts", type=numbers.COUNT, help="search at most so often, with other draws, while --enough is not reached "
        "(default: 1, or as many as was measured to pay)"
    )
    group.add_argument("--enough", type=numbers.FINITE, metavar="SCORE", help="of an answer that needs no further attempt")
    group.add_argument(
        "--lambda", dest="lam", type=numbers.NOT_NEGATIVE, help="how strongly scores decide (default: the plan's, 10)"
    )
    group.add_argument("--potential", choices=names.POTENTIALS, help="what of the scores counts (default: the plan's)")
    group.add_argument("--scheme", choices=names.SCHEMES, help="how survivors are drawn (default: the plan's)")
    group.add_argument("--target-ess", type=numbers.SHARE, help="choose lambda so that this share of the samples stays effective")
    group.add_argument("--ess-threshold", type=numbers.SHARE, help="resample only below this share of effective samples")
    rewards, extractors = registry.usages(registry.REWARDS), registry.usages(registry.EXTRACTORS)
    group.add_argument("--reward", action="append", metavar="NAME", help=f"{rewards}; repeat to blend")
    group.add_argument("--blend", choices=names.BLENDS, default="softmax", help="how rewards become one (default: %(default)s)")
    group.add_argument("--extractor", default="latent-pool", metavar="NAME", help=extractors)
    group.add_argument("--reward-dtype", choices=names.DTYPES, default="float32", help="of both's networks (default: %(default)s)")


def _add_sampling_arguments(group: Any) -> None:
    for name, what, number in (
        ("guidance", "guidance strength", numbers.FINITE), ("tau", "temperature", numbers.POSITIVE),
        ("top-p", "nucleus", numbers.SHARE),
    ):
        said = f"{what}, for all scales or for each (default: the model's)"
        group.add_argument(f"--{name}", type=number.one_or_list, metavar="X[,X...]", help=said)
    group.add_argument("--diverse", action="store_true", help="draw the first six scales with more variety; costs nothing")
    group.add_argument("--guidance-until", type=numbers.FROM_ZERO, metavar="SCALE", help="the last guided scale (default: all)")
    group.add_argument("--pixel-budget", choices=names.PIXEL_BUDGETS, help="of the picture (default: 1M)")
    group.add_argument("--aspect-ratio", type=numbers.POSITIVE, help="height / width (default: 1)")
    group.add_argument("--whole-sketches", action="store_true", help="decode unfinished samples at full size, too")
    group.add_argument(
        "--tiled-decode", type=numbers.PIXELS, default=0, metavar="PIXELS", help="decode in tiles of this side, to save memory"
    )
    group.add_argument("--float8-cache", action="store_true", help="keys and values in one byte per number; bits change a little")
    group.add_argument(
        "--max-cache-mib", type=numbers.POSITIVE, help="cap on keys and values, in MiB; smaller groups run if need be"
    )


def main(args: argparse.Namespace) -> int:
    """Run the search. Ctrl-C leaves a state to go on from."""
    from ..infinity.text import encode_prompt
    from ..search.attempts import best_of, repeated, seed_of
    from ..search.budget import load_measured, plan_within
    from ..search.memory import Sampler
    from ..search.run import judge, run
    from ..search.save import load_state
    from ..state import start

    if args.measured and not args.budget:
        raise ValueError("--measured tells a budget how scores foretell the end; name one with --budget.")
    measured = load_measured(args.measured) if args.measured else None
    plan = _plan(args)
    reward = judge(load_reward(_reward_names(args, plan), args.blend, args.device, args.reward_dtype), plan, args.prompt)
    extractor = load_extractor(args.extractor, args.device, args.reward_dtype)
    model, encoder = load_models(args)
    conditioning = encode_prompt(encoder, args.prompt, args.negative)
    encoder.model.to("cpu")  # it is not needed again, and the search needs its room
    state = load_state(args.resume, model, conditioning) if args.resume else None
    schedule = schedule_of(model.config, {"--aspect-ratio": args.aspect_ratio, "--pixel-budget": args.pixel_budget})
    schedule = state.schedule if state else schedule
    sampling = _sampling(args, model, len(schedule))
    how = _usual(args, model, reward)
    if how.budget:
        chosen = plan_within(how.budget, model, conditioning, schedule, sampling, reward, measured, args.whole_sketches)
        plan, told = chosen.plan, {"budget": chosen.why}
        print(chosen.why + how.told)
    else:
        plan, told = _plan(args, len(schedule)), {}
    seed = args.seed or 0
    if state and state.seed not in [seed_of(seed, place) for place in range(how.attempts)]:
        if args.seed is not None:
            raise ValueError(f"the state to go on from was drawn with seed {state.seed}, the seed given is {args.seed}")
        seed = state.seed
    decode = _decode(args, model, plan)
    cap = None if args.max_cache_mib is None else int(args.max_cache_mib * 2**20)
    args.out.mkdir(parents=True, exist_ok=True)

    def search(drawn: int) -> Result:
        first = state if state and state.seed == drawn else start(model, conditioning, plan.samples, drawn, schedule)
        progress = Progress(plan, schedule, args.out / STATE_FILE)
        try:
            sampler = Sampler(sampling, cap, args.float8_cache, progress.on_scale)
            return run(first, plan, reward, extractor, sampler, decode, progress.on_step)
        except KeyboardInterrupt:
            again = "" if drawn == seed else " Attempts before this one are made again, as their answers may be better."
            raise KeyboardInterrupt(progress.saved() + again) from None
        finally:
            progress.close()

    result = best_of(list(repeated(search, seed, how.attempts, how.enough)))
    print(write_result(result._replace(report=result.report | told), args.out))
    return 0


class Progress:
    """A bar over tokens on the terminal, and the latest state, saved when the run is interrupted."""

    def __init__(self, plan: Plan, schedule: ScaleSchedule, path: Path):
        from tqdm import tqdm

        drawn = (plan.running(scale) * plan.candidates(scale) for scale in range(len(schedule)))
        total = sum(samples * tokens for samples, tokens in zip(drawn, schedule.tokens, strict=True))
        self._bar = tqdm(total=total, unit="tok", desc=plan.name, disable=None)
        self._plan, self._path, self._state = plan, path, None

    def on_scale(self, part: Any) -> None:
        """A scale was sampled, for all samples or for a group of them."""
        self._bar.update(part.samples * part.schedule.tokens[part.last_scale])
        if part.samples == self._plan.running(part.last_scale) and not self._plan.at(part.last_scale):
            self._state = part.without_cache()

    def on_step(self, step: Any) -> None:
        self._state = step.state
        if step.before[0] == step.before[0]:  # a number, not NaN
            self._bar.set_postfix_str(f"scale {step.state.last_scale}, best {max(step.before):.3f}")

    def saved(self) -> str:
        """Save the latest state and say so."""
        from ..search.save import save_state

        if self._state is None or self._state.finished:
            return "Interrupted; nothing to go on from."
        save_state(self._state, self._path)
        return (
            f"Interrupted after scale {self._state.last_scale}; run the same command with --resume {self._path} to go on."
        )

    def close(self) -> None:
        self._bar.close()


def write_result(result: Result, out: Path) -> str:
    """Write answer.png, every finished sample, a contact sheet of several, report.json and the final state, in place of an earlier
    search's.

    Returns what to tell the user.
    """
    from ..atomic import write, write_picture
    from ..inspect.canvas import to_pictures
    from ..inspect.sheet import contact_sheet
    from ..search.save import save_state

    for earlier in (*out.glob("sample-*.png"), out / "contact-sheet.png"):
        if earlier.stem.removeprefix("sample-").isdigit() or earlier.stem == "contact-sheet":
            earlier.unlink(missing_ok=True)
    pictures = to_pictures(result.images)
    write_picture(out / "answer.png", pictures[result.best])
    if len(pictures) > 1:
        for row, picture in enumerate(pictures):
            write_picture(out / f"sample-{row:02d}.png", picture)
        write_picture(out / "contact-sheet.png", contact_sheet(result.state, result.images))
    write(out / "report.json", json.dumps(result.report, indent=1, allow_nan=False) + "\n")
    save_state(result.state, out / STATE_FILE)
    score, made = result.report["answer"]["score"], len(result.report["attempts"])
    judged = "not scored" if score is None else f"{result.report['reward']} {score:.4f}"
    took = f"{result.report['token_forwards']} token forwards, {result.report['seconds']:.1f} s"
    return f"{out / 'answer.png'}  {judged}, {took}" + f", {made} attempts" * (made > 1)


def _reward_names(args: argparse.Namespace, plan: Plan) -> list[str]:
    """The rewards asked for; the bundled model's own scene verifier where none are. Raises ValueError if there is none and the plan
    needs one."""
    rewards = args.reward or (["scenes"] if args.model == BUNDLED else [])
    if plan.needs_reward and not rewards:
        known = registry.usages(registry.REWARDS)
        raise ValueError(f"plan {plan.name} scores samples and no reward was given; name one with --reward: {known}")
    return rewards


def _plan(args: argparse.Namespace, scales: int | None = None) -> Plan:
    """The plan named or in a file, with the settings given in its place. Raises ValueError for one that cannot run.

    scales: of the model's schedule; None before a model is loaded, when whatever depends on their number may pass. With a budget
    a plan that needs what that one will. Settings that would change nothing are refused.
    """
    from ..search.plan import OFFICIAL_SCALES, with_potential
    from ..search.resample import Resample

    given = {name: getattr(args, name) for name in _SETTINGS if getattr(args, name) is not None}
    if args.budget and (args.n or given):
        raise ValueError(f"--budget chooses the plan; leave {'--n' if args.n else _SETTINGS[next(iter(given))]} out")
    plan = plan_by_name("funnel" if args.budget else args.plan or names.PAPER, args.n, scales or OFFICIAL_SCALES)
    if given and not any(isinstance(stage, Resample) for stage in plan.stages):
        raise ValueError(f"{_SETTINGS[next(iter(given))]} is for plans that resample, and {plan.name} does not; leave it out")
    plan = with_potential(plan, **given)
    plan.check(scales or max([OFFICIAL_SCALES, *(stage.scale + 1 for stage in plan.stages)]))
    return plan


def _usual(args: argparse.Namespace, model: Any, reward: Any) -> Usual:
    """Budget (0: by plan), attempts and what ends them, as asked for; where nothing says how to search, what was measured to pay.

    Raises ValueError for a score that ends attempts where there is one only, and as `check_attempts`."""
    from ..search.attempts import check_attempts
    from ..search.budget import Usual, usual_search

    asked = args.whole_sketches or any(getattr(args, name) is not None for name in ("budget", "plan", "n", *_SETTINGS))
    usual = (None if asked else usual_search(model, reward, args.attempts)) or Usual(args.budget or 0, args.attempts or 1)
    check_attempts(reward, usual.attempts)
    if args.enough is None:
        return usual
    if usual.attempts == 1:
        raise ValueError("--enough says when no further attempt is made; allow several with --attempts.")
    return usual._replace(enough=args.enough)


def _decode(args: argparse.Namespace, model: Any, plan: Plan) -> Callable:
    """How states are shown. Raises ValueError for tiles that do not fit the model, and for whole sketches to be foreseen."""
    from ..decoding import decode, sketch, tile_cells

    if args.tiled_decode:
        tile_cells(model, args.tiled_decode)
    if args.whole_sketches and plan.foreseen:
        raise ValueError(f"plan {plan.name} looks at foreseen sketches, which are small; leave --whole-sketches out")
    if args.whole_sketches:
        return partial(decode, tile=args.tiled_decode)
    return partial(sketch, tile=args.tiled_decode, foreseen=plan.foreseen)


def _sampling(args: argparse.Namespace, model: Any, scales: int) -> Any:
    from ..config import DIVERSE_AR

    given = {name: getattr(args, name) for name in ("guidance", "tau", "top_p") if getattr(args, name) is not None}
    given |= {"certainty": DIVERSE_AR} if args.diverse else {}
    sampling = replace(model.config.sampling, **given)
    return sampling if args.guidance_until is None else sampling.guided_until(args.guidance_until, scales)
