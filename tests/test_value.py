"""Value models: what they see, where they are refused, what they learn, and what a search does with one."""

from __future__ import annotations

import json

import pytest
import torch
from experiment_world import SCHEDULE, Brightness, Warmth, asked, use_tiny_world
from tiny_models import make_conditioning, make_tiny_model

from lab.experiment.runner import OtherExperiment
from lab.value.check import check
from lab.value.collect import Unit, batched, collect, read_collection, read_unit
from lab.value.collect import drawn as kept
from lab.value.train import calibrate, pairwise_loss, train
from ttsvar_core import testing
from ttsvar_core.costs import NOTHING, Search
from ttsvar_core.looks import reward_look
from ttsvar_core.reading import UnusableFile
from ttsvar_core.rewards.base import Foreteller
from ttsvar_core.rewards.scenes import SceneReward
from ttsvar_core.rewards.value import MadeFor, Value, load_value, save_value
from ttsvar_core.sampling import sample
from ttsvar_core.scales import official
from ttsvar_core.search.plan import Plan, scored_at
from ttsvar_core.search.resample import Resample
from ttsvar_core.search.run import run
from ttsvar_core.search.value import ValueNetwork, ValueSizes, cells_of, value_grid
from ttsvar_core.state import start

SIZES = ValueSizes(channels=8, pooled=64, words=128, scales=7, width=16, depth=2, heads=2)
FUNNEL = Plan("funnel", 5, (Resample(3, 2, scheme="top-k"),))


def made_for(model, reward: str = "warmth", scales: tuple[int, ...] = (1, 3)) -> MadeFor:
    return MadeFor(model.name, model.fingerprint, reward, (), model.schedule().grids, False, scales)


def random_value(model, seed: int = 0, **about) -> Value:
    torch.manual_seed(seed)
    return Value(ValueNetwork(SIZES).requires_grad_(False).eval(), Warmth(), made_for(model, **about))


@pytest.fixture(scope="module")
def model():
    return make_tiny_model(schedule=SCHEDULE)


def drawn(model, through: int, samples: int = 5):
    return sample(start(model, make_conditioning(), samples, 3), through)


class TestValue(testing.RewardTests):
    def reward(self):
        value = random_value(make_tiny_model(schedule=SCHEDULE))
        return Value(value.network, SceneReward(), value.made_for)


# In a search ----------------------------------------------------------------------------------------------------------


def test_a_search_decodes_nothing_until_the_end_and_ends_by_the_reward(model):
    value = random_value(model)
    assert isinstance(value, Foreteller)
    result = run(start(model, make_conditioning(), 5, 3), FUNNEL, value)
    report = result.report
    assert [scale["decodes"] for scale in report["scales"]] == [0] * 6 + [1]
    foretold = value.foretell(drawn(model, 3))
    assert report["scales"][3]["scores"] == pytest.approx(foretold.tolist(), abs=1e-5)
    assert set(report["scales"][3]["ancestors"]) == set(foretold.topk(2).indices.tolist())
    torch.testing.assert_close(result.scores, Warmth().score(result.images, ""))


def test_what_it_says_of_a_sample_is_the_samples_own(model):
    value, state = random_value(model), drawn(model, 3)
    together = value.foretell(state)
    assert together.shape == (5,) and together.dtype == torch.float32 and together.std() > 0
    alone = torch.cat([value.foretell(state.select([row])) for row in range(5)])
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(value.foretell(state.select([4, 4, 0])), together[[4, 4, 0]], atol=1e-5, rtol=1e-4)
    other = state._replace(conditioning=make_conditioning(seed=9))
    assert not torch.allclose(value.foretell(other), together), "the words must count"


def test_elsewhere_it_is_refused_in_words_before_anything_runs(model):
    value = random_value(model)
    begin = start(model, make_conditioning(), 5, 3)
    with pytest.raises(ValueError, match=r"trained for scales 1, 3, not for 4\. Score there, or take warmth itself"):
        run(begin, Plan("funnel", 5, (Resample(4, 2),)), value)
    stranger = start(make_tiny_model(1, schedule=SCHEDULE), make_conditioning(), 5, 3)
    with pytest.raises(ValueError, match=r"trained on tiny \(tiny-0\), the samples are of tiny \(tiny-1\)\. Train one"):
        run(stranger, FUNNEL, value)
    shorter = start(model, make_conditioning(), 5, 3, model.schedule().prefix(6))
    with pytest.raises(ValueError, match=r"pictures of \(6, 6\) tokens in 7 scales, these have \(4, 4\) in 6"):
        run(shorter, FUNNEL, value)
    with pytest.raises(ValueError, match="not for 2"):
        value.foretell(drawn(model, 2))


