"""Beyond the paper: resampling schemes, lambda by effective sample size, later resampling, and what clustering looks at."""

from __future__ import annotations

from dataclasses import replace

from ttsvar_core.search.plan import stretched, with_potential
from ttsvar_core.search.resample import Resample

from .arms import Arm, Experiment, Pair, Setting, Table, best, images_paid_for, paper, unique

SCHEMES = ("systematic", "stratified", "residual", "top-k")
LATER = (8, 11)
TARGETS = (0.25, 0.5, 0.75)
THRESHOLDS = (0.5,)
STRONGER = (30.0, 100.0)  # rewards in [0, 1] spread less over one prompt's samples than ImageReward, which the paper's 10 suits


def experiment(setting: Setting, n: tuple[int, ...]) -> Experiment:
    """Variants of the whole search, each against the paper's, for every N."""
    arms, tables = [], []
    for count in n:
        base = paper(count, setting)
        families, (later, last) = _variants(setting, base), _later(setting, base, count)
        arms += [base, *(arm for family in families.values() for arm in family), *later]
        for title, family in families.items():
            tables.append(Table(f"{title}, N = {count}", tuple(Pair(arm.name, base.name) for arm in family)))
        tables.append(last)
    return Experiment("beyond", unique(arms), tuple(tables))


def _variants(setting: Setting, base: Arm) -> dict[str, list[Arm]]:
    """What is changed, by the titles of the tables."""

    def variant(name: str, **settings) -> Arm:
        return Arm(f"{base.name}-{name}", with_potential(base.plan, **settings))

    first, *others = setting.extractors
    return {
        "Resampling schemes against multinomial": [variant(scheme, scheme=scheme) for scheme in SCHEMES],
        "Lambda by effective sample size against lambda 10": [
            *(variant(f"ess-{share:g}", target_ess=share) for share in TARGETS),
            *(variant(f"ess-below-{share:g}", ess_threshold=share) for share in THRESHOLDS),
        ],
        "Lambda above the paper's, against lambda 10": [variant(f"lambda-{lam:g}", lam=lam) for lam in STRONGER],
        f"Extractors against {first}": [Arm(f"{base.name}-{name}", base.plan, name) for name in others],
    }


def _later(setting: Setting, base: Arm, n: int) -> tuple[list[Arm], Table]:
    """The paper's cuts by potential moved to later scales, where a small model's sketches say more; this costs more."""
    places = iter(stretched(LATER, setting.scales))
    stages = tuple(replace(stage, scale=next(places)) if stage.kind == Resample.kind else stage for stage in base.plan.stages)
    where = [stage.scale for stage in stages]
    if where != sorted(set(where)):
        return [], Table(f"Later resampling, N = {n}", ())
    late = Arm(f"{base.name}-later", replace(base.plan, name="tts-var-later", stages=stages))
    costs = [best(images_paid_for(setting, arm.plan)) for arm in (base, late)]
    pairs = (Pair(late.name, base.name), Pair(base.name, costs[0].name), Pair(late.name, costs[1].name))
    later = " and ".join(map(str, where[-len(LATER) :]))
    note = f"Resampling at scales {later}. Last two rows: Best-of-N at no fewer token-forwards."
    return [late, *costs], Table(f"Later resampling, N = {n}", pairs, note)
