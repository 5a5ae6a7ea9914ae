"""The report of an experiment: Markdown with plots beside it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ttsvar_core.atomic import write

from . import plots, tables
from .advise import seen_before
from .arms import Experiment, Table
from .definitions import build
from .foresight import foresight_tables
from .runner import setting_of
from .stats import CONFIDENCE, Interval
from .tables import ArmRow, Row, Section, arm_row, markdown_table, shown_metrics, watched_arms
from .world import VERDICT


def write_report(results_path: str | Path) -> Path:
    """Write ``report.md`` (with ``plots/*.png``) beside a ``results.json``; returns its path."""
    results_path = Path(results_path)
    results = json.loads(results_path.read_text(encoding="utf-8"))
    experiment, path = experiment_of(results), results_path.with_name("report.md")
    write(path, _markdown(f"Experiment {experiment.name}", report_sections(results, experiment), path.with_name("plots")))
    return path


def experiment_of(results: dict[str, Any]) -> Experiment:
    """The experiment that gave these results, with the arms that ran: some alone may have been asked for."""
    experiment = build(results["experiment"], setting_of(results["world"], results), results["n"])
    return experiment.of(results["arms"])


def report_sections(results: dict[str, Any], experiment: Experiment) -> list[Section]:
    """Everything a report says."""
    rows = {arm.name: arm_row(results, arm.name) for arm in experiment.arms}
    text = "The answer's metrics; the mean score of all samples that finished, which is what an answer drawn blindly would get."
    arms = Section("All ways of searching", text, [_arm(row, experiment.timed > 0) for row in rows.values()])
    sections = [_preamble(results), arms]
    if experiment.curves:
        sections += _curves(results, experiment, rows)
    sections += [_table(results, table, experiment.timed > 0) for table in experiment.tables if table.pairs]
    if not experiment.tables:
        sections += [_consistency(results, arm) for arm in watched_arms(experiment)]
        sections += foresight_tables(results, experiment)
    return sections


def _preamble(results: dict[str, Any]) -> Section:
    world, (prompts, numbers) = results["world"], ({unit[key] for unit in results["units"]} for key in ("prompt", "number"))
    seen = seen_before(results.get("advice"), prompts)
    drawn = "" if plots.available() else " Install matplotlib and write the report again for the plots."
    return Section(
        "",
        f"{len(prompts)} prompts, {len(numbers)} seeds each, on {world['model']} ({world['fingerprint'][:8]}), searching by "
        f"{world['metrics'][0]}. Brackets hold {CONFIDENCE:.0%} bootstrap intervals over prompts. Comparisons are paired: equal "
        "prompt, equal seed. Operations are those of transformer, decodes, extractor and reward; one image stands for the "
        f"token-forwards of one image; n pictures of cost, what Best-of-n takes in all networks.{drawn}{' ' * bool(seen)}{seen}",
    )


def _arm(row: ArmRow, timed: bool) -> Row:
    told = [
        ("search", row.name), *((metric, interval.told()) for metric, interval in row.metrics.items()),
        ("mean of survivors", row.survivors.told()), ("images", f"{row.images:.2f}"), ("GFLOP", f"{row.flops / 1e9:.1f}"),
        ("decodes", str(row.decodes)),
    ]
    return [*told, ("pictures", f"{row.pictures:.2f}"), ("seconds", f"{row.seconds:.3f}")] if timed else told


def _curves(results: dict[str, Any], experiment: Experiment, rows: dict[str, ArmRow]) -> list[Section]:
    metrics = shown_metrics(results)[:2]
    along = {label: [rows[name] for name in names] for label, names in experiment.curves.items() if names}
    titles = {"samples": "Over N (Figure 3)", "images": "Over token-forwards", "flops": "Over operations (Figure 8)"}
    if experiment.timed:
        titles = {"flops": "Over total cost", "seconds": "Over seconds"}
    sections = [Section(title, figure=plots.curves(along, metrics, axis)) for axis, title in titles.items()]
    compared = {name for table in experiment.tables for pair in table.pairs for name in (pair.arm, pair.baseline)}
    named = [arm.name for arm in experiment.arms if arm.name in compared]
    shown = VERDICT if VERDICT in metrics else metrics[0]
    by_category = Section(f"By category: {shown}", "", tables.category_rows(results, named, shown))
    return [*sections, by_category] if by_category.rows else sections


def _table(results: dict[str, Any], table: Table, costs: bool) -> Section:
    """costs: with what both cost, in pictures."""
    metrics, body = shown_metrics(results), []
    found = [tables.compared(results, pair) for pair in table.pairs]
    published = any(pair.published for pair in table.pairs)
    for pair, comparisons in zip(table.pairs, found, strict=True):
        row = [("search", pair.arm), ("against", pair.baseline), *(tables.cost_cells(results, pair) if costs else ())]
        for metric, one in comparisons.items():
            row += [(f"{metric} difference", one.difference.told("+.3f")),
                    ("better/equal/worse", f"{one.wins}/{one.ties}/{one.losses}"), ("p", f"{one.p:.3f}")]
        theirs = [f"{difference:+.4f}" for difference in pair.published or ()] or ["", ""]
        row += zip(("paper: GenEval", "paper: ImageReward"), theirs, strict=True) if published else ()
        agrees = tables.agreement(comparisons[metrics[0]], pair.published[1] if pair.published else None)
        body.append([*row, ("direction" if published else "verdict", agrees)])
    names = [f"{pair.arm} − {pair.baseline}" for pair in table.pairs]
    differences = dict(zip(names, (one[metrics[0]].difference for one in found), strict=True))
    return Section(table.title, table.note, body, plots.differences(differences, metrics[0]))


def _consistency(results: dict[str, Any], arm: str) -> Section:
    found = tables.consistency(results, arm)
    text = (
        f"How often the best of the samples at a scale is the best in the end; picked blindly {found.chance.mean:.3f}. "
        f"The sample that is best in the end ends {found.most.told()} above a blind pick."
    )
    rows = found.rows("final score of VALUE's pick above a blind one's", Interval.told, Interval.told)
    figure = plots.consistency(found, len(results["world"]["schedule"]))
    return Section(f"Consistency of intermediate and final best, {arm} (Figures 5b, 6)", text, rows, figure)


def _markdown(title: str, sections: list[Section], plot_folder: Path) -> str:
    parts = [f"# {title}"]
    for number, section in enumerate(sections):
        if section.title:
            parts.append(f"## {section.title}")
        if section.text:
            parts.append(section.text)
        if section.figure:
            plot_folder.mkdir(exist_ok=True)
            write(plot_folder / f"{number:02d}.png", section.figure)
            parts.append(f"![{section.title}]({plot_folder.name}/{number:02d}.png)")
        if section.rows:
            parts.append(markdown_table(section.rows))
    return "\n\n".join(parts) + "\n"
