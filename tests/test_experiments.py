"""Experiments: equal to the search itself, resumable, and independent of workers, kills and engines."""

from __future__ import annotations

import json
import math
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import weakref
from pathlib import Path

import pytest
import torch
from experiment_world import SCHEDULE, TinyFiles, Warmth, prompts, threads_in_use
from tiny_models import make_conditioning, make_tiny_model

from lab.experiment.arms import Arm, Setting
from lab.experiment.definitions import EXPERIMENTS, build
from lab.experiment.engines import WorkerDied, one_thread, opened
from lab.experiment.prices import Prices
from lab.experiment.report import write_report
from lab.experiment.runner import Asked, OtherExperiment, Where, run_experiment
from lab.experiment.walk import walk
from ttsvar_core.config import PRESETS
from ttsvar_core.costs import Look
from ttsvar_core.scales import official
from ttsvar_core.search.memory import Sampler
from ttsvar_core.search.plan import best_of_n, importance_sampling
from ttsvar_core.search.run import run
from ttsvar_core.state import start

OFFICIAL_TOKENS = (1, 4, 16, 36, 64, 144, 256, 400, 576, 1024, 1600, 2304, 4096)
TWO = Asked("consistency", [2])
EXTRACTORS, REWARDS = ("latent-pool", "tokenizer-Pool", "chance"), ("warmth", "brightness")


@pytest.fixture(scope="module")
def world():
    return TinyFiles()()


@pytest.fixture(scope="module")
def straight(tmp_path_factory) -> Path:
    """The results of a run of three prompts and two seeds without any interruption, in this process."""
    out = tmp_path_factory.mktemp("straight")
    return run_experiment(TWO, TinyFiles(), prompts(3), 2, out)


@pytest.mark.parametrize("name", EXPERIMENTS)
@pytest.mark.parametrize("scales", [13, 7, 5])
def test_every_experiment_fits_its_schedule_and_compares_only_what_it_runs(name, scales):
    tokens, schedule = OFFICIAL_TOKENS[:scales], official().prefix(scales)
    prices = Prices(PRESETS["2b"], schedule, (2,) * scales, (1, 512), {name: Look(10**9) for name in REWARDS})
    setting = Setting(tokens, EXTRACTORS, REWARDS, prices)
    experiment = build(name, setting, n=(1, 2) if name == "n-curve" else (2,))
    names = [arm.name for arm in experiment.arms]
    assert len(names) == len(set(names))
    for arm in experiment.arms:
        arm.plan.check(len(tokens))
    for table in experiment.tables:
        assert {name for pair in table.pairs for name in (pair.arm, pair.baseline)} <= set(names)


def where(plan):
    """The scales at which something selects."""
    return [stage.scale for stage in plan.stages if stage.keep is not None]


@pytest.mark.parametrize("scales", [5, 7, 10, 13])
def test_ablations_place_selectors_where_the_plans_have_them(scales):
    """Parts of the search sit at the scales of the whole one; a schedule of the published length has the published scales."""
    arms = {arm.name: arm.plan for arm in build("ablations", Setting((1,) * scales, EXTRACTORS, REWARDS), n=(2,)).arms}
    places = {name: where(plan) for name, plan in arms.items() if where(plan)}
    assert places["resampling-2"] == where(importance_sampling(2, scales))
    often = [name for name in places if name.startswith("resampling-2-at-")]
    assert [len(places[name]) for name in often] == [3, 6] if scales > 6 else [3]
    if scales == 13:
        assert places["resampling-2"] == [6, 9] and places["clustering-2"] == [2, 5]
        assert [places[name] for name in often] == [[6, 8, 10], [6, 7, 8, 9, 10, 11]]


def test_best_of_n_is_given_no_less_compute_than_tts_var():
    """At 1M pixels one image is 10,521 token-forwards and TTS-VAR with N = 1 14,656: Best-of-2 pays for it."""
    experiment = build("n-curve", Setting(OFFICIAL_TOKENS, EXTRACTORS, REWARDS))
    equal_cost = {pair.arm: pair.baseline for pair in experiment.tables[-1].pairs}
    assert equal_cost == {"tts-var-1": "best-of-2", "tts-var-2": "best-of-3", "tts-var-4": "best-of-6", "tts-var-8": "best-of-12"}


