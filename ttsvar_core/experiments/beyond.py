"""Beyond the paper: resampling schemes, lambda by effective sample size, and what clustering looks at."""

from __future__ import annotations

from ..search.plan import tts_var, with_potential
from ..search.resample import SCHEMES
from .arms import Arm, Experiment, Pair, Setting, Table, unique

TARGETS = (0.25, 0.5, 0.75)
THRESHOLDS = (0.5,)


def experiment(setting: Setting, n: tuple[int, ...]) -> Experiment:
    """Variants of the whole search, each against the paper's, for every N."""
    arms: list[Arm] = []
    tables: list[Table] = []
    for count in n:
        base = Arm(f"tts-var-{count}", tts_var(count, setting.scales))
        arms.append(base)
        for title, variants in _variants(setting, base):
            arms += variants
            tables.append(Table(f"{title}, N = {count}", tuple(Pair(arm.name, base.name) for arm in variants)))
    return Experiment("beyond", unique(arms), tuple(tables))


def _variants(setting: Setting, base: Arm) -> list[tuple[str, list[Arm]]]:
    def variant(name: str, **settings) -> Arm:
        return Arm(f"{base.name}-{name}", with_potential(base.plan, **settings))

    schemes = [variant(scheme, scheme=scheme) for scheme in SCHEMES if scheme != "multinomial"]
    adaptive = [variant(f"ess-{share:g}", target_ess=share) for share in TARGETS]
    adaptive += [variant(f"ess-below-{share:g}", ess_threshold=share) for share in THRESHOLDS]
    extractors = [Arm(f"{base.name}-{name}", base.plan, name) for name in setting.extractors[1:]]
    return [
        ("Resampling schemes against multinomial", schemes),
        ("Lambda by effective sample size against lambda 10", adaptive),
        (f"Extractors against {setting.extractors[0]}", extractors),
    ]
