"""Statistics, prompts and reports of experiments."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest
from experiment_world import TinyFiles, prompts

from lab.experiment import __main__ as command
from lab.experiment import options
from lab.experiment.prompts import Prompt, read_prompts, scene_prompts
from lab.experiment.report import write_report
from lab.experiment.runner import Asked, run_experiment
from lab.experiment.stats import compare, mean_interval, sign_flip_p
from lab.experiment.tables import agreement, consistency, metric_values
from lab.experiment.world import WorldFiles
from ttsvar_core.scenes import grammar
from ttsvar_core.scenes.grammar import CATEGORIES


def _values(rows) -> dict:
    return {(f"p{i}", j): value for i, row in enumerate(rows) for j, value in enumerate(row)}


def test_seeds_are_averaged_before_prompts_are_counted():
    found = mean_interval(_values([[0, 2], [5, 5], [0, 0]]))
    assert (found.mean, found.count) == (pytest.approx(2.0), 3)
    assert found == mean_interval(_values([[1], [5], [0]]))


def test_the_interval_covers_the_truth_as_often_as_it_says():
    generator = np.random.default_rng(0)
    covered = 0
    for _ in range(300):
        found = mean_interval(_values(generator.normal(0.3, 1, (40, 1))))
        covered += found.low <= 0.3 <= found.high
    assert 0.90 <= covered / 300 <= 0.98


def test_comparison_is_paired():
    """A constant gain of 0.1 is seen through differences between prompts a hundred times larger."""
    generator = np.random.default_rng(1)
    base = generator.normal(0, 10, (20, 2))
    found = compare(_values(base + 0.1), _values(base))
    assert found.difference.mean == pytest.approx(0.1) and found.difference.low == pytest.approx(0.1)
    assert (found.wins, found.ties, found.losses) == (40, 0, 0) and found.resolved
    assert found.p == pytest.approx(2 / 2001)  # the least of 2000 random patterns, in either tail


def test_comparison_counts_only_what_both_have():
    found = compare(_values([[1.0], [2.0], [3.0]]), _values([[1.0], [3.0]]))
    assert (found.wins, found.ties, found.losses, found.difference.count) == (0, 1, 1, 2)
    with pytest.raises(ValueError, match="nothing to compare"):
        compare({("a", 0): 1.0}, {("b", 0): 1.0})


def test_sign_flip_test_is_exact_for_few_prompts():
    assert sign_flip_p(np.array([1.0, 1.0, 1.0])) == 2 / 8
    assert sign_flip_p(np.array([1.0, -1.0])) == 1.0
    assert sign_flip_p(np.zeros(4)) == 1.0


def test_agreement_needs_an_interval_without_zero():
    up = compare(_values([[1.0], [1.1], [0.9]]), _values([[0.0]] * 3))
    level = compare(_values([[1.0], [-1.0], [0.1]]), _values([[0.0]] * 3))
    assert [agreement(up, 0.2), agreement(up, -0.2), agreement(level, 0.2)] == ["agrees", "contradicts", "not resolved"]
    assert [agreement(up, None), agreement(level, None)] == ["better", "not resolved"]


def test_scene_prompts_take_turns_never_repeat_and_longer_lists_begin_with_shorter_ones(monkeypatch):
    short, long = scene_prompts(20), scene_prompts(200)
    assert long[:20] == short
    assert len({one.text for one in long}) == 200
    assert [one.category for one in short[:10]] == [one.category for one in short[10:]] == list(CATEGORIES)
    monkeypatch.setattr(grammar, "CATEGORIES", ("single",))
    with pytest.raises(ValueError, match=r"asked for 100 prompts .* it has 6"):
        scene_prompts(100)


def test_seeds_differ_between_prompts_and_numbers():
    one, other = Prompt("a cat"), Prompt("a dog")
    assert len({one.seed(0), one.seed(1), other.seed(0), other.seed(1)}) == 4
    assert one.seed(0) == Prompt("a cat", "animals").seed(0) and 0 <= one.seed(0) < 2**32


def test_prompts_from_files(tmp_path):
    listed = tmp_path / "evaluation_metadata.jsonl"
    lines = [{"tag": "counting", "include": [{"class": "bench", "count": 2}], "prompt": "two benches"}, {"prompt": "a cat"}]
    listed.write_text("\n".join(json.dumps(line) for line in [*lines, lines[1]]) + "\n")
    assert read_prompts(listed) == (Prompt("two benches", "counting", lines[0]), Prompt("a cat", "", lines[1]))
    plain = tmp_path / "color_val.txt"
    plain.write_text("a red book and a blue cup\tseen\na green bench\n")
    assert [one.text for one in read_prompts(plain)] == ["a red book and a blue cup", "a green bench"]
    assert len(read_prompts(plain, 1)) == 1
    for path in (plain, listed):  # as Notepad saves it
        before = read_prompts(path)
        path.write_text("\ufeff" + path.read_text(), encoding="utf-8")
        assert read_prompts(path) == before
    listed.write_text('{"tag": "single"}\n')
    with pytest.raises(ValueError, match=r"evaluation_metadata\.jsonl cannot be read \(line 1 is no prompt"):
        read_prompts(listed)


def _watched(*histories) -> dict:
    units = [
        {"prompt": f"p{i}", "number": 0, "arms": {"w": {"history": [list(row) for row in history]}}}
        for i, history in enumerate(histories)
    ]
    return {"units": units}


def test_consistency_counts_how_often_the_intermediate_best_is_the_final_best():
    """Rows are samples, columns scales; the last column decides."""
    agrees = ((0.1, 0.9, 0.9), (0.5, 0.2, 0.3))  # scale 0 picks row 1, scale 1 row 0; row 0 wins
    tied = ((0.5, 0.5, 0.1), (0.5, 0.6, 0.8))  # scale 0 ties, scale 1 picks the winner, row 1
    found = consistency(_watched(agrees, tied), "w")
    assert found.hits["value"][0].mean == pytest.approx((0 + 0.5) / 2)
    assert found.hits["value"][1].mean == pytest.approx(1.0)
    assert found.hits["max"][1].mean == pytest.approx(1.0)
    assert 0 not in found.hits["diff"] and found.hits["diff"][1].mean == pytest.approx(1.0)
    assert found.chance.mean == pytest.approx(0.5)
    assert found.gain[0].mean == pytest.approx((0.3 - 0.6 + 0.0) / 2)
    assert found.most.mean == pytest.approx((0.3 + 0.35) / 2)


@pytest.mark.parametrize(
    "name, words",
    [
        ("n-curve", ["Over N (Figure 3)", "tts-var-1", "By category: correct", "paper: ImageReward"]),
        ("ablations", ["Extractors, clustering without resampling", "clustering-1-chance", "tts-var-1-by-brightness"]),
        ("consistency", ["Consistency of intermediate and final best", "picked blindly"]),
    ],
)
def test_the_report_says_what_was_measured(tmp_path, name, words):
    results = run_experiment(Asked(name, [1]), TinyFiles(), prompts(2), 1, tmp_path)
    text = write_report(results).read_text()
    assert "2 prompts, 1 seeds each, on tiny" in text
    for word in words:
        assert word in text
    for plot in re.findall(r"\]\((plots/\d+\.png)\)", text):
        assert (tmp_path / plot).read_bytes().startswith(b"\x89PNG")
    assert text == write_report(results).read_text()


def test_the_report_is_written_without_matplotlib_too(tmp_path, monkeypatch):
    from lab.experiment import plots

    monkeypatch.setattr(plots, "available", lambda: False)
    results = run_experiment(Asked("single-scale", [1]), TinyFiles(), prompts(1), 1, tmp_path)
    text = write_report(results).read_text()
    assert "Install matplotlib" in text and "![" not in text and "resample-0-of-1" in text


def test_metrics_of_the_answer_are_those_of_its_image(tmp_path):
    results = json.loads(run_experiment(Asked("n-curve", [2]), TinyFiles(), prompts(2), 1, tmp_path).read_text())
    for unit in results["units"]:
        for arm in unit["arms"].values():
            assert arm["answer"]["warmth"] == pytest.approx(max(arm["scores"]), abs=1e-6)
            assert arm["answer"]["correct"] == float(arm["answer"]["warmth"] > 0)
    best, raw = (metric_values(results, name, "warmth") for name in ("best-of-2", "best-of-1"))
    assert all(best[unit] >= raw[unit] for unit in raw)


def test_a_prompt_that_the_reward_cannot_judge_is_refused_before_anything_is_drawn(tmp_path):
    listed = [Prompt("a photo of a red circle"), Prompt("a cat")]
    with pytest.raises(ValueError, match="no such thing as 'a cat'"):
        run_experiment(Asked("consistency", [1]), WorldFiles(), listed, 1, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_the_command_runs_on_the_bundled_model(tmp_path, capsys):
    prompt = tmp_path / "prompts.txt"
    prompt.write_text("a photo of a red circle\n")
    out = tmp_path / "out"
    words = ["consistency", "--prompts-file", str(prompt), "--n", "1", "--out", str(out)]
    assert command.main([*words, "--images", "geneval"]) == 0
    assert str(out / "report.md") in capsys.readouterr().out
    assert (out / "images/watched-1/00000/samples/0000.png").is_file()
    assert command.main(words) == 2
    assert "images differ" in capsys.readouterr().err
    assert command.main([*words, "--out", str(tmp_path / "x"), "--reward", "taste"]) == 2
    assert "cannot load 'taste'" in capsys.readouterr().err


def test_a_file_of_prompts_is_taken_whole_unless_told_otherwise(tmp_path):
    parser = command.build_parser()
    (tmp_path / "p.txt").write_text("".join(f"prompt {number}\n" for number in range(30)))
    for given, expected in (
        ([], 24), (["--prompts", "3"], 3), (["--prompts-file", str(tmp_path / "p.txt")], 30),
        (["--prompts-file", str(tmp_path / "p.txt"), "--prompts", "5"], 5), (["--reward", "scenes", "--prompts", "9"], 9),
    ):
        args = parser.parse_args(["n-curve", "--out", "x", *given])
        assert len({prompt.text for prompt in options.prompts(args, command.SCENE_PROMPTS, "test")}) == expected


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["n-curve", "--advice", "advice.json"], "--advice is for equal-cost; leave it out"),
        (["equal-cost", "--budgets", "2"], "--budgets is for advise; leave it out"),
        (["advise", "--n", "4"], "a budget of 8 pictures is rated on pools of as many samples; write --n 8"),
        (["n-curve", "--prompts-file", "{folder}/p.txt", "--split", "test"], "leave one of the two out"),
        (["n-curve", "--ray-address", "somewhere"], "--ray-address is for --engine ray"),
        (["n-curve", "--pixel-budget", "1M"], "scenes128 draws 128x128 pixels, by a schedule of its own; leave --pixel-budget out"),
    ],
)
def test_options_that_would_change_nothing_are_refused_before_anything_is_drawn(tmp_path, capsys, words, said, monkeypatch):
    monkeypatch.setattr("lab.experiment.runner.claim", lambda *_: pytest.fail("began"))
    (tmp_path / "p.txt").write_text("a photo of a red circle\n")
    assert command.main([*(word.format(folder=tmp_path) for word in words), "--out", str(tmp_path / "out")]) == 2
    assert said in capsys.readouterr().err and not (tmp_path / "out").exists()


@pytest.mark.parametrize(("name", "split"), [("advise", "validation"), ("pool", "validation"), ("equal-cost", "test")])
def test_plans_are_not_chosen_by_the_prompts_they_are_measured_on(tmp_path, monkeypatch, name, split):
    def drawn(asked, files, prompts, *rest):
        raise ValueError(", ".join(prompt.text for prompt in prompts))

    monkeypatch.setattr("lab.experiment.runner.run_experiment", drawn)
    args = command.build_parser().parse_args([name, "--prompts", "3", "--out", str(tmp_path)])
    with pytest.raises(ValueError, match=", ".join(prompt.text for prompt in scene_prompts(3, split))):
        command.run(args)


def test_what_is_fixed_is_told_of_as_many_prefixes_as_the_table_has(tmp_path):
    """Of two numbers of samples each has prefixes of its own."""
    path = run_experiment(Asked("consistency", [2, 3]), TinyFiles(), prompts(3), 1, tmp_path / "both")
    alone = run_experiment(Asked("consistency", [2]), TinyFiles(), prompts(3), 1, tmp_path / "two")

    def table(report):
        return write_report(report).read_text().partition("end, watched-2")[2].partition("\n## ")[0].strip()

    assert table(path) == table(alone) and "(2 prefixes, 2 completions each)" in table(alone)