def test_costs_count_the_network_and_no_decode(model):
    value, image = random_value(model), torch.rand(1, 12, 12, 3)
    look = reward_look(value, image, "a prompt")
    search = Search(model.config, scored_at(FUNNEL, (1,)), model.schedule(), (2,) * 7, 3, NOTHING, look)
    assert [scale.pictures for scale in search.scales] == [0] * 6 + [2]
    ahead = dict(look.ahead)
    assert search.parts["reward"] == 5 * ahead[1] + 5 * ahead[3] and 0 < ahead[1] < ahead[3]


@pytest.mark.parametrize("patchify", [False, True])
def test_every_grid_of_the_published_schedules_is_seen_at_no_more_than_16_a_side(patchify):
    schedule = official(1.5)
    for scale in range(len(schedule)):
        grid = value_grid(schedule, scale, patchify)
        assert max(grid) <= 16 and (grid == schedule.grids[scale] or max(schedule.grids[scale]) * (1 + patchify) > 16 or patchify)
    features = torch.randn(2, 8, *((2 * side for side in schedule.final) if patchify else schedule.final))
    cells = cells_of(features, schedule, 12, patchify)
    assert cells.shape[2:] == value_grid(schedule, 12, patchify)
    torch.testing.assert_close(cells_of(torch.ones_like(features), schedule, 5, patchify).unique(), torch.ones(1))


# Files ----------------------------------------------------------------------------------------------------------------


def test_a_file_brings_back_the_same_value_model_and_knows_its_reward(model, tmp_path):
    value, state, path = random_value(model), drawn(model, 1), tmp_path / "value.safetensors"
    save_value(path, value)
    again = load_value(path, reward=Warmth())
    assert again.made_for == value.made_for and torch.equal(again.foretell(state), value.foretell(state))
    with pytest.raises(UnusableFile, match="trained for the reward 'warmth', which is none of this package's"):
        load_value(path)
    save_value(path, random_value(model, reward="scenes"))
    assert load_value(path).name == "value of scenes"
    save_value(path, random_value(model, reward="hps"))
    with pytest.raises(UnusableFile, match=r"trained for HPS v2\.1 and needs HPS_v2\.1_compressed\.pt beside it"):
        load_value(path)


