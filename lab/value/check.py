"""What a value model is worth on prompts it has not seen, beside the reward's word on the sketches, by both measures."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Sequence
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch

from lab.experiment.foresight import BEST
from lab.experiment.offline import Pools, gain_of, rank_correlations, spent
from lab.experiment.prices import Prices
from lab.experiment.stats import Interval, compare
from lab.experiment.tables import Row, markdown_table
from ttsvar_core.atomic import write
from ttsvar_core.rewards.value import Value, read_value
from ttsvar_core.search.plan import raw

from .collect import Collection, read_collection, read_unit, values_of

VALUE, SKETCH = "value model", "sketch"


def check(path: Path, folders: Sequence[Path], json_path: Path | None = None) -> str:
    """A table of both measures by scale. Raises ValueError for samples of another model, reward or schedule."""
    collection = read_collection(folders)
    value = read_value(path)
    _check_made_for(value, collection, path)
    pools = predicted(value, collection)
    found = figures(pools, value, collection)
    if json_path:
        write(json_path, json.dumps(found, indent=1) + "\n")
    most = gain_of(pools, SKETCH, collection.scales[0], 1).most
    told = (
        f"{path.name}, {path.stat().st_size / 2**20:.2f} MiB, for {value.made_for.model} and {value.made_for.reward}: "
        f"{found['prompts']} prompts, {pools.samples} samples each. The ceiling: the best sample ends {most.told('.4f')} above a "
        f"blind pick. Shares are of that, for the best {BEST} of what the best gains over the best of {BEST} blind ones."
    )
    return f"{told}\n\n{markdown_table(list(map(_row, found['rows'])))}\n\n{_differences(found)}"


def _check_made_for(value: Value, collection: Collection, path: Path) -> None:
    ours, theirs = value.made_for._replace(scales=()), collection.made_for._replace(scales=())
    missing = set(value.made_for.scales) - set(collection.scales)
    if ours != theirs or missing:
        differ = [name for name in ours._fields if getattr(ours, name) != getattr(theirs, name)]
        what = ", ".join(differ) or f"scales {sorted(missing)}"
        raise ValueError(f"{path.name} was not made for these samples: {what} differ; collect samples of its model and reward")


@torch.no_grad()
def predicted(value: Value, collection: Collection) -> Pools:
    """The samples as pools, scored at the value model's scales by it and by the sketches."""
    shape = len(collection.files), collection.about["samples"], len(value.made_for.grids)
    final, scores = np.empty(shape[:2]), {name: np.full(shape, math.nan) for name in (VALUE, SKETCH)}
    units, correct, seeds = [], [], Counter()
    for row, path in enumerate(collection.files):
        unit = read_unit(path, value.made_for.scales)
        for scale in value.made_for.scales:
            scores[VALUE][row, :, scale] = values_of(value.network, unit, scale)
            scores[SKETCH][row, :, scale] = unit.scores[:, collection.scales.index(scale)]
        units.append((unit.prompt, seeds[unit.prompt]))
        seeds[unit.prompt] += 1
        final[row] = unit.scores[:, -1]
        correct.append(unit.correct)
    right = None if any(part is None for part in correct) else torch.stack(correct).numpy()
    return Pools(tuple(units), value.made_for.reward, final, right, scores)


def figures(pools: Pools, value: Value, collection: Collection) -> dict[str, Any]:
    """Rows of the table and paired differences, as plain JSON values."""
    search = Prices.from_json(collection.about["prices"]).search(raw())
    operations = {VALUE: dict(value.foretelling_flops).__getitem__, SKETCH: search.look}
    correlations = {name: rank_correlations(pools, name) for name in (SKETCH, VALUE)}
    rows = []
    for scale, name in product(value.made_for.scales, (SKETCH, VALUE)):
        pick, best = (gain_of(pools, name, scale, keep) for keep in (1, BEST))
        rows.append({
            "scale": scale, "by": name, "rank_correlation": _listed(correlations[name].get(scale)),
            "pick": _listed(pick.gain), "pick_share": None if math.isnan(pick.share) else pick.share, "best": _listed(best.gain),
            "best_share": None if math.isnan(best.share) else best.share, "flops": operations[name](scale),
        })
    differences = [{"scale": scale, **_compared(pools, scale)} for scale in value.made_for.scales]
    return {"reward": pools.first, "samples": pools.samples, "prompts": pools.prompts, "rows": rows, "differences": differences}


def _compared(pools: Pools, scale: int) -> dict[str, Any]:
    """Value model minus sketch, paired by prompt, in what the pick and the best of three get."""
    found = {}
    for keep in (1, BEST):
        given = (spent(pools, pools.first, name, scale, pools.samples, min(keep, pools.samples)) for name in (VALUE, SKETCH))
        compared = compare(*map(pools.by_unit, given))
        found[str(keep)] = {"difference": _listed(compared.difference), "p": compared.p}
    return found


def _listed(interval: Interval | None) -> list[float] | None:
    return interval and list(interval[:3])


def _told(listed: list[float] | None, form: str = ".3f") -> str:
    return Interval(*listed, count=0).told(form) if listed else ""


def _row(row: dict[str, Any]) -> Row:
    pick, best = ("" if row[key] is None else f"{row[key]:.0%}" for key in ("pick_share", "best_share"))
    return [
        ("scale", str(row["scale"])), ("scored by", row["by"]), ("rank correlation", _told(row["rank_correlation"])),
        ("pick gains", _told(row["pick"])), ("share", pick), (f"best {BEST} gain", _told(row["best"])), ("share", best),
        ("operations of a look", f"{row['flops'] / 1e9:.3g} G"),
    ]


def _differences(found: dict[str, Any]) -> str:
    lines = [f"Value model minus sketch, paired by prompt, in {found['reward']}:"]
    for row in found["differences"]:
        pick, best = (f"{_told(row[keep]['difference'], '+.4f')}, p {row[keep]['p']:.3f}" for keep in ("1", str(BEST)))
        lines.append(f"- scale {row['scale']}: pick {pick}; best {BEST} {best}")
    return "\n".join(lines)