def first_rows(arms):
    """The Best-of-N arms that are the first rows of a larger one."""
    plain = [arm for arm in arms if not where(arm.plan)]
    kinds = {arm.name: (arm.reward, arm.plan.stages) for arm in plain}
    return {arm.name for arm in plain if any(kinds[arm.name] == kinds[o.name] and o.plan.samples > arm.plan.samples for o in plain)}


@pytest.mark.parametrize("name", ["n-curve", "single-scale", "ablations", "beyond"])
def test_shared_work_gives_every_arm_the_bits_of_a_run_by_itself(world, name):
    setting = Setting(world.schedule.tokens, tuple(world.extractors), tuple(world.rewards))
    experiment = build(name, setting, n=(1, 2) if name == "n-curve" else (2,))
    conditioning = world.encode("a prompt")
    with one_thread(), torch.inference_mode():
        finished, pooled = walk(world, conditioning, 5, experiment.arms), first_rows(experiment.arms)
        for arm in experiment.arms:
            extractor = world.extractors[arm.extractor or "latent-pool"]
            begin = start(world.model, conditioning, arm.plan.samples, 5, world.schedule)
            alone = run(begin, arm.plan, world.rewards[arm.reward or "warmth"], extractor, Sampler(world.sampling))
            shared = finished[arm.name]
            assert all(torch.equal(a, b) for a, b in zip(shared.state.bits, alone.state.bits, strict=True)), arm.name
            if arm.name not in pooled:
                assert torch.equal(shared.scores, alone.scores), arm.name
                assert torch.equal(shared.images, alone.images), arm.name
                assert [s[:2] for s in shared.state.lineage] == [s[:2] for s in alone.state.lineage]


def test_smaller_best_of_n_are_the_first_rows_of_the_largest(world):
    arms = [Arm(f"best-of-{n}", best_of_n(n)) for n in (1, 2, 5)]
    finished = walk(world, world.encode("a prompt"), 3, arms)
    assert [len(one.scores) for one in finished.values()] == [1, 2, 5]
    for n in (1, 2):
        ours, largest = finished[f"best-of-{n}"], finished["best-of-5"]
        assert torch.equal(ours.scores, largest.scores[:n]) and torch.equal(ours.images, largest.images[:n])
        assert all(torch.equal(a, b[:n]) for a, b in zip(ours.state.bits, largest.state.bits, strict=True))


def test_an_arm_of_something_that_is_not_there_is_refused(world):
    arm = Arm("x", best_of_n(1), reward="taste")
    with pytest.raises(ValueError, match="asks for 'taste'; this world has warmth, brightness"):
        walk(world, world.encode("a prompt"), 3, [arm])


def test_results_do_not_depend_on_workers_even_when_one_is_killed(straight, tmp_path):
    killer = tmp_path / "killer"
    killer.touch()
    out = tmp_path / "out"
    parallel = run_experiment(TWO, TinyFiles(killer=str(killer)), prompts(3), 2, out, Where(workers=2))
    assert not killer.exists(), "no worker was killed"
    assert parallel.read_bytes() == straight.read_bytes()


def test_seeds_from_any_number_on_are_those_of_a_longer_run(straight, tmp_path):
    late = json.loads(run_experiment(TWO, TinyFiles(), prompts(3), range(1, 2), tmp_path / "late").read_text())
    whole = json.loads(straight.read_text())
    assert late["units"] == [unit for unit in whole["units"] if unit["number"] == 1] and len(late["units"]) == 3
    with pytest.raises(ValueError, match="0 seeds leave nothing to run"):
        run_experiment(TWO, TinyFiles(), prompts(3), range(2, 2), tmp_path / "none")