def test_a_reward_of_other_weights_and_damaged_files_are_refused(model, tmp_path):
    path = tmp_path / "value.safetensors"

    class Networked(Warmth):
        models = (torch.nn.Linear(2, 1),)

    save_value(path, random_value(model))
    with pytest.raises(UnusableFile, match="trained for other weights of warmth"):
        load_value(path, reward=Networked())
    data = path.read_bytes()
    other_width = data.replace(b'\\"width\\": 16', b'\\"width\\": 32')
    for damaged in (data[: len(data) // 2], data.replace(b"ttsvar-value", b"ttsvar-volue"), other_width):
        assert damaged != data
        path.write_bytes(damaged)
        with pytest.raises(UnusableFile, match=r"value\.safetensors"):
            load_value(path, reward=Warmth())


# Learning -------------------------------------------------------------------------------------------------------------


def test_the_loss_sees_differences_within_a_prompt_only_and_failures_most():
    generator = torch.Generator().manual_seed(0)
    values, final = torch.randn(2, 3, 6, generator=generator)
    shifted = pairwise_loss(values + torch.tensor([[5.0], [-3.0], [0.0]]), final + torch.tensor([[1.0], [2.0], [3.0]]))
    torch.testing.assert_close(shifted, pairwise_loss(values, final))
    right, wrong = pairwise_loss(3 * final, final), pairwise_loss(-3 * final, final)
    assert right < pairwise_loss(torch.zeros_like(final), final) < wrong
    tied = values.clone().requires_grad_()
    pairwise_loss(tied, torch.ones_like(final)).backward()
    assert not tied.grad.any()
    failure = torch.tensor([[0.0, 0.9, 1.0]])
    missed_failure, missed_order = torch.tensor([[1.0, 0.0, 1.0]]), torch.tensor([[0.0, 1.0, 0.9]])
    assert pairwise_loss(missed_failure, failure) > pairwise_loss(missed_order, failure)


def test_calibration_finds_the_unit(model):
    network = ValueNetwork(SIZES).requires_grad_(False).eval()
    generator = torch.Generator().manual_seed(1)
    units = []
    for number in range(3):
        cells = {1: torch.randn(6, 8, 3, 3, generator=generator)}
        unit = Unit(f"p{number}", cells, torch.zeros(6, 2), torch.randn(64), torch.randn(4, 128), None)
        seen, *rest = batched([unit], 1)
        units.append(unit._replace(scores=torch.stack([torch.zeros(6), 7 * network(seen, 1, *rest)[0] + number], dim=1)))
    calibrate(network, units, (1,))
    assert network.unit.tolist() == pytest.approx([1, 7, 1, 1, 1, 1, 1], rel=1e-4)


def arguments(out, **changed):
    return asked(out=out, scales=(1, 3), **changed)


@pytest.fixture
def tiny_world(monkeypatch):
    use_tiny_world(monkeypatch)


def training(data, out, **changed):
    given = {"data": [data], "out": out, "steps": 6, "batch": 2, "rate": 1e-2, "width": 16, "depth": 1}
    return asked(**{**given, **changed})


def test_collect_goes_on_where_it_was_and_train_and_check_read_it(tiny_world, tmp_path, model):
    collect(arguments(tmp_path / "all"), 3, kept)
    collect(arguments(tmp_path / "parts"), 1, kept)
    first = next((tmp_path / "parts" / "samples").glob("*")).stat().st_mtime_ns
    collect(arguments(tmp_path / "parts"), 3, kept)
    files = {path.name: path.read_bytes() for path in (tmp_path / "all" / "samples").glob("*")}
    assert files == {path.name: path.read_bytes() for path in (tmp_path / "parts" / "samples").glob("*")} and len(files) == 3
    assert min(path.stat().st_mtime_ns for path in (tmp_path / "parts" / "samples").glob("*")) == first
    with pytest.raises(OtherExperiment, match="samples"):
        collect(arguments(tmp_path / "parts", samples=5), 3, kept)
    collection = read_collection([tmp_path / "all"])
    unit = read_unit(collection.files[0], (1, 3))
    assert unit.scores.shape == (4, 3) and unit.correct.shape == (4,) and unit.cells[3].shape == (4, 8, 3, 3)
    file = train(training(tmp_path / "all", tmp_path / "run"))
    assert load_value(file, reward=Warmth()).made_for == made_for(model)
    told = check(file, [tmp_path / "all"], tmp_path / "check.json")
    assert told.count("value model |") == 2 and told.count("sketch |") == 2 and "The ceiling" in told
    rows = json.loads((tmp_path / "check.json").read_text())["rows"]
    assert {row["by"] for row in rows} == {"sketch", "value model"} and all(row["flops"] > 0 for row in rows)


def test_an_interrupted_training_ends_with_the_same_weights(tiny_world, tmp_path):
    collect(arguments(tmp_path / "data"), 3, kept)
    straight = train(training(tmp_path / "data", tmp_path / "straight"))
    train(training(tmp_path / "data", tmp_path / "parts", steps=6, save_every=0.0))
    once = training(tmp_path / "data", tmp_path / "stopped", save_every=0.0)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("lab.value.train._export", _stop_after(3))
        with pytest.raises(KeyboardInterrupt):
            train(once)
    assert train(once).read_bytes() == straight.read_bytes()


def _stop_after(steps: int):
    def export(run, *rest):
        if run.step == steps:
            raise KeyboardInterrupt

    return export


def test_it_learns_what_can_be_told_from_the_features(tiny_world, tmp_path):
    """Samples whose reward is the mean of one channel, to be told after the first of two scales."""
    collect(arguments(tmp_path / "data", samples=8), 12, kept)
    for path in (tmp_path / "data" / "samples").glob("*"):
        _rewrite(path)
    file = train(training(tmp_path / "data", tmp_path / "run", steps=120, batch=8, rate=5e-3))
    told = check(file, [tmp_path / "data"], tmp_path / "check.json")
    ours = {row["scale"]: row for row in json.loads((tmp_path / "check.json").read_text())["rows"] if row["by"] == "value model"}
    assert ours[3]["rank_correlation"][0] > 0.7 and ours[3]["pick_share"] > 0.6, told


def _rewrite(path) -> None:
    from safetensors.torch import load_file, save_file

    tensors = load_file(str(path))
    tensors["scores"][:, -1] = tensors["cells.3"][:, 0].float().mean(dim=(1, 2))
    save_file(tensors, str(path), {"prompt": path.stem})


def test_folders_of_more_samples_are_refused_in_words(tiny_world, tmp_path):
    for samples in (4, 6):
        collect(arguments(tmp_path / str(samples), samples=samples), 2, kept)
    with pytest.raises(ValueError, match=r"differs from .* in samples; give folders that agree in it"):
        read_collection([tmp_path / "4", tmp_path / "6"])


def test_check_refuses_samples_of_another_model_or_reward(tiny_world, tmp_path, model, monkeypatch):
    collect(arguments(tmp_path / "data"), 2, kept)
    path = tmp_path / "value.safetensors"
    save_value(path, random_value(model, reward="brightness"))
    with pytest.raises(ValueError, match=r"not made for these samples: reward differ"):
        check(path, [tmp_path / "data"])
    save_value(path, random_value(model, scales=(1, 2)))
    with pytest.raises(ValueError, match=r"scales \[2\] differ"):
        check(path, [tmp_path / "data"])
    with pytest.raises(UnusableFile, match="Collect again"):
        read_collection([tmp_path])
    assert Brightness().name == "brightness"
