"""The example of a user's own reward, in a search and as the file that users copy."""

import importlib.util
import re
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest
import torch

from ttsvar_core.rewards import Blend, Reward
from ttsvar_core.testing import RewardTests

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture
def example(monkeypatch):
    """The example file with as much of ComfyUI's node interface as it names."""
    api = ModuleType("comfy_api.latest")
    part = SimpleNamespace(Input=lambda *a, **k: (a, k), Output=lambda *a, **k: (a, k))
    api.ComfyExtension = object
    api.io = SimpleNamespace(ComfyNode=object, NodeOutput=tuple_of, Schema=SimpleNamespace, Float=part, Custom=lambda name: part)
    monkeypatch.setitem(sys.modules, "comfy_api", ModuleType("comfy_api"))
    monkeypatch.setitem(sys.modules, "comfy_api.latest", api)
    spec = importlib.util.spec_from_file_location("own_reward", ROOT / "docs" / "own_reward.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def tuple_of(*values):
    return values


def test_example_is_a_reward_that_needs_nothing_of_ours(example):
    (reward,) = example.ColourfulnessReward.execute(2.0)
    assert isinstance(reward, Reward)
    grey, red = torch.full((1, 8, 8, 3), 0.5), torch.zeros(1, 8, 8, 3)
    red[..., 0] = 1
    scores = reward.score(torch.cat([grey, red]), "anything")
    assert scores.dtype == torch.float32 and scores[0] == 0 and scores[1] == pytest.approx(2 * 4 / 9)
    assert Blend([reward], "rank").score(torch.cat([grey, red]), "x").tolist() == [0.0, 1.0]
    assert "ttsvar" not in re.sub(r'"""(.|\n)*?"""', "", (ROOT / "docs" / "own_reward.py").read_text()).replace("TTSVAR", "")


class TestExample(RewardTests):
    @pytest.fixture(autouse=True)
    def _loaded(self, example):
        self.reward = lambda: example.Colourfulness(1.0)


def test_example_scores_a_search(example, tiny_model, conditioning):
    from ttsvar_core.sampling import sample
    from ttsvar_core.search.score import Score, best
    from ttsvar_core.search.view import act
    from ttsvar_core.state import start

    state = sample(start(tiny_model, conditioning, 3, seed=0), 4)
    state, _ = act(state, Score(4), example.Colourfulness(1.0))
    kept = state.select(best(state, 1))
    assert kept.samples == 1 and kept.scores[0, 4] == state.scores[:, 4].max()


def documented(mark):
    """The Python block of the documentation that holds a mark, run."""
    text = (ROOT / "docs" / "own-reward.md").read_text(encoding="utf-8")
    (code,) = (block for block in re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL) if mark in block)
    module = sys.modules["documented"] = ModuleType("documented")
    exec(compile(code, "own-reward.md", "exec"), module.__dict__)
    return module


class TestNetworkOfTheDocumentation(RewardTests):
    in_range = False

    def reward(self):
        network = torch.nn.Sequential(torch.nn.AdaptiveAvgPool2d(4), torch.nn.Flatten(), torch.nn.Linear(48, 1)).eval()
        torch.nn.init.ones_(network[2].weight)
        torch.nn.init.zeros_(network[2].bias)
        return documented("class MyNetworkReward").MyNetworkReward(network)


def test_tests_of_the_documentation_test():
    tests = documented("RewardTests").TestMyReward()
    tests.reward = lambda: SimpleNamespace(name="", range=(0, 1), score=lambda images, prompt: images[:, 0, 0, 0])
    with pytest.raises(AssertionError, match="name"):
        tests.test_it_has_a_name_and_a_range()
