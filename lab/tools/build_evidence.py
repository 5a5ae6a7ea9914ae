"""Write the tables of docs/evidence.md from the stored results: `python tools/build_evidence.py [FOLDER]`.

docs/evidence/ holds the raw per-prompt results of every run, compressed. FOLDER is where new ones lie, one folder per run as
`python -m lab.experiment EXPERIMENT --out FOLDER/NAME` leaves them: they are stored first, and the page's plots drawn again. A
table in the page stands under a line `<!-- arms | NAME -->`, `<!-- pairs | NAME | how its title begins -->`,
`<!-- categories | NAME -->`, `<!-- foresight | NAME | how its arm ends -->`, `<!-- fixed | NAME -->` or
`<!-- consistency | NAME -->`; the prose is written by hand.
"""

from __future__ import annotations

import argparse
import json
import lzma
import math
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))
from lab.experiment import plots  # noqa: E402
from lab.experiment.foresight import foresight_tables  # noqa: E402
from lab.experiment.report import experiment_of, markdown_table  # noqa: E402
from lab.experiment.tables import arm_row, category_rows, consistency, cost_cells, pair_row, watched_arms  # noqa: E402
from lab.experiment.variance import fixed_shares  # noqa: E402
from ttsvar_core.atomic import write  # noqa: E402

PAGE = ROOT / "docs" / "evidence.md"
STORE = ROOT / "docs" / "evidence"
IMAGES = ROOT / "docs" / "images"
GRADE, VERDICT = "scenes", "correct"
MARK = re.compile(r"(<!-- (\w+) \| ([\w-]+)(?: \| (.+?))? -->\n)\n(?:\|.*\n)*")


def stored() -> list[str]:
    """The names of all runs."""
    return sorted(path.name.removesuffix(".json.xz") for path in STORE.glob("*.json.xz"))


def read_results(name: str) -> dict[str, Any]:
    """The stored raw results of a run, as its `results.json` held them."""
    return json.loads(lzma.decompress((STORE / f"{name}.json.xz").read_bytes()))


def arms_table(results: dict[str, Any], _: str) -> list[tuple[str, ...]]:
    """Every way of searching by itself."""
    found = [arm_row(results, arm.name) for arm in experiment_of(results).arms]
    timed = not any(math.isnan(row.seconds) for row in found)
    rows = [("search", "right", "grade", "cost in pictures", "GFLOP", *["seconds"] * timed)]
    for row in found:
        spent = f"{row.pictures:.2f}", f"{row.flops / 1e9:.1f}", *[f"{row.seconds:.2f}"] * timed
        rows.append((row.name, row.metrics[VERDICT].told(), row.metrics[GRADE].told(), *spent))
    return rows


def pairs_table(results: dict[str, Any], title: str) -> list[tuple[str, ...]]:
    """The comparisons of the one table whose title begins with `title`."""
    table = next(table for table in experiment_of(results).tables if table.title.startswith(title))
    rows = [("search", "against", "cost in pictures", "at most its cost", "right", "p", "grade", "p")]
    for pair in table.pairs:
        found = pair_row(results, pair).metrics
        told = [text for metric in (VERDICT, GRADE) for text in (found[metric].difference.told("+.3f"), f"{found[metric].p:.2g}")]
        rows.append((pair.arm, pair.baseline, *cost_cells(results, pair), *told))
    return rows


def categories_table(results: dict[str, Any], _: str) -> list[tuple[str, ...]]:
    """Share of right answers by category."""
    arms = [arm.name for arm in experiment_of(results).arms]
    body = category_rows(results, arms, VERDICT)
    return [("category", *arms), *((name, *(f"{row[arm].mean:.2f}" for arm in arms)) for name, row in body.items())]


def foresight_table(results: dict[str, Any], arm: str) -> list[tuple[str, ...]]:
    """What each scale knows of the end, by the first arm whose name ends so."""
    return list(next(table for table in foresight_tables(results, experiment_of(results)) if table[0].endswith(arm))[2])


def fixed_table(results: dict[str, Any], _: str) -> list[tuple[str, ...]]:
    """How much of the end each scale has fixed."""
    shares = fixed_shares(results, experiment_of(results).arms)
    return [("after scale", "fixed"), *((str(scale), share.told()) for scale, share in shares.items())]


def consistency_table(results: dict[str, Any], _: str) -> list[tuple[str, ...]]:
    """How often each potential's best at a scale is the best in the end."""
    found = consistency(results, watched_arms(experiment_of(results))[0])
    rows = [("scale", *(kind.upper() for kind in found.hits), "VALUE's pick ends above a blind one by")]
    for scale in found.gain:
        hits = (f"{of_kind[scale].mean:.2f}" if scale in of_kind else "" for of_kind in found.hits.values())
        rows.append((str(scale), *hits, found.gain[scale].told("+.3f")))
    return rows


TABLES: dict[str, Callable[[dict[str, Any], str], list[tuple[str, ...]]]] = {
    "arms": arms_table, "pairs": pairs_table, "categories": categories_table, "foresight": foresight_table,
    "fixed": fixed_table, "consistency": consistency_table,
}


def fill(page: str) -> str:
    """The page with every marked table written anew from the stored results."""
    results = {name: read_results(name) for name in {match[3] for match in MARK.finditer(page)}}

    def table(match: re.Match) -> str:
        rows = TABLES[match[2]](results[match[3]], match[4] or "")
        return f"{match[1]}\n{markdown_table(rows)}\n"

    return MARK.sub(table, page)


def draw() -> None:
    """The plots of the page."""
    paid = read_results("equal-cost")
    rows = {label: [arm_row(paid, name) for name in names] for label, names in experiment_of(paid).curves.items() if names}
    write(IMAGES / "evidence-flops.png", plots.curves(rows, (VERDICT, GRADE), "flops"))
    pool = read_results("pool")
    found = consistency(pool, watched_arms(experiment_of(pool))[0])
    write(IMAGES / "evidence-consistency.png", plots.consistency(found, len(pool["world"]["schedule"])))


def main(argv: list[str] | None = None) -> int:
    """Store new results if there are any, then rewrite the page."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, nargs="?", help="folder with new results, one folder per experiment")
    args = parser.parse_args(argv)
    if args.folder:
        STORE.mkdir(exist_ok=True)
        for path in sorted(args.folder.glob("*/results.json")):
            write(STORE / f"{path.parent.name}.json.xz", lzma.compress(path.read_bytes(), preset=9 | lzma.PRESET_EXTREME))
        draw()
    write(PAGE, fill(PAGE.read_text(encoding="utf-8")))
    return 0


if __name__ == "__main__":
    sys.exit(main())
