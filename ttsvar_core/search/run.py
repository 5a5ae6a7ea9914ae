"""The whole search in one loop, over the same functions the nodes call. Start reading at `run`."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from torch import Tensor

from ..bsq.bits import cell_grid
from ..config import Sampling
from ..decoding import check_shrink, decode, tile_cells
from ..infinity.cache import compact
from ..scales import ScaleSchedule
from .features import FeatureExtractor
from .memory import check_cap, fits_cap, sample_within
from .plan import Plan, PotentialSelector, check
from .report import Hooks, Recorder, answer
from .select import best, cluster_select, potential_select, score
from .state import SearchState, start

if TYPE_CHECKING:
    from ..image_model import ImageModel
    from ..infinity.text import Conditioning
    from ..rewards.base import Reward


class Result(NamedTuple):
    """state: the samples that finished. images: (P, H, W, 3) in [0, 1]. scores: (P,), None without a reward. best: the
    row of the answer. report: plain JSON values, see `report.Recorder`."""

    state: SearchState
    images: Tensor
    scores: Tensor | None
    best: int
    report: dict

    def __repr__(self) -> str:
        return f"Result({len(self.images)} images, best {self.best}, answer {self.report['answer']['score']})"


def run(
    model: ImageModel,
    conditioning: Conditioning,
    plan: Plan,
    seed: int,
    reward: Reward | None = None,
    extractor: FeatureExtractor | None = None,
    sampling: Sampling | None = None,
    schedule: ScaleSchedule | None = None,
    hooks: Hooks | None = None,
    *,
    max_cache_bytes: int | None = None,
    float8_cache: bool = False,
    look_shrink: int = 1,
    decode_tile: int = 0,
    state: SearchState | None = None,
) -> Result:
    """Carry out `plan` for one prompt and answer with the finished sample of the highest reward.

    reward: may be None where a plan needs none, that is for a single sample. extractor: may be None where nothing is
    clustered. sampling, schedule: the model's own by default. max_cache_bytes, float8_cache: cap on keys and values,
    and one byte for each number of them, see `memory`. look_shrink: show unfinished samples this many times smaller, see
    `decoding.decode_features`; the finished ones are always scored at full size. decode_tile: decode all of them in tiles
    of this many pixels a side, see `decoding.decode` (0: whole).
    state: go on from this state of an interrupted run of the same plan, with its seed and schedule.
    Raises ValueError before anything runs where plan, models and schedule do not fit together, and as the steps do.
    """
    schedule = state.schedule if state is not None else schedule or model.schedule()
    sampling = sampling or model.config.sampling
    _check(model, plan, schedule, sampling, reward, extractor)
    check_cap(model, schedule, sampling, max_cache_bytes, float8_cache)
    check_shrink(cell_grid(schedule.final, model.patchify), look_shrink)
    if decode_tile:
        tile_cells(model, decode_tile)
    record = Recorder(plan, schedule, hooks)
    state = _resumable(state, plan, seed) or start(model, conditioning, plan.samples, seed, schedule)
    record.done(state)
    for scale in range(state.next_scale, len(schedule)):
        if not plan.stops(scale):
            continue
        if not fits_cap(state, scale, sampling, max_cache_bytes, float8_cache):
            state = state.without_cache()
        held, state = [state], None  # nothing but the list holds the cache, so that it can be freed when memory runs out
        state = sample_within(
            held, scale, sampling, max_cache_bytes=max_cache_bytes, float8_cache=float8_cache, on_scale=record.ran
        )
        images = _look(state, plan, extractor, record, 1 if state.finished else look_shrink, decode_tile)
        state = _score(state, plan, reward, images, record)
        state, images = _select(state, plan, extractor, images, record)
        images = images if state.finished else None  # not to stay beside the next scales
        chunks, state = _taken_out(state)
        state = state._replace(cache=None if chunks is None else compact(chunks))
        record.done(state)
    row = int(best(state)[1].ancestors[0]) if reward is not None else 0
    scores = state.scores[:, -1] if reward is not None else None
    return Result(state, images, scores, row, _report(record, state, row, plan, reward, extractor))


def _check(model, plan, schedule, sampling, reward, extractor) -> None:
    check(plan, schedule)
    sampling.check(model.config.transformer.depth, range(len(schedule)))
    clusters = [scale for scale in range(len(schedule)) if plan.clusters(scale)]
    if extractor is None and clusters:
        raise ValueError(f"plan {plan.name} clusters at scale {clusters[0]} and no extractor was given; give one")
    if reward is None and plan.needs_reward:
        scored = next(scale for scale in range(len(schedule)) if plan.scores(scale))
        raise ValueError(f"plan {plan.name} scores samples at scale {scored} and no reward was given; give one")


def _resumable(state: SearchState | None, plan: Plan, seed: int) -> SearchState | None:
    """`state` if the plan can go on from it. Raises ValueError for the state of another plan or seed."""
    if state is None:
        return None
    if state.next_scale == 0 or state.finished:
        raise ValueError("the state to go on from is not in the middle of a run; start without it")
    if state.seed != seed:
        raise ValueError(f"the state to go on from was drawn with seed {state.seed}, the seed given is {seed}; give {state.seed}")
    expected = plan.survivors[state.last_scale]
    past = [step.scale for step in state.lineage]
    due = [scale for scale, _ in plan.selectors if scale < state.next_scale]
    if state.samples != expected or past != due:
        raise ValueError(
            f"the state has {state.samples} samples after selections at scales {past}; plan {plan.name} would have "
            f"{expected} after selections at {due}. Go on with the plan the state was made with"
        )
    unscored = [scale for scale in range(state.next_scale) if plan.scores(scale) and state.scores[:, scale].isnan().any()]
    if unscored:
        raise ValueError(
            f"the state has no scores at scales {unscored}, which plan {plan.name} scores. Go on with the plan the state was "
            "made with"
        )
    return state


def _look(state: SearchState, plan: Plan, extractor, record: Recorder, shrink: int, tile: int) -> Tensor | None:
    """The images of the samples if anything looks at them after this scale, decoded once for all that do."""
    scale = state.last_scale
    if not plan.looks(scale, extractor):
        return None
    with record.stage(scale, "decode"):
        images = decode(state, shrink=shrink, tile=tile)
    record.decoded(scale)
    return images


def _score(state: SearchState, plan: Plan, reward, images: Tensor | None, record: Recorder) -> SearchState:
    """The state with its scores, if the plan scores this scale."""
    scale = state.last_scale
    if reward is None or not plan.scores(scale):
        return state
    with record.stage(scale, "score"):
        state, _ = score(state, reward, images)
    record.scored(state)
    return state


def _select(
    state: SearchState, plan: Plan, extractor, images: Tensor | None, record: Recorder
) -> tuple[SearchState, Tensor | None]:
    """The survivors of this scale and their images."""
    scale, selector = state.last_scale, plan.selector(state.last_scale)
    if selector is None:
        return state, images
    keep = plan.survivors[scale]
    with record.stage(scale, "select"):
        if isinstance(selector, PotentialSelector):
            state, selection = potential_select(state, keep, **selector.settings())
        else:
            state, selection = cluster_select(state, extractor, keep, images)
    record.selected(state, selection)
    return state, None if images is None else images[selection.ancestors.to(images.device)]


def _taken_out(state: SearchState) -> tuple[list | None, SearchState]:
    """The chunks of a state's cache and the state without it, so that the caller alone holds them and `compact` can free
    each before it copies the next."""
    return (None if state.cache is None else list(state.cache.chunks)), state.without_cache()


def _report(record: Recorder, state: SearchState, row: int, plan: Plan, reward, extractor) -> dict:
    seconds = sum(sum(one["seconds"].values()) for one in record.scales)
    return {
        "prompt": state.conditioning.prompt,
        "negative_prompt": state.conditioning.negative_prompt,
        "model": {"name": state.model.name, "fingerprint": state.model.fingerprint},
        "seed": state.seed,
        "plan": plan.to_json(),
        "reward": getattr(reward, "name", None),
        "extractor": getattr(extractor, "name", None),
        "sampling": [{**step._asdict(), "guidance_layers": list(step.guidance_layers)} for step in state.steps],
        "token_forwards": sum(one["token_forwards"] for one in record.scales),
        "decodes": sum(one["decodes"] for one in record.scales),
        "peak_cache_bytes": max(one["cache_bytes"] for one in record.scales),
        "seconds": seconds,
        "scales": record.scales,
        "answer": answer(state, row),
    }
