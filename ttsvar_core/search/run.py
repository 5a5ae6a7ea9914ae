"""The whole search: sample to the next stage, look, select, sample on. Start reading at `search`."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

from torch import Tensor

from ..decoding import sketch
from ..infinity.cache import compact
from ..rewards.base import check_prompt, foretells
from ..selection import Selection
from ..state import SearchState
from .memory import Sampler
from .plan import Plan
from .report import Meter, report
from .score import best
from .view import View

if TYPE_CHECKING:
    from ..extractors.base import FeatureExtractor
    from ..rewards.base import Answers, Reward


class Step(NamedTuple):
    """What a search did up to a scale where something happens, that included.

    state: the samples that go on, without their cache. before: (P,) the scores of those that ran the scale, NaN where nothing
    scored them. selections: who went on, one after another. images: (P, H, W, 3) in [0, 1] of the finished samples, None before.
    decoded: how many pictures were decoded. seconds: spent on "sample", "decode", "describe", "score" and "select". cache_bytes: of
    the keys and values that the search goes on with. answers: what the scores before are made of, where there are any and their
    reward told.
    """

    state: SearchState
    before: tuple[float, ...]
    selections: tuple[Selection, ...]
    images: Tensor | None
    decoded: int
    seconds: dict[str, float]
    cache_bytes: int
    answers: Answers | None = None


class Result(NamedTuple):
    """state: the samples that finished. images: (P, H, W, 3) in [0, 1]. scores: (P,), None without a reward. best: the
    row of the answer. report: plain JSON values, see `report.report`."""

    state: SearchState
    images: Tensor
    scores: Tensor | None
    best: int
    report: dict

    def __repr__(self) -> str:
        return f"Result({len(self.images)} images, best {self.best}, answer {self.report['answer']['score']})"


def search(
    state: SearchState,
    plan: Plan,
    reward: Reward | None = None,
    extractor: FeatureExtractor | None = None,
    sampler: Sampler = Sampler(),  # noqa: B008 (a frozen value)
    decode: Callable[[SearchState], Tensor] | None = None,
) -> Iterator[Step]:
    """Carry out `plan` from `state`: its beginning (`state.start`), or the state after any scale of an interrupted run.

    reward: may be None where a plan needs none, that is for a single sample. extractor: may be None where nothing is clustered.
    decode: how pictures are made of states, finished or not; by default as sketches, foreseen if the plan says so. Raises
    ValueError before anything runs where plan, models and state do not fit together or the reward cannot judge the prompt (see
    `judge`), and as the stages do.
    """
    check(state, plan, reward, extractor)
    sampler.check(state)
    reward = judge(reward, plan, state.conditioning.prompt)
    decode = decode or partial(sketch, foreseen=plan.foreseen)
    for scale in plan.stops(len(state.schedule)):
        if scale < state.next_scale:
            continue
        began = time.perf_counter()
        candidates = plan.candidates(scale)
        state = sampler.together(state, scale, candidates)
        if state.last_scale < scale:
            state = state.without_cache()  # nobody else holds it: its keys and values make room for those of groups
            state = sampler.in_turns(state, scale, candidates)
        seconds = {"sample": time.perf_counter() - began}
        state, step = _act(View(state, reward, extractor, decode), plan, seconds)
        if state.cache is not None:
            chunks, state = list(state.cache.chunks), state.without_cache()  # the list alone holds them: each goes as it is copied
            state = state._replace(cache=compact(chunks))
            step = step._replace(cache_bytes=state.cache.nbytes)
        yield step


def _act(view: View, plan: Plan, seconds: dict[str, float]) -> tuple[SearchState, Step]:
    """What the stages after the view's scale do: the state that goes on, and the step told to whoever listens."""
    scale, finished, selections = view.state.last_scale, view.state.finished, []
    began = time.perf_counter()
    if finished and view.reward is not None:
        view.scored()
    for stage in plan.at(scale):
        selection = stage.select(view)
        if selection is not None:
            view.select(selection)
            selections.append(selection)
    before = view.state.lineage[-len(selections)].scores if selections else view.state.scores_at(scale)
    images = view.images if finished else None
    looked = sum(view.seconds.values())
    seconds |= view.seconds
    if plan.at(scale):
        seconds["select"] = time.perf_counter() - began - looked
    state = view.state
    return state, Step(state.without_cache(), before, tuple(selections), images, view.decoded, seconds, 0, view.answers)


