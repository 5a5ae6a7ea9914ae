"""Searches at equal total cost: what the arms cost and are, what they share, and what the report says of it."""

from __future__ import annotations

import json

import pytest
import torch
from experiment_world import Brightness, TinyFiles, Warmth, prompts

from lab.experiment import __main__ as command
from lab.experiment.advise import read_advice, write_advice, write_advised
from lab.experiment.arms import Arm, Setting, best
from lab.experiment.definitions import build
from lab.experiment.engines import one_thread
from lab.experiment.prices import Prices, chosen, fitted_beam, fitted_funnel, largest
from lab.experiment.report import write_report
from lab.experiment.runner import Asked, OtherExperiment, Where, run_experiment, setting_of
from lab.experiment.unit import Task, Unit, priced, prices_of, run_unit
from lab.experiment.walk import SharedReward, walk
from ttsvar_core.config import PRESETS
from ttsvar_core.costs import Look, Search
from ttsvar_core.scales import official
from ttsvar_core.search.attempts import answered, repeated
from ttsvar_core.search.budget import Measured, plan_for
from ttsvar_core.search.memory import Sampler
from ttsvar_core.search.plan import beam, best_of_n, cut_once, raw, tts_var
from ttsvar_core.search.run import run
from ttsvar_core.state import start

INFINITY = Prices(PRESETS["2b"], official(), (2,) * 13, (1, 512), {"image-reward": Look(10**12)}, {"image-reward": "image-reward"})
MEASURED = Measured("2b", "image-reward", {4: 0.2, 6: 0.4, 9: 0.6})
BUDGETS = (2, 4, 8)


@pytest.fixture(scope="module")
def world():
    return TinyFiles()()


def advised(**changed) -> dict:
    advice = {"format": 1, "model": "tiny", "fingerprint": "tiny-0", "reward": "warmth", "scorer": "warmth", "scales": 7,
              "correlation": {"2": 0.3, "4": 0.6}, "plans": {}}
    return advice | changed


def infinity(measured=MEASURED) -> Setting:
    return Setting(INFINITY.schedule.tokens, ("latent-pool",), ("image-reward",), INFINITY, measured, "2b")


@pytest.mark.parametrize("measured", [None, MEASURED])
@pytest.mark.parametrize("reward", [0, 10**12, 4 * 10**13])
def test_no_arm_costs_more_than_best_of_n_for_any_prompt_but_the_papers(measured, reward):
    """Added up here from what every scale runs, for prompts of several lengths."""
    prices = INFINITY._replace(looks={"image-reward": Look(reward)})
    arms = {arm.name: arm.plan for arm in build("equal-cost", infinity(measured)._replace(prices=prices)).arms}

    def cost(plan, tokens):
        search = Search(prices.config, plan, prices.schedule, prices.branches, tokens, reward=Look(reward))
        scales = search.scales
        return search.parts["text"] + sum(s.transformer + s.decode + s.features + s.scored * reward for s in scales)

    compared = 0
    for name, plan in arms.items():
        family, _, rest = name.partition("-")
        base = name.removeprefix("at-") if name.startswith("at-") else f"best-of-{rest.partition('-')[0]}"
        if family == "budget" and "." in name:
            assert prices.pictures(plan) <= float(rest) and cost(plan, 9) > cost(arms["best-of-1"], 9)
        elif family in ("budget", "funnel", "beam", "at"):
            compared += 1
            assert all(cost(plan, tokens) <= cost(arms[base], tokens) for tokens in (1, 9, 77, 512)), name
    assert compared >= 6


@pytest.mark.parametrize("budget", BUDGETS)
def test_the_budget_s_own_choice_is_what_runs(budget):
    """The lab has no second way of choosing."""
    plan, why = chosen(INFINITY, best_of_n(budget), MEASURED)
    wanted = plan_for(budget, INFINITY.search(raw()), MEASURED)
    assert (plan.stages, why) == (wanted.plan.stages, wanted.why) and 0 <= wanted.plan.samples - plan.samples <= 1
    assert "(measured)" in why and plan.stages


def test_a_measurement_of_something_else_is_refused():
    with pytest.raises(ValueError, match="was measured for 8b and image-reward, this is 2b and image-reward"):
        build("equal-cost", infinity(MEASURED._replace(model="8b")))
    with pytest.raises(ValueError, match="give a setting with prices"):
        build("equal-cost", infinity()._replace(prices=None))