def test_an_interrupted_run_is_continued_to_the_same_results(straight, tmp_path):
    def stop_at_two(done: int, total: int) -> None:
        if done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_experiment(TWO, TinyFiles(), prompts(3), 2, tmp_path, progress=stop_at_two)
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "units").glob("*.json")}
    assert len(before) == 2
    told = []
    again = run_experiment(TWO, TinyFiles(), prompts(3), 2, tmp_path, progress=lambda *at: told.append(at))
    assert told == [(2, 6), (3, 6), (4, 6), (5, 6), (6, 6)]
    assert again.read_bytes() == straight.read_bytes()
    assert all(path.stat().st_mtime_ns == when for path, when in before.items())


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="reads the process table of Linux")
def test_a_killed_run_leaves_whole_files_and_no_orphans(straight, tmp_path):
    """SIGKILL to the whole command, two workers at work: what is there is whole, and a second run completes it."""
    code = (
        "import signal\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"  # a shell's background jobs start without it
        "from experiment_world import TinyFiles, prompts\n"
        "from lab.experiment.runner import Asked, Where, run_experiment\n"
        "if __name__ == '__main__':\n"
        f"    run_experiment(Asked('consistency', [2]), TinyFiles(slow=1.0), prompts(3), 2, {str(tmp_path)!r}, Where(workers=2))\n"
    )
    script = tmp_path / "script.py"
    script.write_text(code)
    here = Path(__file__).parent
    environment = {"PYTHONPATH": f"{here.parent}:{here}", "PATH": "/usr/bin:/bin"}
    process = subprocess.Popen([sys.executable, str(script)], env=environment, start_new_session=True)
    units = tmp_path / "units"
    _wait(lambda: len(list(units.glob("*.json"))) >= 2 or process.poll() is not None)
    workers = _children(process.pid)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert process.returncode == -signal.SIGKILL and len(workers) >= 2
    assert 2 <= len(list(units.glob("*.json"))) < 6
    _wait(lambda: not any(_alive(worker) for worker in workers))
    again = run_experiment(TWO, TinyFiles(), prompts(3), 2, tmp_path)
    assert again.read_bytes() == straight.read_bytes()


def test_more_prompts_reuse_what_is_there(tmp_path):
    ran = []
    run_experiment(Asked("consistency", [1]), TinyFiles(), prompts(1), 1, tmp_path)
    path = run_experiment(Asked("consistency", [1]), TinyFiles(), prompts(2), 1, tmp_path, progress=lambda *at: ran.append(at))
    assert ran == [(1, 2), (2, 2)]
    assert [one["prompt"] for one in json.loads(path.read_text())["units"]] == ["prompt 0", "prompt 1"]


def test_a_folder_of_another_model_or_plan_is_refused(straight):
    with pytest.raises(OtherExperiment, match=r"world\.fingerprint"):
        run_experiment(TWO, TinyFiles(seed=1), prompts(3), 2, straight.parent)
    with pytest.raises(OtherExperiment, match="arms"):
        run_experiment(Asked("consistency", [3]), TinyFiles(), prompts(3), 2, straight.parent)


def other_precision(world):
    model = make_tiny_model(schedule=SCHEDULE)
    model.transformer.to(torch.bfloat16)
    return world._replace(model=model)


def other_text(world):
    return world._replace(encode=lambda prompt: make_conditioning(seed=0, prompt=prompt))


def other_network(world):
    class Networked(Warmth):
        models = (torch.nn.Linear(2, 1),)

    return world._replace(rewards={**world.rewards, "warmth": Networked()})


@pytest.mark.parametrize(
    ("changed", "key"), [(other_precision, "dtype"), (other_text, "text"), (other_network, "networks")]
)
def test_a_folder_of_another_precision_text_encoder_or_reward_is_refused(straight, world, changed, key):
    other = changed(world)
    with pytest.raises(OtherExperiment, match=rf"experiment: world, world\.{key} differ"):
        run_experiment(TWO, lambda: other, prompts(3), 2, straight.parent)


def test_text_features_may_differ_by_rounding(straight, tmp_path):
    shutil.copytree(straight.parent, tmp_path / "copy")
    path = tmp_path / "copy" / "experiment.json"
    identity = json.loads(path.read_text())
    identity["world"]["text"][0] += 1e-6
    path.write_text(json.dumps(identity))
    run_experiment(TWO, TinyFiles(), prompts(3), 2, tmp_path / "copy")


