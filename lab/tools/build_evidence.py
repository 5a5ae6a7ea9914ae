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
from lab.experiment import plots, tables  # noqa: E402
from lab.experiment.arms import Pair  # noqa: E402
from lab.experiment.foresight import fixed_shares, foresight_tables  # noqa: E402
from lab.experiment.report import experiment_of  # noqa: E402
from lab.experiment.tables import Row  # noqa: E402
from lab.experiment.world import VERDICT  # noqa: E402
from ttsvar_core.atomic import write  # noqa: E402

PAGE = ROOT / "docs" / "evidence.md"
STORE = ROOT / "docs" / "evidence"
IMAGES = ROOT / "docs" / "images"
GRADE = "scenes"
MARK = re.compile(r"(<!-- (\w+) \| ([\w-]+)(?: \| (.+?))? -->\n)\n(?:\|.*\n)*")


def stored() -> list[str]:
    """The names of all runs."""
    return sorted(path.name.removesuffix(".json.xz") for path in STORE.glob("*.json.xz"))


def read_results(name: str) -> dict[str, Any]:
    """The stored raw results of a run, as its `results.json` held them."""
    return json.loads(lzma.decompress((STORE / f"{name}.json.xz").read_bytes()))


def arms_table(results: dict[str, Any], _: str) -> list[Row]:
    """Every way of searching by itself."""
    found = [tables.arm_row(results, arm.name) for arm in experiment_of(results).arms]
    timed = not any(math.isnan(row.seconds) for row in found)
    return [
        [("search", row.name), ("right", row.metrics[VERDICT].told()), ("grade", row.metrics[GRADE].told()),
         ("cost in pictures", f"{row.pictures:.2f}"), ("GFLOP", f"{row.flops / 1e9:.1f}"),
         *[("seconds", f"{row.seconds:.2f}")] * timed]
        for row in found
    ]


def pairs_table(results: dict[str, Any], title: str) -> list[Row]:
    """The comparisons of the one table whose title begins with `title`."""

    def row(pair: Pair) -> Row:
        found = tables.compared(results, pair)
        shown = (("right", found[VERDICT]), ("grade", found[GRADE]))
        told = [cell for head, one in shown for cell in ((head, one.difference.told("+.3f")), ("p", f"{one.p:.2g}"))]
        return [("search", pair.arm), ("against", pair.baseline), *tables.cost_cells(results, pair), *told]

    return [row(pair) for table in experiment_of(results).tables if table.title.startswith(title) for pair in table.pairs]


def consistency_table(results: dict[str, Any], _: str) -> list[Row]:
    """How often each potential's best at a scale is the best in the end."""
    found = tables.consistency(results, tables.watched_arms(experiment_of(results))[0])
    gained = "VALUE's pick ends above a blind one by"
    return found.rows(gained, lambda hit: f"{hit.mean:.2f}", lambda gain: gain.told("+.3f"))


TABLES: dict[str, Callable[[dict[str, Any], str], list[Row]]] = {
    "arms": arms_table, "pairs": pairs_table, "consistency": consistency_table,
    "categories": lambda results, _: tables.category_rows(results, [arm.name for arm in experiment_of(results).arms], VERDICT),
    "foresight": lambda results, arm: next(  # by the first arm whose name ends so
        table.rows for table in foresight_tables(results, experiment_of(results)) if table.title.endswith(arm)
    ),
    "fixed": lambda results, _: [
        [("after scale", str(scale)), ("fixed", share.told())]
        for scale, share in fixed_shares(results, experiment_of(results).arms).items()
    ],
}


def fill(page: str) -> str:
    """The page with every marked table written anew from the stored results."""
    results = {name: read_results(name) for name in {match[3] for match in MARK.finditer(page)}}

    def table(match: re.Match) -> str:
        rows = TABLES[match[2]](results[match[3]], match[4] or "")
        return f"{match[1]}\n{tables.markdown_table(rows)}\n"

    return MARK.sub(table, page)


def draw() -> None:
    """The plots of the page."""
    paid = read_results("equal-cost")
    rows = {label: [tables.arm_row(paid, name) for name in names] for label, names in experiment_of(paid).curves.items() if names}
    write(IMAGES / "evidence-flops.png", plots.curves(rows, (VERDICT, GRADE), "flops"))
    pool = read_results("pool")
    found = tables.consistency(pool, tables.watched_arms(experiment_of(pool))[0])
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
