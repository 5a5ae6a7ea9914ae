"""The scene world: its grammar, its split, its pictures, and a verifier that is right at least 99 times in 100."""

import numpy
import pytest
import torch

from ttsvar_core.rewards.scenes import SceneReward, judge_images
from ttsvar_core.scenes.grammar import (
    CATEGORIES,
    Noun,
    PromptError,
    ScenePrompt,
    all_prompts,
    benchmark_prompts,
    combination_split,
    parse_prompt,
    prompts_of,
)
from ttsvar_core.scenes.render import COLOURS, SHAPES, render, sample_scenes
from ttsvar_core.scenes.verify import detect, judge_image

COUNT = 400


def rendered(count=COUNT, seed=3):
    prompts = benchmark_prompts("test", count, seed)
    return prompts, render(sample_scenes(list(prompts), numpy.random.default_rng(seed)))


def spoil(images, blur, noise, seed=0):
    ndimage = pytest.importorskip("scipy.ndimage")
    soft = ndimage.gaussian_filter(images, (0, blur, blur, 0)) if blur else images
    return (soft + numpy.random.default_rng(seed).normal(0, noise, soft.shape)).clip(0, 1).astype(numpy.float32)


def means_the_same(first: ScenePrompt, second: ScenePrompt) -> bool:
    return not first.relation and not second.relation and sorted(first.objects) == sorted(second.objects)


def test_every_prompt_is_read_back_as_written():
    assert len(all_prompts()) > 3000
    assert len({p.text for p in all_prompts()}) == len(all_prompts())
    for prompt in all_prompts():
        assert parse_prompt(prompt.text) == prompt
    assert {p.category for p in all_prompts()} == set(CATEGORIES)


def test_the_prompts_of_the_documentation():
    assert parse_prompt("a photo of three blue squares") == ScenePrompt((Noun("square", "blue"),), count=3)
    related = parse_prompt("a photo of a red circle left of a blue square")
    assert (related.category, related.relation) == ("position", "left of")
    assert parse_prompt("A photo of a red circle and a blue square.").category == "attribution"
    assert parse_prompt("a photo of a circle").category == "single"


@pytest.mark.parametrize(
    "text",
    ["", "a cat", "a photo of", "a photo of a cat", "a photo of a pink circle", "a photo of five circles",
     "a photo of three circle", "a photo of red circle", "a photo of a circle and", "a photo of a circle beside a square",
     "a photo of a red circle and a red circle", "a photo of a circle and a red circle", "a photo of a circles"],
)
def test_other_prompts_are_refused_with_the_grammar(text):
    with pytest.raises(PromptError) as error:
        SceneReward().score(torch.zeros(1, 64, 64, 3), text)
    assert "circle" in str(error.value) or "different" in str(error.value)


def test_held_out_combinations_are_never_trained_on():
    for category in ("two", "counting", "position", "attribution"):
        train = {tuple(sorted(p.objects)) for p in prompts_of(category, "train")}
        held = {tuple(sorted(p.objects)) for split in ("validation", "test") for p in prompts_of(category, split)}
        assert train and held and not train & held
    generator = numpy.random.default_rng(0)
    loose = [p for p in prompts_of("two", "train") if not all(n.colour for n in p.nouns)] * 4
    loose += [p for p in prompts_of("counting", "train") if not p.nouns[0].colour] * 20
    scenes = sample_scenes(loose, generator)
    for shapes, colours in zip(scenes.shapes, scenes.colours, strict=True):
        shown = tuple(Noun(SHAPES[s], COLOURS[c]) for s, c in zip(shapes, colours, strict=True) if s >= 0)
        assert combination_split(shown) == "train"


def test_scenes_repeat_with_their_seed():
    prompts = list(benchmark_prompts("test", 12))
    once, again = (render(sample_scenes(prompts, numpy.random.default_rng(5))) for _ in range(2))
    assert numpy.array_equal(once, again)
    assert not numpy.array_equal(once, render(sample_scenes(prompts, numpy.random.default_rng(6))))


@pytest.mark.parametrize(("blur", "noise"), [(0.0, 0.0), (0.7, 0.05), (1.2, 0.03), (1.5, 0.0)])
def test_the_verifier_is_right_99_times_in_100(blur, noise):
    prompts, images = rendered()
    images = spoil(images, blur, noise)
    right = numpy.mean([judge_image(i, p).correct for i, p in zip(images, prompts, strict=True)])
    others = [(i, p) for n, i in enumerate(images) if not means_the_same(p := prompts[(n + 6) % COUNT], prompts[n])
              and p != prompts[n]]
    fooled = numpy.mean([judge_image(i, p).correct for i, p in others])
    assert right >= 0.99
    # A picture of another prompt of the same category may still be a right answer ("a circle" for a red circle).
    assert fooled <= 0.01


