"""The paper's ablations: parts of the search, where it selects, by what potential, extractor, temperature and reward.

Where the paper does not say how many samples run when a part is left out, our reading is in `clustered` and `resampled`.
"""

from __future__ import annotations

from collections.abc import Iterator

from ttsvar_core.search.cluster import Cluster
from ttsvar_core.search.plan import CLUSTER_SCALES, POTENTIAL_SCALES, Plan, scored_at, stretched, with_potential
from ttsvar_core.search.potential import NEEDS_EARLIER_SCORES
from ttsvar_core.search.resample import Resample

from .arms import Arm, ByN, Experiment, Pair, Part, Setting, against, assembled, best, paper

# GenEval / ImageReward, at N = 2 and 4.
_RESAMPLE_SCALES = {
    (6, 9): {2: (0.7133, 1.2572), 4: (0.7276, 1.3534)},
    (6, 8, 10): {2: (0.7130, 1.2591), 4: (0.7247, 1.3592)},
    (6, 7, 8, 9, 10, 11): {2: (0.7114, 1.2497), 4: (0.7210, 1.3558)},
}
_POTENTIALS = {
    "value": _RESAMPLE_SCALES[6, 9],
    "max": {2: (0.7150, 1.2510), 4: (0.7285, 1.3495)},
    "sum": {2: (0.7130, 1.2364), 4: (0.7244, 1.3326)},
    "diff": {2: (0.7006, 1.1725), 4: (0.7030, 1.2412)},
}
_CLUSTER_SCALES = {
    (2,): {2: (0.7089, 1.2513), 4: (0.7300, 1.3502)},
    (5,): {2: (0.7099, 1.2558), 4: (0.7293, 1.3558)},
    (2, 5): {2: (0.7184, 1.2682), 4: (0.7337, 1.3610)},
}
_EXTRACTORS = {
    "PCA": _CLUSTER_SCALES[2, 5],
    "Pool": {2: (0.7127, 1.2720), 4: (0.7296, 1.3629)},
    "inception": {2: (0.7073, 1.2727), 4: (0.7207, 1.3664)},
}
_LAMBDAS = {  # the paper's own is 10
    0.1: {2: (0.7065, 1.2458), 4: (0.7308, 1.3576)},
    0.5: {2: (0.7210, 1.3167), 4: (0.7347, 1.3918)},
    1.0: {2: (0.7222, 1.3459), 4: (0.7418, 1.4097)},
    5.0: {2: (0.7361, 1.4010), 4: (0.7465, 1.4500)},
}
_REWARDS = {
    "aesthetic": {2: (0.6966, 1.123), 4: (0.6842, 1.1172)},
    "hps": {2: (0.7135, 1.2246), 4: (0.7255, 1.2812)},
}
_BEST = {2: (0.7087, 1.2545), 4: (0.7244, 1.3471)}
_FULL = {2: (0.7403, 1.4136), 4: (0.7437, 1.4605)}
_PROMPT_BLIND = {"clarity": "aesthetic"}  # our stand-in -> the published row it stands for


def experiment(setting: Setting, n: tuple[int, ...]) -> Experiment:
    """The paper's tables of what is left out or changed, for every N."""
    return assembled("ablations", (part for count in n for made in (_parts, _variants) for part in made(setting, count)))


def single_scale(setting: Setting, n: tuple[int, ...]) -> Experiment:
    """What resampling by VALUE does at one single scale, scale by scale, against not resampling (Figure 5a)."""

    def part(samples: int) -> Part:
        scales = range(setting.scales - 1)
        rows = [(Arm(f"resample-{scale}-of-{samples}", resampled(samples, (scale,))), {}) for scale in scales]
        return against(best(samples), rows, samples, f"Resampling at one scale, {samples} samples (Figure 5a)")

    return assembled("single-scale", map(part, n))


def resampled(n: int, where: tuple[int, ...], **settings) -> Plan:
    """``n`` samples throughout, resampled at the scales ``where``; every scale up to the last of them is scored where the
    potential looks back."""
    plan = Plan("resampled", n, tuple(Resample(scale, n, **settings) for scale in where))
    return scored_at(plan, range(max(where) + 1)) if settings.get("potential") in NEEDS_EARLIER_SCORES else plan


