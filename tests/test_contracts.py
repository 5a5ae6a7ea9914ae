"""Every reward and extractor of ours keeps the contract that users' own are tested by; and the contract finds what breaks it."""

import functools
import tempfile
from pathlib import Path
from types import SimpleNamespace

import pytest
import reward_files
import torch
import vision_language
from safetensors.torch import save_file

from ttsvar_core import testing
from ttsvar_core.extractors.dinov2 import load_dinov2
from ttsvar_core.extractors.latent_pool import LatentPool
from ttsvar_core.rewards import Blend
from ttsvar_core.rewards.aesthetic import load_aesthetic
from ttsvar_core.rewards.clip import load_clip_score, load_hps, load_pick_score
from ttsvar_core.rewards.image_reward import load_image_reward
from ttsvar_core.rewards.scenes import SceneReward
from ttsvar_core.rewards.yes_no import load_yes_no


@functools.cache
def tiny(name):
    """A loader's reward over a tiny random model."""
    with tempfile.TemporaryDirectory() as folder:
        file, head = Path(folder) / "model.safetensors", Path(folder) / "head.safetensors"
        if name == "image-reward":
            save_file(reward_files.image_reward(), file)
            return load_image_reward(file)
        if name == "aesthetic":
            save_file(reward_files.siglip(), file)
            save_file(reward_files.aesthetic_head(), head)
            return load_aesthetic(file, head)
        if name == "yes-no":
            return load_yes_no(vision_language.save("llava", Path(folder)))
        if name.startswith("DINOv2"):
            torch.save(reward_files.dinov2(), file)
            return load_dinov2(file, name.removeprefix("DINOv2 "))
        save_file(reward_files.open_clip(), file)
        return {"hps": load_hps, "clip": load_clip_score, "pick": load_pick_score}[name](file)


class TestScenes(testing.RewardTests):
    reward = SceneReward


class TestImageReward(testing.RewardTests):
    in_range = False

    def reward(self):
        return tiny("image-reward")


class TestAesthetic(TestImageReward):
    def reward(self):
        return tiny("aesthetic")


class TestClipScore(TestImageReward):
    def reward(self):
        return tiny("clip")


class TestPickScore(TestImageReward):
    def reward(self):
        return tiny("pick")


class TestHps(TestImageReward):
    def reward(self):
        return tiny("hps")


class TestYesNo(testing.RewardTests):
    def reward(self):
        return tiny("yes-no")


class TestRankBlend(testing.RewardTests):
    compares = True

    def reward(self):
        return Blend([tiny("hps"), tiny("aesthetic")], "rank")


class TestWeightedBlend(TestImageReward):
    def reward(self):
        return Blend([tiny("hps"), tiny("aesthetic")], "weighted")


class TestLatentPool(testing.ExtractorTests):
    extractor = LatentPool


class TestDinoPca(testing.ExtractorTests):
    tolerance = 1e-4  # an axis found by iteration

    def extractor(self):
        return tiny("DINOv2 PCA")


class TestDinoPcaShared(testing.ExtractorTests):
    compares = True

    def extractor(self):
        return tiny("DINOv2 PCA-shared")


class TestDinoPool(testing.ExtractorTests):
    def extractor(self):
        return tiny("DINOv2 Pool")


def broken(score, name="broken", range=(0.0, 1.0), **more):
    """The contract of a reward that scores so."""
    tests = testing.RewardTests()
    tests.reward = lambda: SimpleNamespace(name=name, range=range, score=score, **more)
    return tests


def red(images):
    return images[..., 0].mean((1, 2))


@pytest.mark.parametrize(
    ("test", "reward", "words"),
    [
        ("one_finite_float32_row_per_sample", broken(lambda i, p: red(i).double()), "float32"),
        ("one_finite_float32_row_per_sample", broken(lambda i, p: red(i)[:, None]), "3 samples gave|1 samples gave"),
        ("one_finite_float32_row_per_sample", broken(lambda i, p: red(i) * float("nan")), "NaN"),
        ("one_finite_float32_row_per_sample", broken(lambda i, p: red(i).tolist()), "not a list"),
        ("one_finite_float32_row_per_sample", broken(lambda i, p: red(i).requires_grad_()), "no_grad"),
        ("the_input_is_not_changed", broken(lambda i, p: red(i.mul_(0.5))), "written to"),
        ("the_same_input_gives_the_same_values", broken(lambda i, p: red(i) + torch.rand(())), "random"),
        ("a_sample_does_not_depend_on_its_batch", broken(lambda i, p: red(i).softmax(0)), "alone"),
        ("every_size_is_taken", broken(lambda i, p: red(i) / (i.shape[1] - 17)), "17 x 31"),
        ("what_is_no_batch_is_refused_in_words", broken(lambda i, p: red(i)), r"ValueError.*IndexError|\(48, 40, 3\)"),
        ("every_device_gives_the_same", broken(lambda i, p: red(i), models=[torch.nn.Dropout()]), "eval"),
        ("it_has_a_name_and_a_range", broken(lambda i, p: red(i), name=""), "name"),
        ("it_has_a_name_and_a_range", broken(lambda i, p: red(i), range=(1.0, 0.0)), "low first"),
        ("it_has_a_name_and_a_range", broken(lambda i, p: 100 * red(i)), "far outside"),
        ("any_prompt_is_scored_or_refused_in_words", broken(lambda i, p: red(i) / len(p.split() or "")), "ZeroDivision|gave"),
    ],
)  # fmt: skip
def test_the_contract_says_what_a_reward_breaks(test, reward, words):
    with pytest.raises((AssertionError, ZeroDivisionError), match=words):
        getattr(reward, f"test_{test}")()