@pytest.mark.parametrize("budget", BUDGETS)
def test_funnel_and_beam_are_the_largest_that_the_cost_pays_for(budget):
    given = best_of_n(budget)
    funnel, wide = fitted_funnel(INFINITY, given), fitted_beam(INFINITY, given)
    cut = funnel.stages[0]
    assert cut.scale == 6 and INFINITY.pays(given, funnel)
    assert not INFINITY.pays(given, cut_once(funnel.samples + 1, 6, cut.keep))
    assert not INFINITY.pays(given, cut_once(8 * (cut.keep + 1), 6, cut.keep + 1))
    width = wide.stages[0].keep
    assert INFINITY.pays(given, wide) and not INFINITY.pays(given, beam(width + 1))
    assert not INFINITY.pays(given, beam(width, candidates=wide.samples // width + 1))


def test_attempts_end_where_somebody_measured_what_is_good_enough_and_cost_no_more():
    named = {arm.name: arm for arm in build("equal-cost", infinity(MEASURED._replace(enough=0.9))).arms}
    assert not {"attempts-2", "stopped-best-of-2"} & set(named)
    for budget in (4, 8):
        ours, single = named[f"attempts-{budget}"], named[f"stopped-best-of-{budget}"]
        assert (ours.attempts, single.attempts, ours.enough, single.enough) == (budget // 2, budget, 0.9, 0.9)
        assert ours.plan.stages == named["budget-2"].plan.stages and single.plan.samples == 1
        assert ours.attempts * INFINITY.search(ours.plan).total.flops <= INFINITY.search(best_of_n(budget)).total.flops
    assert not any(arm.attempts > 1 for arm in build("equal-cost", infinity()).arms)


def test_an_arm_of_several_attempts_is_searches_with_seeds_of_their_own(world):
    """Whatever ran before them and is remembered; each attempt is paid for."""
    conditioning, plan, (prompt,) = world.encode("prompt 0"), best_of_n(2), prompts(1)

    def search(seed):
        return run(start(world.model, conditioning, 2, seed, world.schedule), plan, world.rewards["warmth"])

    seed = prompt.seed(0)
    with one_thread(), torch.inference_mode():
        scores = [answered(one) for one in repeated(search, seed, 4)]
        enough = sorted(scores)[2]
        made = 1 + next(place for place, score in enumerate(scores) if score >= enough)
        arms = best(2), Arm("all", plan, attempts=4), Arm("some", plan, attempts=4, enough=enough)
        finished = walk(world, conditioning, seed, arms)
        record = run_unit(Task(TinyFiles(), arms, Unit(prompt, 0, 0)))["arms"]
    for name, count in (("best-of-2", 1), ("all", 4), ("some", made)):
        assert finished[name].attempts == count and max(record[name]["scores"]) == max(scores[:count])
        assert float(finished[name].scores.max()) == max(scores[:count])
        assert record[name]["cost"]["flops"] == count * record["best-of-2"]["cost"]["flops"]


def test_what_costs_too_much_in_every_size_is_no_arm():
    """A judge dearer than a picture leaves nothing to cut for."""
    dear = INFINITY._replace(looks={"image-reward": Look(10**15)})
    assert fitted_funnel(dear, best_of_n(2)) is None and fitted_beam(dear, best_of_n(2)) is None
    assert largest(dear, best_of_n(2), best_of_n) == best_of_n(2)
    names = [arm.name for arm in build("equal-cost", infinity()._replace(prices=dear), [2]).arms]
    assert {"budget-2", "best-of-2", "tts-var-2"} <= set(names) and not {"funnel-2", "beam-2"} & set(names)


def test_a_named_network_has_its_published_price_and_runs_for_nobody():
    """As in a host, so that nodes and library name one cost."""
    from ttsvar_core.looks import extractor_look, reward_look
    from ttsvar_core.networks import NETWORKS

    class Refuses:
        networks, looks_at = ("blip", "vit-h"), "images"

        def score(self, images, prompt):
            raise AssertionError("it ran")

        describe = score

    look, both = reward_look(Refuses(), torch.rand(1, 8, 8, 3), ""), [NETWORKS[name](32) for name in ("blip", "vit-h")]
    assert (look.each, look.prompt) == (both[0].each + both[1].each, both[0].prompt + both[1].prompt) and look.each > 10**11
    assert extractor_look(Refuses(), torch.rand(1, 8, 8, 3)).each == look.each
    Refuses.networks = ("blip", "brought")
    with pytest.raises(AssertionError, match="it ran"):
        reward_look(Refuses(), torch.rand(1, 8, 8, 3), "")


# What arms share ------------------------------------------------------------------------------------------------------


def arms_of(world, n=(2, 3)):
    known = {"prices": prices_of((TinyFiles(), "a prompt")), "advice": advised()}
    return build("equal-cost", setting_of(world.describe(), known), n).arms


def test_first_rows_have_the_bits_of_a_run_by_itself(world):
    arms, conditioning = arms_of(world), world.encode("a prompt")
    with one_thread(), torch.inference_mode():
        shared = walk(world, conditioning, 5, arms, "rows")
        for arm in arms:
            begin = start(world.model, conditioning, arm.plan.samples, 5, world.schedule)
            reward, extractor = world.rewards[arm.reward or "warmth"], world.extractors["latent-pool"]
            alone, ours = run(begin, arm.plan, reward, extractor, Sampler(world.sampling)), shared[arm.name]
            assert all(torch.equal(a, b) for a, b in zip(ours.state.bits, alone.state.bits, strict=True)), arm.name
            torch.testing.assert_close(ours.scores, alone.scores)
            assert [step[:2] for step in ours.state.lineage if arm.plan.stages] == [step[:2] for step in alone.state.lineage]


def drawn_by(world, arms, share, monkeypatch) -> tuple[list[int], list[int]]:
    """Samples drawn at each scale, and pictures scored, all arms together."""
    from ttsvar_core.search import memory

    drawn, scored, real = [0] * len(world.schedule), [], memory.sample

    def sample(state, through, *args, **settings):
        drawn[through] += state.samples
        return real(state, through, *args, **settings)

    class Watching(Warmth):
        def score(self, images, prompt):
            scored.append(len(images))
            return super().score(images, prompt)

    monkeypatch.setattr(memory, "sample", sample)
    watched = world._replace(rewards={"warmth": Watching(), "brightness": Brightness()})
    walk(watched, world.encode("a prompt"), 5, arms, share)
    return drawn, scored


def test_arms_of_any_size_begin_as_one_pool(world, monkeypatch):
    """Through the first cut nothing is drawn or scored twice; best-of-1, 2 and 3 are one batch to the end."""
    cut = [Arm(f"cut-{m}-{k}", cut_once(m, 3, k)) for m, k in ((9, 2), (6, 1), (5, 2))]
    arms = [Arm("best-of-1", best_of_n(1)), Arm("best-of-3", best_of_n(3)), Arm("best-of-2", best_of_n(2)), *cut]
    shared, scored = drawn_by(world, arms, "rows", monkeypatch)
    assert shared == [9, 9, 9, 9, 8, 8, 8]  # then 2 + 1 + 2 finish, and the 3
    assert sorted(scored) == [1, 2, 2, 3, 9]
    alone, _ = drawn_by(world, arms, "seconds", monkeypatch)
    assert alone == [26, 26, 26, 26, 11, 11, 11]
    assert drawn_by(world, arms, "pasts", monkeypatch)[0] == [23, 23, 23, 23, 8, 8, 8]


def test_a_reward_scores_what_lies_elsewhere_again():
    from lab.experiment.walk import Memory

    shared, images = SharedReward(Brightness(), Memory(4)), torch.rand(3, 4, 4, 3)
    first = shared.score(images, "")
    assert torch.equal(shared.score(images[:2], ""), first[:2])
    assert torch.equal(shared.score(images[1:], ""), first[1:]) and not torch.equal(first[:2], first[1:])


# Run and report -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def ran(tmp_path_factory):
    """Ten prompts by two workers, with advice, some arms alone; none is done twice."""
    out, told = tmp_path_factory.mktemp("equal"), []
    write_advice(out / "advice.json", advised())
    asked = Asked("equal-cost", [2, 3], ["budget", "funnel", "beam", "tts-var", "at-tts-var"])
    path = run_experiment(asked, TinyFiles(), prompts(10), 1, out, Where(workers=2), lambda *at: told.append(at))
    assert told == [(done, 10) for done in range(11)] and len(list((out / "units").iterdir())) == 10
    return path


def test_an_arm_is_priced_once_for_all_prompts_of_a_length(world, monkeypatch):
    counted = []
    monkeypatch.setattr("lab.experiment.unit.cost_in_pictures", lambda search, plan: counted.append(plan) or 1.0)
    priced.cache_clear()
    arms = best(1), Arm("twice", best_of_n(1)), best(2)
    records = [run_unit(Task(TinyFiles(), arms, Unit(prompt, 0, 0))) for prompt in prompts(2)]
    priced.cache_clear()
    assert counted == [best_of_n(1), best_of_n(2)]
    assert [record["arms"]["best-of-2"]["cost"]["pictures"] for record in records] == [1, 1]


def test_arms_cost_no_more_and_the_first_prompts_say_how_long_they_take(ran):
    units = json.loads(ran.read_text())["units"]
    assert [all("seconds" in arm["cost"] for arm in unit["arms"].values()) for unit in units] == [True] * 8 + [False] * 2
    for unit in units:
        costs = {name: arm["cost"] for name, arm in unit["arms"].items()}
        assert {"best-of-1", "best-of-2", "budget-2", "budget-3", "tts-var-2", "at-tts-var-3"} <= set(costs)
        assert not any("cut-at" in name or "multinomial" in name for name in costs)
        for n in (1, 2, 3):
            assert costs[f"best-of-{n}"]["pictures"] == pytest.approx(n)
        for name, cost in costs.items():
            family, _, n = name.rpartition("-")
            if family in ("budget", "funnel", "beam"):
                assert cost["flops"] <= costs[f"best-of-{n}"]["flops"] and cost["pictures"] <= int(n), name
            if family == "at-tts-var":
                assert cost["flops"] <= costs[f"tts-var-{n}"]["flops"], name


def test_the_report_says_what_each_costs_beside_what_it_gains(ran):
    report = write_report(ran).read_text()
    lines = report.partition("## At the cost of 3 pictures")[2].partition("\n## ")[0].splitlines()
    head, *rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("|")]
    table = {row[0]: dict(zip(head, row, strict=True)) for row in rows[1:]}
    for name, row in table.items():
        paper = name.startswith("tts-var")
        assert row["at most its cost"] == ("no" if paper else "yes"), name
        ours, of = map(float, row["cost in pictures"].split(" of "))
        assert (ours > of) == paper and (of == 3 or name.startswith("at-"))
        assert "[" in row["correct difference"] and "[" in row["warmth difference"]
    assert "budget-3" in table and "at-tts-var-3" in table and "One thing changed" not in report
    assert "scores there correlate" in report or "no early cut should gain" in report
    assert "| seconds |" in report and "nan" not in report


def test_the_same_folder_takes_no_other_arms_or_advice(ran):
    with pytest.raises(OtherExperiment, match="arms"):
        run_experiment(Asked("equal-cost", [2, 3], ["budget"]), TinyFiles(), prompts(10), 1, ran.parent)
    with pytest.raises(ValueError, match="no arm of equal-cost is called 'taste'; it has best-of, budget, funnel"):
        run_experiment(Asked("equal-cost", [2, 3], ["taste"]), TinyFiles(), prompts(10), 1, ran.parent)


def test_advice_of_other_weights_is_refused(tmp_path):
    write_advice(tmp_path / "advice.json", advised(fingerprint="another"))
    with pytest.raises(ValueError, match=r"the advice is of tiny \(another\), this is tiny \(tiny-0\); draw a pool"):
        run_experiment(Asked("equal-cost", [2]), TinyFiles(), prompts(1), 1, tmp_path)


def test_advice_for_a_folder_of_another_experiment_leaves_the_folder_as_it_is(ran, tmp_path):
    asked = Asked("pool", [4])
    run_experiment(asked, TinyFiles(), prompts(1), 1, tmp_path)
    write_advice(tmp_path / "advice.json", advised(enough=0.5))
    before = (tmp_path / "advice.json").read_bytes()
    with pytest.raises(OtherExperiment):
        run_experiment(Asked("equal-cost", [2], advice=advised()), TinyFiles(), prompts(1), 1, tmp_path)
    assert (tmp_path / "advice.json").read_bytes() == before
    (tmp_path / "advice.json").write_text("damaged")  # which `advise` writes again and does not read
    run_experiment(asked, TinyFiles(), prompts(1), 1, tmp_path)


def test_plans_chosen_by_the_very_prompts_they_are_measured_on_are_told_apart(tmp_path):
    pool = run_experiment(Asked("pool", [4]), TinyFiles(), prompts(2), 1, tmp_path / "pool")
    write_advised(pool, [2])
    advice = read_advice(tmp_path / "pool" / "advice.json")
    path = run_experiment(Asked("equal-cost", [2], ["budget"], advice), TinyFiles(), prompts(3), 1, tmp_path / "equal")
    assert "2 of 3 prompts are among those its plans were chosen by, which flatters these plans." in write_report(path).read_text()
    assert (tmp_path / "equal" / "advice.json").read_bytes() == (tmp_path / "pool" / "advice.json").read_bytes()


def test_arms_are_asked_for_by_name_family_or_pattern():
    experiment = build("equal-cost", infinity(), [2, 4])
    names = {ask: {arm.name for arm in experiment.only([ask]).arms} for ask in ("budget", "budget-4-*", "beam-2", "at-tts-var")}
    assert names["budget"] == {"best-of-1", "best-of-2", "best-of-4", "budget-2", "budget-4"}
    assert names["beam-2"] == {"best-of-1", "best-of-2", "beam-2"}
    assert names["at-tts-var"] == {"best-of-1", "tts-var-2", "tts-var-4", "at-tts-var-2", "at-tts-var-4"}
    assert {"budget-4-multinomial", "budget-4"} <= names["budget-4-*"] and "budget-2" not in names["budget-4-*"]
    assert experiment.only([]) == experiment
    assert tts_var(2) in [arm.plan for arm in experiment.only(["tts-var"]).arms]


def test_the_command_takes_arms():
    args = command.build_parser().parse_args(["equal-cost", "--out", "x", "--arms", "budget", "beam-*"])
    assert args.arms == ["budget", "beam-*"]