def clustered(n: int, where: tuple[int, ...]) -> Plan:
    """8n samples at first, 6n after clustering unless it is the last time, n after that; nothing resampled."""
    keep = [6 * n] * (len(where) - 1) + [n]
    return Plan("clustered", 8 * n, tuple(Cluster(scale, left) for scale, left in zip(where, keep, strict=True)))


def _parts(setting: Setting, n: int) -> Iterator[Part]:
    """Parts of the search by themselves, and what each of them may look at, against Best-of-N."""
    scales, both, base = setting.scales, paper(n, setting), best(n)

    def part(title: str, rows: list[tuple[Arm, ByN]], note: str = "") -> Part:
        return against(base, rows, n, f"{title}, N = {n}", note, of=_BEST)

    stages = tuple(stage for stage in both.plan.stages if stage.kind == Resample.kind)
    adaptive = Arm(f"adaptive-resampling-{n}", Plan("adaptive-resampling", both.plan.samples, stages))
    blind = [Arm(f"tts-var-chance-{n}", both.plan, "chance")] if "chance" in setting.extractors else []
    clusters = Arm(f"clustering-{n}", clustered(n, stretched(CLUSTER_SCALES, scales)))
    resamples = Arm(f"resampling-{n}", resampled(n, stretched(POTENTIAL_SCALES, scales)))
    arms, table = part(
        "Parts of the search",
        [(clusters, _CLUSTER_SCALES[2, 5]), (resamples, _RESAMPLE_SCALES[6, 9]), (adaptive, {}), (both, _FULL),
         *((arm, {}) for arm in blind)],
        "Adaptive resampling starts with 8N samples and cuts by potential only; with the extractor `chance` the clustering "
        "keeps samples at random, so the last rows show what clustering adds.",
    )
    yield arms, table._replace(pairs=(*table.pairs, *(Pair(both.name, arm.name) for arm in (adaptive, *blind))))
    rows = []
    for where, published in _CLUSTER_SCALES.items():
        here = stretched(where, scales)
        rows.append((Arm(clusters.name + (f"-at-{here[0]}" if len(where) == 1 else ""), clustered(n, here)), published))
    yield part("Clustering scales without resampling", rows)
    first, *others = setting.extractors
    looking = [clusters, *(Arm(f"{clusters.name}-{name}", clusters.plan, name) for name in others)]
    reducers = [name.partition("-")[2] or name for name in setting.extractors]
    rows = [(arm, _EXTRACTORS.get(reducer, {})) for arm, reducer in zip(looking, reducers, strict=True)]
    note = f"The row without an extractor's name clusters by `{first}`. Published: DINOv2 PCA and Pool, Inception."
    yield part("Extractors, clustering without resampling", rows, note)
    rows = []
    for where, published in _RESAMPLE_SCALES.items():
        if len(where) < scales:  # a short schedule has no scale for each of them
            here = stretched(where, scales)
            name = resamples.name + ("" if len(where) == 2 else "-at-" + "-".join(map(str, here)))
            rows.append((Arm(name, resampled(n, here)), published))
    yield part("Resampling scales without clustering", rows)


def _variants(setting: Setting, n: int) -> Iterator[Part]:
    """Other potentials against Best-of-N, other lambdas and rewards against the paper's search."""
    where, base, (first, *others) = stretched(POTENTIAL_SCALES, setting.scales), paper(n, setting), setting.rewards
    rows = [
        (Arm(f"resampling-{n}" + ("" if kind == "value" else f"-{kind}"), resampled(n, where, potential=kind)), published)
        for kind, published in _POTENTIALS.items()
    ]
    note = "Only the last row of the paper's table loses clearly: a gain since the last scale is mostly noise."
    yield against(best(n), rows, n, f"Potentials without clustering, N = {n}", note, of=_BEST)
    rows = [(Arm(f"{base.name}-lambda-{lam:g}", with_potential(base.plan, lam=lam)), known) for lam, known in _LAMBDAS.items()]
    yield against(base, rows, n, f"Lambda, against 10, N = {n}", of=_FULL)
    rows = [
        (Arm(f"{base.name}-by-{name}", base.plan, "", name), _REWARDS.get(_PROMPT_BLIND.get(name, name), {})) for name in others
    ]
    note = "Each row searches by another reward and is measured by the first; published: the aesthetic score, HPS."
    yield against(base, rows, n, f"Rewards, against {first}, N = {n}", note, of=_FULL)
