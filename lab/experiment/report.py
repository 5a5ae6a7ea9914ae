"""The report of an experiment: Markdown with plots beside it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ttsvar_core.atomic import write

from . import plots, tables
from .arms import Experiment, Table
from .definitions import build
from .foresight import foresight_tables
from .runner import setting_of
from .stats import CONFIDENCE
from .tables import Section, agreement, arm_row, category_rows, consistency, cost_cells, pair_row, shown_metrics, watched_arms
from .world import VERDICT


def write_report(results_path: str | Path) -> Path:
    """Write ``report.md`` (with ``plots/*.png``) beside a ``results.json``; returns its path."""
    results_path = Path(results_path)
    results = json.loads(results_path.read_text(encoding="utf-8"))
    experiment, path = experiment_of(results), results_path.with_name("report.md")
    write(path, _markdown(f"Experiment {experiment.name}", report_sections(results, experiment), path.with_name("plots")))
    return path


def experiment_of(results: dict[str, Any]) -> Experiment:
    """The experiment that gave these results, with the arms that ran: some alone may have been asked for, and results of early
    versions have fewer."""
    experiment = build(results["experiment"], setting_of(results["world"], results), results["n"])
    return experiment.of(results["arms"])


def report_sections(results: dict[str, Any], experiment: Experiment) -> list[Section]:
    """Everything a report says."""
    rows = {arm.name: arm_row(results, arm.name) for arm in experiment.arms}
    sections = [_preamble(results), _arms(results, rows, experiment.timed > 0)]
    if experiment.curves:
        sections += _curves(results, experiment, rows)
    sections += [_table(results, table, experiment.timed > 0) for table in experiment.tables if table.pairs]
    if not experiment.tables:
        sections += [_consistency(results, arm) for arm in watched_arms(experiment)]
        sections += foresight_tables(results, experiment)
    return sections


def _preamble(results: dict[str, Any]) -> Section:
    world, units = results["world"], results["units"]
    prompts, numbers = {unit["prompt"] for unit in units}, {unit["number"] for unit in units}
    drawn = "" if plots.available() else " Install matplotlib and write the report again for the plots."
    return Section(
        "",
        f"{len(prompts)} prompts, {len(numbers)} seeds each, on {world['model']} ({world['fingerprint'][:8]}), searching by "
        f"{world['metrics'][0]}. Brackets hold {CONFIDENCE:.0%} bootstrap intervals over prompts. Comparisons are paired: equal "
        "prompt, equal seed. Operations are those of transformer, decodes, extractor and reward; one image stands for the "
        "token-forwards of one image; n pictures of cost, what Best-of-n takes in all networks."
        + drawn,
    )


def _arms(results: dict[str, Any], rows: dict[str, tables.ArmRow], timed: bool) -> Section:
    metrics = shown_metrics(results)
    table = [("search", *metrics, "mean of survivors", "images", "GFLOP", "decodes", *(("pictures", "seconds") if timed else ()))]
    for name, row in rows.items():
        spent = (f"{row.pictures:.2f}", f"{row.seconds:.3f}") if timed else ()
        table.append((
            name, *(row.metrics[metric].told() for metric in metrics), row.survivors.told(),
            f"{row.images:.2f}", f"{row.flops / 1e9:.1f}", str(row.decodes), *spent,
        ))
    text = "The answer's metrics; the mean score of all samples that finished, which is what an answer drawn blindly would get."
    return Section("All ways of searching", text, tuple(table))


def _curves(results: dict[str, Any], experiment: Experiment, rows: dict[str, tables.ArmRow]) -> list[Section]:
    metrics = shown_metrics(results)[:2]
    along = {label: [rows[name] for name in names] for label, names in experiment.curves.items() if names}
    titles = {"samples": "Over N (Figure 3)", "images": "Over token-forwards", "flops": "Over operations (Figure 8)"}
    if experiment.timed:
        titles = {"flops": "Over total cost", "seconds": "Over seconds"}
    figures = {axis: plots.curves(along, metrics, axis) if plots.available() else b"" for axis in titles}
    sections = [Section(title, figure=figures[axis]) for axis, title in titles.items()]
    compared = {name for table in experiment.tables for pair in table.pairs for name in (pair.arm, pair.baseline)}
    named = [arm.name for arm in experiment.arms if arm.name in compared]
    shown = VERDICT if VERDICT in metrics else metrics[0]
    by_category = category_rows(results, named, shown)
    if by_category:
        body = [(category, *(f"{row[name].mean:.2f}" for name in named)) for category, row in by_category.items()]
        sections.append(Section(f"By category: {shown}", "", (("category", *named), *body)))
    return sections


def _table(results: dict[str, Any], table: Table, costs: bool = False) -> Section:
    """costs: with what both cost, in pictures."""
    metrics = shown_metrics(results)
    header = ["search", "against", *(["cost in pictures", "at most its cost"] if costs else [])]
    for metric in metrics:
        header += [f"{metric} difference", "better/equal/worse", "p"]
    rows = [pair_row(results, pair) for pair in table.pairs]
    published = any(row.published for row in rows)
    header += ["paper: GenEval", "paper: ImageReward", "direction"] if published else ["verdict"]
    body = []
    for row in rows:
        cells = [row.pair.arm, row.pair.baseline]
        if costs:
            cells += cost_cells(results, row.pair)
        for metric in metrics:
            found = row.metrics[metric]
            cells += [found.difference.told("+.3f"), f"{found.wins}/{found.ties}/{found.losses}", f"{found.p:.3f}"]
        if published:
            cells += [f"{difference:+.4f}" for difference in row.published] if row.published else ["", ""]
        cells.append(agreement(row.metrics[metrics[0]], row.published[1] if row.published else None))
        body.append(tuple(cells))
    figure = plots.differences(rows, metrics[0]) if plots.available() else b""
    return Section(table.title, table.note, (tuple(header), *body), figure)


def _consistency(results: dict[str, Any], arm: str) -> Section:
    found = consistency(results, arm)
    header = ("scale", *(kind.upper() for kind in found.hits), "final score of VALUE's pick above a blind one's")
    body = []
    for scale in found.gain:
        hits = (of_kind[scale].told() if scale in of_kind else "" for of_kind in found.hits.values())
        body.append((str(scale), *hits, found.gain[scale].told()))
    text = (
        f"How often the best of the samples at a scale is the best in the end; picked blindly {found.chance.mean:.3f}. "
        f"The sample that is best in the end ends {found.most.told()} above a blind pick."
    )
    figure = plots.consistency(found, len(results["world"]["schedule"])) if plots.available() else b""
    return Section(f"Consistency of intermediate and final best, {arm} (Figures 5b, 6)", text, (header, *body), figure)


def markdown_table(rows: Sequence[tuple[str, ...]]) -> str:
    """Rows of cells, the first one the header, as a Markdown table."""
    header, *body = rows
    return "\n".join("| " + " | ".join(line) + " |" for line in (header, tuple("---" for _ in header), *body))


def _markdown(title: str, sections: list[Section], plot_folder: Path) -> str:
    parts = [f"# {title}"]
    for number, section in enumerate(sections):
        if section.title:
            parts.append(f"## {section.title}")
        if section.text:
            parts.append(section.text)
        if section.figure:
            plot_folder.mkdir(exist_ok=True)
            name = f"{number:02d}.png"
            write(plot_folder / name, section.figure)
            parts.append(f"![{section.title}]({plot_folder.name}/{name})")
        if section.rows:
            parts.append(markdown_table(section.rows))
    return "\n\n".join(parts) + "\n"