def test_every_object_is_named_and_placed():
    prompts, images = rendered(240)
    scenes = sample_scenes(list(prompts), numpy.random.default_rng(3))
    for row, image in enumerate(images):
        seen = {(d.shape, d.colour, round(d.x / 32 - 0.5), round(d.y / 32 - 0.5)) for d in detect(image)}
        there = scenes.shapes[row] >= 0
        real = {
            (SHAPES[s], COLOURS[c], int(x > 32), int(y > 32))
            for s, c, (x, y) in zip(scenes.shapes[row][there], scenes.colours[row][there], scenes.centres[row][there],
                                    strict=True)
        }
        assert seen == real


def test_a_picture_of_everything_is_right_for_nothing():
    crowd = ScenePrompt((Noun("circle", "red"),), count=4)
    scenes = sample_scenes([crowd], numpy.random.default_rng(0))
    scenes = scenes._replace(shapes=numpy.array([[0, 1, 2, 3]]))
    image = render(scenes)[0]
    for text in ("a photo of a circle", "a photo of a circle and a square", "a photo of two circles"):
        assert not judge_image(image, parse_prompt(text)).correct


@pytest.mark.parametrize("relation", ["left of", "right of", "above", "below"])
def test_relations_tell_the_two_orders_apart(relation):
    prompt = ScenePrompt((Noun("circle", "red"), Noun("square", "blue")), relation=relation)
    images = render(sample_scenes([prompt] * 20, numpy.random.default_rng(0)))
    swapped = ScenePrompt(prompt.nouns[::-1], relation=relation)
    for image in images:
        right, wrong = judge_image(image, prompt), judge_image(image, swapped)
        assert right.correct and not wrong.correct and right.score > wrong.score + 0.2


@pytest.mark.parametrize("fill", [0.0, 0.5, 1.0])
def test_empty_pictures_show_nothing(fill):
    judged = judge_image(numpy.full((64, 64, 3), fill, numpy.float32), parse_prompt("a photo of a red circle"))
    assert not judged.correct and judged.score < 0.05 and "0 objects" in judged.reason


def test_noise_is_no_scene():
    noise = numpy.random.default_rng(0).uniform(0, 1, (20, 64, 64, 3)).astype(numpy.float32)
    assert not any(judge_image(i, parse_prompt("a photo of a red circle")).correct for i in noise)


def test_the_grade_falls_smoothly_with_blur_and_tells_right_from_wrong():
    prompts, images = rendered(120)
    means = []
    for blur in (0.0, 1.5, 3.0, 6.0):
        soft = spoil(images, blur, 0.0)
        means.append(numpy.mean([judge_image(i, p).score for i, p in zip(soft, prompts, strict=True)]))
    assert means[0] > 0.95 and means == sorted(means, reverse=True) and means[-1] < 0.5
    wrong = [judge_image(i, p).score for i, p in zip(images[6:], prompts, strict=False) if p.category != "single"]
    assert numpy.mean(wrong) < 0.4


def test_the_reward_agrees_with_the_verdict_at_any_size():
    prompts = benchmark_prompts("test", 24, 1)
    scenes = sample_scenes(list(prompts), numpy.random.default_rng(1))
    for side in (64, 128, 256):
        images = torch.from_numpy(render(scenes, side))
        for image, prompt in zip(images, prompts, strict=True):
            assert judge_images(image[None], prompt)[0].correct
    reward = SceneReward()
    scores = reward.score(torch.from_numpy(render(scenes))[:1].repeat(3, 1, 1, 1), prompts[0].text)
    assert scores.shape == (3,) and scores.dtype == torch.float32 and len(set(scores.tolist())) == 1
    assert reward.range[0] <= float(scores.min()) and float(scores.max()) <= reward.range[1]


def test_wrong_shapes_of_input_are_refused():
    with pytest.raises(ValueError, match="H, W, 3"):
        judge_image(numpy.zeros((3, 64, 64)), parse_prompt("a photo of a circle"))
    with pytest.raises(ValueError, match="height, width, 3"):
        SceneReward().score(torch.zeros(1, 3, 64, 64), "a photo of a circle")
