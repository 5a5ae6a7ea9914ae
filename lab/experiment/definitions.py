"""The experiments: which ways of searching are run, which are compared, and what the paper published for each.

Source of all published figures: TTS-VAR, arXiv 2507.18537, tables (GenEval / ImageReward).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ttsvar_core.search.plan import best_of_n, importance_sampling, scored_at

from . import ablations, beyond, equal_cost
from .arms import Arm, Experiment, Pair, Setting, Table, best, best_name, difference, images_paid_for, paper
from .foresight import completed
from .prices import Scorer, scorers

# GenEval / ImageReward per N: raw is N = 1.
_RAW = (0.6946, 1.1320)
_PUBLISHED = {
    "importance": {2: (0.7022, 1.1941), 4: (0.7116, 1.2883), 8: (0.7181, 1.3657)},
    "best-of": {1: _RAW, 2: (0.7087, 1.2545), 4: (0.7244, 1.3471), 8: (0.7364, 1.4144)},
    "tts-var": {1: (0.7253, 1.3226), 2: (0.7403, 1.4136), 4: (0.7437, 1.4605), 8: (0.7530, 1.4995)},
}


def build(name: str, setting: Setting, n: Sequence[int] | None = None) -> Experiment:
    """The experiment called ``name`` for a schedule and what else ``setting`` tells; ``n`` replaces the paper's values of N.

    Raises ValueError for an unknown name, and as the plans do for a schedule they do not fit.
    """
    if name not in EXPERIMENTS:
        raise ValueError(f"no experiment {name!r}; expected one of {', '.join(EXPERIMENTS)}")
    maker, default = EXPERIMENTS[name]
    return maker(setting, tuple(sorted(set(n or default))))


def n_curve(setting: Setting, n: tuple[int, ...]) -> Experiment:
    """Score over N for raw, Importance Sampling, Best-of-N and TTS-VAR, against samples and against operations (Figures 3, 8)."""
    scales = setting.scales
    largest = images_paid_for(setting, paper(max(n), setting).plan)
    families = {
        "Best-of-N": [best(count) for count in range(1, max(largest, *n) + 1)],
        "Importance Sampling": [Arm(f"importance-{count}", importance_sampling(count, scales)) for count in n if count > 1],
        "TTS-VAR": [paper(count, setting) for count in n],
    }
    arms = tuple(arm for family in families.values() for arm in family)
    curves = {label: tuple(arm.name for arm in family) for label, family in families.items()}
    return Experiment("n-curve", arms, _curve_tables(setting, n), curves)


def _curve_tables(setting: Setting, n: tuple[int, ...]) -> tuple[Table, ...]:
    several = [count for count in n if count > 1]
    against_raw = [_published_pair(family, count, "best-of", 1) for family in ("importance", "best-of") for count in several]
    against_best = [_published_pair("tts-var", count, "best-of", count) for count in n]
    against_importance = [_published_pair("tts-var", count, "importance", count) for count in several]
    equal_cost = [Pair(arm.name, best_name(images_paid_for(setting, arm.plan))) for arm in (paper(count, setting) for count in n)]
    return (
        Table("Against raw generation (Table 6, Figure 3)", tuple(against_raw)),
        Table("TTS-VAR against Best-of-N at the same N (Table 6)", tuple(against_best)),
        Table("TTS-VAR against Importance Sampling at the same N (Table 6)", tuple(against_importance)),
        Table(
            "TTS-VAR against Best-of-N at no fewer token-forwards (Figure 8)", tuple(equal_cost),
            "Best-of-N gets as many images as TTS-VAR's token-forwards pay for, rounded up, so any advantage of TTS-VAR is "
            "not one of computing more.",
        ),
    )


def _published_pair(family: str, n: int, base: str, base_n: int) -> Pair:
    published = difference(_PUBLISHED[family].get(n), _PUBLISHED[base].get(base_n))
    return Pair(f"{family}-{n}", f"{base}-{base_n}", published)


def consistency(setting: Setting, n: tuple[int, ...]) -> Experiment:
    """How often the best sample of an intermediate scale is also the best in the end, per potential (Figures 5b, 6); how well
    scores rank what ends, and how much of the end each scale has fixed."""
    everywhere = tuple(range(setting.scales - 1))
    arms = [Arm(f"watched-{count}", scored_at(best_of_n(count), everywhere)) for count in n]
    arms += [completed(count, scale) for count in n if count > 1 for scale in everywhere]
    return Experiment("consistency", tuple(arms), ())


def pool(setting: Setting, n: tuple[int, ...]) -> Experiment:
    """Samples of each prompt, scored by every reward at every scale it can judge, on sketches and, where the model has them, on
    foreseen ones: what plans are rated on without drawing."""
    arms = [
        Arm(pool_name(count, scorer), scorer.watching(best_of_n(count), setting), reward=scorer.reward)
        for count in n for scorer in scorers(setting)
    ]
    return Experiment("pool", tuple(arms), ())


def pool_name(samples: int, scorer: Scorer) -> str:
    """Name of the arm of a pool of so many samples that were scored so."""
    return f"pool-{samples}-by-{scorer.name}"


EXPERIMENTS: dict[str, tuple[Callable[[Setting, tuple[int, ...]], Experiment], tuple[int, ...]]] = {
    "n-curve": (n_curve, (1, 2, 4, 8)),
    "single-scale": (ablations.single_scale, (4,)),
    "consistency": (consistency, (8,)),
    "ablations": (ablations.experiment, (2,)),
    "beyond": (beyond.experiment, (2,)),
    "pool": (pool, (16,)),
    "equal-cost": (equal_cost.experiment, (2, 4, 8)),
}
ADVISED = "equal-cost"  # chooses plans by what a pool advises
PRICED = ("consistency", "pool", "equal-cost")  # whose arms or reports need to know what plans cost