def test_the_report_says_what_each_scale_has_fixed(straight):
    assert "| fixed |" in write_report(straight).read_text()


def test_impossible_requests_are_refused_before_anything_runs(tmp_path):
    with pytest.raises(ValueError, match="0 prompts"):
        run_experiment(Asked("consistency"), TinyFiles(), (), 1, tmp_path)
    with pytest.raises(ValueError, match="no experiment 'taste'"):
        run_experiment(Asked("taste"), TinyFiles(), prompts(1), 1, tmp_path)
    with pytest.raises(ValueError, match="twice"):
        run_experiment(Asked("consistency"), TinyFiles(), prompts(1) * 2, 1, tmp_path)
    with pytest.raises(ValueError, match="unknown engine 'steam'"), opened(engine="steam"):
        pass
    with pytest.raises(ValueError, match="0 workers"), opened(0):
        pass


@pytest.mark.parametrize("workers", [1, 2])
def test_units_run_on_one_thread_whatever_was_set(workers):
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        with opened(workers) as engine:
            assert list(engine(threads_in_use, [0, 0])) == [(1, 1), (1, 1)]
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def test_what_came_back_from_workers_is_not_kept():
    """Collecting sends whole samples back, gigabytes in all."""
    seen = []
    with opened(2) as engine:
        for result in engine(torch.zeros, [3, 4, 5, 6]):
            seen.append(weakref.ref(result))
            del result
            assert not [one for one in seen[:-1] if one() is not None]
    assert len(seen) == 4


def test_workers_that_keep_dying_are_given_up_and_errors_are_handed_on(monkeypatch):
    monkeypatch.setattr("lab.experiment.engines.DEATHS", 1)
    with opened(2) as engine:
        assert sorted(engine(math.sqrt, [4.0, 9.0])) == [2.0, 3.0]
        with pytest.raises(WorkerDied, match="died 1 times without finishing anything, 2 units are left"):
            list(engine(os._exit, [1, 1]))
        with pytest.raises(ValueError, match="math domain"):
            list(engine(math.sqrt, [-1.0]))


def test_ray_runs_every_prompt_once_though_a_worker_is_killed(straight, tmp_path, monkeypatch):
    """On a cluster of two nodes with a worker each, reached by its address."""
    pytest.importorskip("ray")
    from ray.cluster_utils import Cluster

    here = Path(__file__).parent
    monkeypatch.setenv("PYTHONPATH", f"{here.parent}:{here}")  # where the nodes find the tiny world
    killer = tmp_path / "killer"
    killer.touch()
    cluster, done = Cluster(initialize_head=True, head_node_args={"num_cpus": 1}), []
    try:
        cluster.add_node(num_cpus=1)
        where = Where(2, "ray", cluster.address)
        path = run_experiment(
            TWO, TinyFiles(killer=str(killer)), prompts(3), 2, tmp_path / "out", where,
            lambda *at: done.append(at),
        )
    finally:
        cluster.shutdown()
    assert not killer.exists(), "no worker was killed"
    assert done == [(count, 6) for count in range(7)]
    assert path.read_bytes() == straight.read_bytes()


def test_ray_starts_a_cluster_of_its_own_and_hands_errors_on():
    pytest.importorskip("ray")
    with opened(2, "ray") as engine:
        with pytest.raises(ValueError, match="math domain"):
            list(engine(math.sqrt, [4.0, -1.0]))
        assert sorted(engine(math.sqrt, [4.0, 9.0])) == [2.0, 3.0]


def _wait(ready, seconds: float = 120) -> None:
    end = time.monotonic() + seconds
    while not ready():
        assert time.monotonic() < end, "waited too long"
        time.sleep(0.05)


def _children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def _alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def _damaged(path, content):
    path.write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())


def _unit_with(change):
    """A unit's record with one thing changed."""

    def damage(folder: Path) -> Path:
        path = sorted((folder / "units").iterdir())[0]
        record = json.loads(path.read_text())
        change(record)
        _damaged(path, record)
        return path

    return damage


def _copied(folder: Path) -> Path:
    first, second = sorted((folder / "units").iterdir())[:2]
    shutil.copy(second, first)
    return first


