"""Beyond the paper: resampling schemes, lambda by effective sample size, later resampling, and what clustering looks at."""

from __future__ import annotations

from dataclasses import replace

from ttsvar_core.search.plan import stretched, with_potential
from ttsvar_core.search.resample import Resample

from .arms import Arm, Experiment, Pair, Part, Setting, Table, against, assembled, best, images_paid_for, paper

SCHEMES = ("systematic", "stratified", "residual", "top-k")
LATER = (8, 11)
TARGETS = (0.25, 0.5, 0.75)
THRESHOLDS = (0.5,)
STRONGER = (30.0, 100.0)  # rewards in [0, 1] spread less over one prompt's samples than ImageReward, which the paper's 10 suits


def experiment(setting: Setting, n: tuple[int, ...]) -> Experiment:
    """Variants of the whole search, each against the paper's, for every N."""
    return assembled("beyond", (part for count in n for part in _parts(setting, paper(count, setting), count)))


def _parts(setting: Setting, base: Arm, n: int) -> list[Part]:
    def variant(name: str, **settings) -> Arm:
        return Arm(f"{base.name}-{name}", with_potential(base.plan, **settings))

    first, *others = setting.extractors
    families = {
        "Resampling schemes against multinomial": [variant(scheme, scheme=scheme) for scheme in SCHEMES],
        "Lambda by effective sample size against lambda 10": [
            *(variant(f"ess-{share:g}", target_ess=share) for share in TARGETS),
            *(variant(f"ess-below-{share:g}", ess_threshold=share) for share in THRESHOLDS),
        ],
        "Lambda above the paper's, against lambda 10": [variant(f"lambda-{lam:g}", lam=lam) for lam in STRONGER],
        f"Extractors against {first}": [Arm(f"{base.name}-{name}", base.plan, name) for name in others],
    }
    parts = [against(base, ((arm, {}) for arm in family), n, f"{title}, N = {n}") for title, family in families.items()]
    return [*parts, _later(setting, base, n)]


def _later(setting: Setting, base: Arm, n: int) -> Part:
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