def run(
    state: SearchState,
    plan: Plan,
    reward: Reward | None = None,
    extractor: FeatureExtractor | None = None,
    sampler: Sampler = Sampler(),  # noqa: B008 (a frozen value)
    decode: Callable[[SearchState], Tensor] | None = None,
    on_step: Callable[[Step], None] | None = None,
) -> Result:
    """`search` to its end, with a report; the answer is the finished sample of the highest reward."""
    meter = Meter(plan, state.schedule, sampler.on_scale)
    for step in search(state, plan, reward, extractor, replace(sampler, on_scale=meter.sampled), decode):
        meter.acted(step)
        if on_step:
            on_step(step)
    scores = step.state.scores[:, -1]
    scored = not bool(scores.isnan().any())  # without a reward, or with one that `search` left out, nothing is
    row = int(best(step.state).ancestors[0]) if scored else 0
    names = {"reward": reward.name if scored else None, "extractor": getattr(extractor, "name", None)}
    scores = scores if scored else None
    return Result(step.state, step.images, scores, row, report(meter, step.state, row, plan, names))


def judge(reward: Reward | None, plan: Plan, prompt: str) -> Reward | None:
    """The reward, or None where it cannot judge the prompt and decides nothing. Raises ValueError where it decides."""
    try:
        check_prompt(reward, prompt)
    except ValueError:
        if plan.needs_reward:
            raise
        return None
    return reward


def check(state: SearchState, plan: Plan, reward: Reward | None, extractor: FeatureExtractor | None) -> None:
    """Raise ValueError, with the remedy, unless `plan` can go on from `state` with these."""
    plan.check(len(state.schedule))
    scored = plan.scored(len(state.schedule))
    clusters = [stage.scale for stage, samples in plan.met() if stage.sees(samples) == "vectors"]
    if extractor is None and clusters:
        raise ValueError(f"plan {plan.name} clusters at scale {clusters[0]} and no extractor was given; give one")
    if reward is None and plan.needs_reward:
        raise ValueError(f"plan {plan.name} scores samples at scale {scored[0]} and no reward was given; give one")
    if plan.foreseen and state.model.foresight is None:
        raise ValueError(
            f"plan {plan.name} looks at foreseen sketches, and {state.model.name} has nothing that foretells them. Leave that out "
            "of the plan, or train it (python -m lab.foresight)"
        )
    if foretells(reward):
        reward.check_state(state, [scale for scale in scored[:-1] if scale >= state.next_scale])
    _check_past(state, plan)


def _check_past(state: SearchState, plan: Plan) -> None:
    """Raise ValueError for a state that the plan would not have come to."""
    if state.finished:
        raise ValueError("all scales of the state are sampled already; decode it, or start anew")
    expected = plan.running(state.next_scale)
    past = [step.scale for step in state.lineage]
    due = plan.selects(state.next_scale)
    if state.samples != expected or past != due:
        raise ValueError(
            f"the state has {state.samples} samples after selections at scales {past}; plan {plan.name} would have "
            f"{expected} after selections at {due}. Go on with the plan the state was made with"
        )
    scored = [scale for scale in plan.scored(len(state.schedule)) if scale < state.next_scale]
    unscored = [scale for scale in scored if state.scores[:, scale].isnan().any()]
    if unscored:
        raise ValueError(
            f"the state has no scores at scales {unscored}, which plan {plan.name} scores. Go on with the plan the state was "
            "made with"
        )