def _with(name: str, content):
    def damage(folder: Path) -> Path:
        path = folder / "experiment.json" if name == "experiment" else sorted((folder / "units").iterdir())[0]
        _damaged(path, content)
        return path

    return damage


DAMAGES = {
    **{
        f"{name} of {told}": _with(name, content)
        for name in ("experiment", "unit")
        for told, content in {
            "nothing": b"", "noise": b"\x00\xff\xfe", "half": b'{"prompt": "pro', "deep": b"[" * 200_000, "null": b"null",
            "5": b"5", "a list": b"[]", "a world that is a number": {"world": 5},
        }.items()
    },
    "a unit copied over another": _copied,
    "a unit without arms": _unit_with(lambda record: record.pop("arms")),
    "a unit with a list of arms": _unit_with(lambda record: record.update(arms=[])),
    "a unit of other arms": _unit_with(lambda record: record.update(arms={"other": {}})),
    "a unit without scores": _unit_with(lambda record: record["arms"]["watched-2"].pop("scores")),
    "a unit of words": _unit_with(lambda record: record["arms"]["watched-2"]["scores"].append("high")),
    "a unit of no sample": _unit_with(lambda record: record["arms"]["watched-2"].update(best=2)),
    "a unit without a metric": _unit_with(lambda record: record["arms"]["watched-2"]["answer"].pop("brightness")),
    "a unit without a cost": _unit_with(lambda record: record["arms"]["watched-2"].update(cost=None)),
    "a unit with half a history": _unit_with(lambda record: record["arms"]["watched-2"]["history"][0].pop()),
    "a unit of another seed": _unit_with(lambda record: record.update(seed=1)),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_folder_is_refused_before_anything_runs(damage, straight, tmp_path):
    """One line names the file and the remedy; following it works."""
    shutil.copytree(straight.parent, tmp_path / "out")
    path, ran = DAMAGES[damage](tmp_path / "out"), []

    def again(progress):
        return run_experiment(TWO, TinyFiles(), prompts(3), 2, tmp_path / "out", progress=progress)

    with pytest.raises(ValueError, match=re.escape(str(path))) as caught:
        again(lambda *at: ran.append(at))
    text = str(caught.value)
    assert not ran and "\n" not in text and ("Choose another" if path.name == "experiment.json" else "Remove it") in text
    path.unlink()
    assert again(None).read_bytes() == straight.read_bytes()


@pytest.mark.skipif(os.name != "posix", reason="signals of POSIX")
@pytest.mark.parametrize("workers", [1, 2])
def test_ctrl_c_ends_within_two_seconds_with_one_line(workers, tmp_path):
    """As from a terminal, where the workers are interrupted too; each would be busy for a minute."""
    code = (
        "import signal\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"  # a shell's background jobs start without it
        "from experiment_world import TinyFiles, prompts\n"
        "from lab.experiment import __main__ as experiment\n"
        "from ttsvar_core import cli\n"
        "experiment._files = lambda args: TinyFiles(slow=60, slow_after='prompt 1')\n"
        "experiment._prompts = lambda args: prompts(3)\n"
        "if __name__ == '__main__':\n"
        "    cli.program(experiment.main)\n"
    )
    (tmp_path / "script.py").write_text(code)
    here = Path(__file__).parent
    out = tmp_path / "out"
    process = subprocess.Popen(
        [sys.executable, tmp_path / "script.py", "consistency", "--n", "1", "--workers", str(workers), "--out", out],
        env={"PYTHONPATH": f"{here.parent}:{here}", "PATH": "/usr/bin:/bin"}, start_new_session=True, stderr=subprocess.PIPE,
        text=True,
    )
    _wait(lambda: list((out / "units").glob("*.json")) or process.poll() is not None)
    started = time.monotonic()
    os.killpg(process.pid, signal.SIGINT)
    _, error = process.communicate(timeout=30)
    assert time.monotonic() - started < 2
    last = [line for line in error.splitlines() if line.strip() and "unit" not in line]
    assert process.returncode == 130
    assert last == [f"Interrupted; {out} keeps what is finished, the same command goes on from there."]
