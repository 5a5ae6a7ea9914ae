"""The generate command: what it writes, what Ctrl-C leaves, and what it refuses."""

import argparse
import json
from pathlib import Path

import pytest
import torch
from PIL import Image
from tiny_models import make_conditioning, make_tiny_model

from lab.experiment.world import spelled
from ttsvar_core.cli import main
from ttsvar_core.commands import choices, generate
from ttsvar_core.extractors import dinov2
from ttsvar_core.rewards.blend import Blend
from ttsvar_core.search.attempts import seed_of
from ttsvar_core.search.plan import cut_once, tts_var
from ttsvar_core.search.plan_file import save_plan
from ttsvar_core.search.save import describe_file

PROMPT = "a photo of a red circle"


class Encoder:
    def __init__(self):
        self.model = torch.nn.Linear(1, 1)

    def encode(self, prompt):
        return make_conditioning(prompt=prompt).text


@pytest.fixture
def tiny(monkeypatch):
    """The command with a tiny random model of 7 scales in place of the bundled one."""
    model = make_tiny_model(schedule="1 2 3 3 4 4 6")
    monkeypatch.setattr(generate, "load_models", lambda args: (model, Encoder()))
    return model


class Brightness:
    name = "brightness"
    range = (0.0, 1.0)

    def score(self, images, prompt):
        return images.mean(dim=(1, 2, 3))


@pytest.fixture
def brightness(monkeypatch):
    monkeypatch.setattr(generate, "load_reward", lambda *_: Brightness())


def go(out, *more):
    return main(["generate", PROMPT, "--out", str(out), *more])


def test_images_report_and_state_are_written(tiny, brightness, tmp_path, capsys):
    assert go(tmp_path, "--plan", "best-of-n", "--n", "3", "--seed", "4") == 0
    report = json.loads((tmp_path / "report.json").read_text())
    names = {"answer.png", "sample-00.png", "sample-01.png", "sample-02.png", "contact-sheet.png", "report.json"}
    assert {path.name for path in tmp_path.iterdir()} == {*names, "state.safetensors"}
    best = report["answer"]["sample"]
    assert (tmp_path / "answer.png").read_bytes() == (tmp_path / f"sample-{best:02d}.png").read_bytes()
    assert Image.open(tmp_path / "answer.png").size == (12, 12)
    assert report["answer"]["score"] == max(report["scales"][-1]["scores"])
    assert describe_file(tmp_path / "state.safetensors")["seed"] == 4
    assert "answer.png" in capsys.readouterr().out
    (tmp_path / "sample-mine.png").touch()
    assert go(tmp_path, "--plan", "raw") == 0
    left = {"answer.png", "report.json", "state.safetensors", "sample-mine.png"}
    assert {path.name for path in tmp_path.iterdir()} == left, "another search's pictures lie beside this one's report"


def test_the_same_command_writes_the_same_image(tiny, brightness, tmp_path):
    for name in ("one", "two"):
        assert go(tmp_path / name) == 0
    assert (tmp_path / "one" / "answer.png").read_bytes() == (tmp_path / "two" / "answer.png").read_bytes()


def test_options_reach_plan_and_sampling(tiny, brightness, tmp_path):
    save_plan(tts_var(2, 7), tmp_path / "plan.json")
    options = ["--lambda", "3", "--scheme", "residual", "--tau", "0.5,1,1,1,1,1,2"]
    assert go(tmp_path, "--plan", str(tmp_path / "plan.json"), "--guidance", "1.5", "--max-cache-mib", "0.2", *options) == 0
    report = json.loads((tmp_path / "report.json").read_text())
    kept = [(stage["scale"], stage["keep"]) for stage in report["plan"]["stages"]]
    assert kept == [(1, 12), (3, 8), (4, 4), (5, 2)] and report["plan"]["samples"] == 16
    assert [one["samples"] for one in report["scales"]] == [16, 16, 12, 12, 8, 4, 2]
    kinds = [stage for stage in report["plan"]["stages"] if stage["kind"] == "resample"]
    assert len(kinds) == 2 and all(one["lambda"] == 3 and one["scheme"] == "residual" for one in kinds)
    assert [step["tau"] for step in report["sampling"]] == [0.5, 1, 1, 1, 1, 1, 2]
    assert report["peak_cache_bytes"] <= 0.2 * 2**20


def test_a_budget_chooses_the_plan_by_what_was_measured_and_says_so(tiny, brightness, tmp_path, capsys):
    table = {"model": "tiny", "reward": "brightness", "correlation": {"3": 0.6}, "scales": 7}
    (tmp_path / "measured.json").write_text(json.dumps(table))
    assert go(tmp_path / "out", "--budget", "3", "--measured", str(tmp_path / "measured.json"), "--diverse") == 0
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    (cut,) = report["plan"]["stages"]
    assert cut["kind"] == "best" and cut["scale"] == 3 and 1 <= cut["keep"] < 3 < report["plan"]["samples"]
    assert report["budget"] in capsys.readouterr().out and "finish, at the cost of" in report["budget"]
    assert len(set(report["scales"][3]["ancestors"])) == cut["keep"]
    assert [step["certainty"] for step in report["sampling"]] == [0.6, 0.6, 0.65, 0.7, 0.75, 0.8, None]
    assert go(tmp_path / "plain", "--budget", "3") == 0
    assert json.loads((tmp_path / "plain" / "report.json").read_text())["budget"].startswith("budget of 3 pictures: ")


@pytest.mark.parametrize("name", ["funnel", "beam"])
def test_funnel_and_beam_run_and_go_on_where_they_were_stopped(tiny, brightness, tmp_path, monkeypatch, name):
    assert go(tmp_path / "whole", "--plan", name, "--n", "2") == 0
    forward, calls = tiny.transformer.forward_scale, []

    def stops(*given):
        calls.append(given[1])
        if given[1] == 5:
            raise KeyboardInterrupt
        return forward(*given)

    monkeypatch.setattr(tiny.transformer, "forward_scale", stops)
    assert go(tmp_path / "part", "--plan", name, "--n", "2") == 130 and calls[-1] == 5
    monkeypatch.setattr(tiny.transformer, "forward_scale", forward)
    assert go(tmp_path / "part", "--plan", name, "--n", "2", "--resume", str(tmp_path / "part" / "state.safetensors")) == 0
    assert (tmp_path / "part" / "answer.png").read_bytes() == (tmp_path / "whole" / "answer.png").read_bytes()


@pytest.mark.parametrize("scale", [3, 5])
def test_ctrl_c_leaves_a_state_to_go_on_from(tiny, brightness, tmp_path, monkeypatch, capsys, scale):
    assert go(tmp_path / "whole", "--seed", "3") == 0
    forward = tiny.transformer.forward_scale

    def interrupted(features, at, *rest):
        if at == scale:
            raise KeyboardInterrupt
        return forward(features, at, *rest)

    monkeypatch.setattr(tiny.transformer, "forward_scale", interrupted)
    assert go(tmp_path / "part", "--seed", "3") == 130
    monkeypatch.undo()
    state = tmp_path / "part" / "state.safetensors"
    assert describe_file(state)["next_scale"] == scale
    assert f"--resume {state}" in capsys.readouterr().err
    monkeypatch.setattr(generate, "load_models", lambda args: (tiny, Encoder()))
    monkeypatch.setattr(generate, "load_reward", lambda *_: Brightness())
    assert go(tmp_path / "other", "--resume", str(state), "--seed", "0") == 2
    assert "drawn with seed 3, the seed given is 0" in capsys.readouterr().err
    assert go(tmp_path / "on", "--resume", str(state)) == 0
    whole, on = (json.loads((tmp_path / name / "report.json").read_text())["answer"] for name in ("whole", "on"))
    assert on["lineage"] == whole["lineage"] and on["score"] == pytest.approx(whole["score"], abs=1e-4)


@pytest.mark.parametrize("seed", [(), ("--seed", "3")])
def test_a_later_attempt_goes_on_by_the_same_command_and_finds_what_an_uninterrupted_one_does(
    tiny, brightness, tmp_path, monkeypatch, capsys, seed
):
    """Its state was drawn with a seed of its own, which follows from the one given; what came before it counts as well."""
    forward, begun = tiny.transformer.forward_scale, []

    def interrupted(features, at, *rest):
        begun.extend([at] * (at == 0))
        if len(begun) == 2 and at == 5:
            raise KeyboardInterrupt
        return forward(features, at, *rest)

    same = "--plan", "funnel", *seed, "--attempts", "2", "--enough", "2"
    assert go(tmp_path / "whole", *same) == 0
    monkeypatch.setattr(tiny.transformer, "forward_scale", interrupted)
    assert go(tmp_path, *same) == 130 and "Attempts before this one are made again" in capsys.readouterr().err
    monkeypatch.setattr(tiny.transformer, "forward_scale", forward)
    assert go(tmp_path, *same, "--resume", str(tmp_path / "state.safetensors")) == 0
    report, whole = (json.loads((folder / "report.json").read_text()) for folder in (tmp_path, tmp_path / "whole"))
    first = 3 if seed else 0
    assert [one["seed"] for one in report["attempts"]] == [first, seed_of(first, 1)]
    assert report["answer"]["score"] == pytest.approx(whole["answer"]["score"], abs=1e-4)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--budget", "2", "--n", "4"], "--budget chooses the plan; leave --n out"),
        (["--budget", "2", "--lambda", "3"], "--budget chooses the plan; leave --lambda out"),
        (["--plan", "raw", "--n", "4"], "--n is for plans that grow with it, and raw does not; leave it out"),
        (["--plan", "{file}", "--n", "4"], "plan.json does not; leave it out"),
        (["--plan", "beam", "--scheme", "residual"], "--scheme is for plans that resample, and beam does not; leave it out"),
        (["--plan", "best-of-n", "--target-ess", "0.5"], "--target-ess is for plans that resample"),
        (["--plan", "raw", "--aspect-ratio", "2"], "tiny draws 12x12 pixels, by a schedule of its own; leave --aspect-ratio out"),
        (["--plan", "raw", "--pixel-budget", "1M"], "leave --pixel-budget out"),
    ],
)
def test_options_that_would_change_nothing_are_refused(tiny, brightness, tmp_path, capsys, options, message):
    save_plan(tts_var(2, 7), tmp_path / "plan.json")
    assert go(tmp_path / "out", *(word.format(file=tmp_path / "plan.json") for word in options)) == 2
    assert message in capsys.readouterr().err


def test_attempts_are_refused_where_their_scores_cannot_be_compared(tiny, tmp_path, capsys, monkeypatch):
    """A blend by rank or softmax tells pictures of one search apart; of one finished sample it says the same whatever it shows."""
    for how in ("rank", "softmax", "z-score", "weighted"):
        monkeypatch.setattr(generate, "load_reward", lambda *_, how=how: Blend([Brightness(), Brightness()], how))
        assert go(tmp_path, "--plan", "funnel", "--attempts", "2") == (0 if how == "weighted" else 2)
        assert ("blend by 'weighted', or make one attempt" in capsys.readouterr().err) == (how != "weighted")


def test_weights_that_are_no_numbers_are_told_in_one_line(tiny, brightness, tmp_path, capsys):
    tiny.transformer.head.bias.fill_(torch.nan)
    assert go(tmp_path) == 2
    assert "The logits of scale 0 are not finite. Are the transformer's weights sound?" in capsys.readouterr().err


def test_whole_sketches_are_not_said_to_be_foreseen(tmp_path, capsys):
    """They are decoded as they are, so what foreseen ones tell of the end does not hold of them."""
    words = ["generate", PROMPT, "--out", str(tmp_path), "--whole-sketches"]
    assert main([*words, "--budget", "3"]) == 0
    assert "not measured here" in capsys.readouterr().out
    save_plan(cut_once(4, 7, 1, foreseen=True), tmp_path / "plan.json")
    assert main([*words, "--plan", str(tmp_path / "plan.json")]) == 2
    assert "looks at foreseen sketches, which are small; leave --whole-sketches out" in capsys.readouterr().err


def test_nothing_to_go_on_from_before_the_first_scale(tiny, brightness, tmp_path, monkeypatch, capsys):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(tiny.transformer, "forward_scale", interrupted)
    assert go(tmp_path) == 130
    assert "nothing to go on from" in capsys.readouterr().err and not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--plan", "best"], "--plan: no plan 'best'; write one of raw, best-of-n"),
        (["--reward", "beauty"], "cannot load 'beauty'; write one of scenes, image-reward=ImageReward.pt"),
        (["--reward", "hps"], "cannot load 'hps'"),
        (["--reward", "aesthetic=tower"], "cannot load 'aesthetic=tower'.*aesthetic_predictor_v2_5.pth"),
        (["--extractor", "latent-pool=0"], "cannot load 'latent-pool=0'"),
        (["--extractor", "dinov2-pca=nowhere.pth"], "nowhere.pth"),
        (["--max-cache-mib", "0.001"], "capped at 0.00 MiB"),
    ],
)
def test_what_cannot_run_says_so(tiny, tmp_path, capsys, options, message):
    assert go(tmp_path / "out", *options) == 2
    error = capsys.readouterr().err
    assert all(part in error for part in message.split(".*"))


def test_a_prompt_the_verifier_cannot_judge_is_refused_before_anything_loads(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(generate, "load_models", lambda args: pytest.fail("loaded"))
    assert main(["generate", "a castle at dawn", "--out", str(tmp_path)]) == 2
    assert "shapes with s" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--plan", "best"], "--plan: no plan 'best'"),
        ([], "no reward was given; name one with --reward"),
        (["--measured", "nowhere.json"], "--measured tells a budget how scores foretell the end"),
        (["--budget", "2", "--measured", "nowhere.json"], "nowhere.json"),
    ],
)
def test_what_the_options_alone_can_tell_is_refused_before_anything_loads(monkeypatch, tmp_path, capsys, options, message):
    for name in ("load_models", "load_extractor"):
        monkeypatch.setattr(generate, name, lambda *_: pytest.fail("loaded"))
    assert go(tmp_path, "--model", "mine.safetensors", *options) == 2
    assert message in capsys.readouterr().err


def test_a_plan_that_cannot_run_is_refused_before_anything_loads(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(generate, "load_models", lambda *_: pytest.fail("loaded"))
    (tmp_path / "plan.json").write_text(json.dumps({"samples": 8, "stages": [{"kind": "cluster", "scale": 2, "keep": 9}]}))
    assert go(tmp_path, "--model", "mine.safetensors", "--plan", str(tmp_path / "plan.json")) == 2
    assert "cluster at scale 2: keep is 9, but only 8 samples are there" in capsys.readouterr().err


@pytest.mark.parametrize("option", ["--potential", "--scheme", "--blend", "--pixel-budget"])
def test_a_mistyped_choice_is_named_with_its_option(tmp_path, capsys, option):
    with pytest.raises(SystemExit):
        go(tmp_path, option, "mistyped")
    assert f"argument {option}: invalid choice: 'mistyped'" in capsys.readouterr().err


def test_the_text_encoder_leaves_the_device_before_the_search(tiny, brightness, tmp_path, monkeypatch):
    encoder, order = Encoder(), []

    def sampled(*_):
        order.append("sampled")
        raise KeyboardInterrupt

    monkeypatch.setattr(encoder.model, "to", order.append)
    monkeypatch.setattr(generate, "load_models", lambda args: (tiny, encoder))
    monkeypatch.setattr(tiny.transformer, "forward_scale", sampled)
    assert go(tmp_path) == 130
    assert order == ["cpu", "sampled"]


def test_the_text_encoder_computes_in_the_type_asked_for(monkeypatch):
    parser, bundled = argparse.ArgumentParser(), Path(choices.__file__).parent.parent / "bundled"
    choices.add_model_arguments(parser)
    files = [f"--model={bundled / 'scenes128.transformer.safetensors'}", f"--tokenizer={bundled / 'scenes128.vae.safetensors'}"]
    _, encoder = choices.load_models(parser.parse_args([*files, f"--text-encoder={bundled / 'scenes128.t5'}", "--dtype=bfloat16"]))
    assert encoder.model.dtype == torch.bfloat16


def test_extractors_are_named_as_the_experiment_command_names_them(monkeypatch):
    loaded = []
    monkeypatch.setattr(dinov2, "load_dinov2", lambda path, reducer, dtype: loaded.append(reducer) or torch.nn.Identity())
    for name in ("dinov2-PCA", "dinov2-pca", "DINOv2-PCA-shared"):
        choices.load_extractor(f"{name}=weights.pth", "cpu")
    assert loaded == ["PCA", "PCA", "PCA-shared"]
    monkeypatch.setattr(dinov2, "load_dinov2", lambda path, reducer, dtype: loaded.append(dtype) or torch.nn.Identity())
    choices.load_extractor("dinov2-PCA=weights.pth", "cpu", "bfloat16")
    assert loaded[3:] == [torch.bfloat16] and choices.load_reward(["scenes"], "softmax", "cpu", "bfloat16").name == "scenes"
    found = [spelled(name) for name in ("dinov2-pca=A.pth", "Tokenizer-pca-shared", "latent-pool")]
    assert found == ["dinov2-PCA=A.pth", "tokenizer-PCA-shared", "latent-pool"]


def test_a_model_of_ones_own_needs_its_files_and_a_reward(tiny, tmp_path, capsys, monkeypatch):
    assert go(tmp_path, "--model", "mine.safetensors") == 2
    assert "no reward was given" in capsys.readouterr().err
    monkeypatch.undo()
    assert go(tmp_path, "--model", "mine.safetensors", "--plan", "raw") == 2
    assert "--tokenizer and --text-encoder" in capsys.readouterr().err


def test_tiles_are_what_is_decoded_in(tiny, brightness, tmp_path, capsys, monkeypatch):
    """Every picture of the search, the unfinished ones included; the same samples, and not quite the same pixels."""
    sides, whole = [], tiny.tokenizer.decode
    monkeypatch.setattr(tiny.tokenizer, "decode", lambda features: sides.append(features.shape[-1]) or whole(features))
    assert go(tmp_path / "whole", "--plan", "best-of-n", "--n", "2") == 0
    assert sides == [6] * len(sides)
    sides.clear()
    assert go(tmp_path / "tiled", "--plan", "best-of-n", "--n", "2", "--tiled-decode", "8") == 0
    assert sides == [4] * len(sides) and len(sides) == 8
    one, two = (Image.open(tmp_path / name / "sample-00.png") for name in ("whole", "tiled"))
    assert one.size == two.size and one.tobytes() != two.tobytes()
    assert go(tmp_path / "none", "--plan", "raw", "--tiled-decode", "6") == 2
    assert "take 8 or more" in capsys.readouterr().err and len(sides) == 8


def test_several_rewards_are_blended():
    reward = choices.load_reward(["scenes", "scenes"], "rank", "cpu")
    assert reward.name == "scenes+scenes (rank)" and choices.load_reward([], "softmax", "cpu") is None


def test_one_byte_weights_and_cache_draw_a_scene_too(tmp_path):
    assert go(tmp_path / "exact", "--plan", "raw") == 0
    assert go(tmp_path, "--plan", "raw", "--float8-weights", "--float8-cache") == 0
    exact, small = (json.loads((folder / "report.json").read_text()) for folder in (tmp_path / "exact", tmp_path))
    assert small["peak_cache_bytes"] * 4 == exact["peak_cache_bytes"]
    assert 0 <= small["answer"]["score"] <= 1


def test_the_bundled_model_draws_a_scene(tmp_path):
    assert go(tmp_path, "--plan", "raw") == 0
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["model"]["name"] == "scenes128" and 0 <= report["answer"]["score"] <= 1
    assert len(report["scales"]) == 13 and report["token_forwards"] == sum(one["tokens"] for one in report["scales"])
    pixels = torch.frombuffer(bytearray(Image.open(tmp_path / "answer.png").tobytes()), dtype=torch.uint8)
    assert pixels.float().std() > 5


def test_without_a_word_on_how_the_bundled_model_takes_what_was_measured_to_pay_and_the_paper_is_one_option_away(tmp_path, capsys):
    def report_of(*options, prompt="a photo of a red circle"):
        assert main(["generate", prompt, "--out", str(tmp_path), *options]) == 0
        return json.loads((tmp_path / "report.json").read_text())

    def plan_of(*options):
        return report_of(*options)["plan"]

    hard = [one["score"] for one in report_of(prompt="a photo of five green stars")["attempts"]]
    assert "; 4 attempts at most, until one scores 0.95\n" in capsys.readouterr().out
    assert 1 < len(hard) <= 4 and (len(hard) == 4 or hard[-1] >= 0.95) and max(hard[:-1]) < 0.95
    usual = report_of()
    assert [one["score"] > 0.95 for one in usual["attempts"]] == [True]
    assert usual["plan"] == plan_of("--budget", "2") and usual["plan"]["foreseen"] and usual["plan"]["name"] == "budget"
    assert plan_of("--attempts", "1") == plan_of("--budget", "4") != usual["plan"]
    paper = plan_of("--plan", "tts-var")
    assert "foreseen" not in paper and [stage["scale"] for stage in paper["stages"]] == [2, 5, 6, 9]
    assert plan_of("--n", "1") == plan_of("--lambda", "10") == paper


def test_attempts_are_made_until_one_is_good_enough(tiny, brightness, tmp_path, capsys):
    search = ["--plan", "best-of-n", "--n", "2", "--seed", "3"]
    assert go(tmp_path / "one", *search) == 0
    assert go(tmp_path / "all", *search, "--attempts", "3") == 0
    assert "3 attempts" in capsys.readouterr().out
    report = json.loads((tmp_path / "all" / "report.json").read_text())
    scores = [one["score"] for one in report["attempts"]]
    assert len(scores) == 3 and report["answer"]["score"] == max(scores)
    first = json.loads((tmp_path / "one" / "report.json").read_text())
    assert scores[0] == first["answer"]["score"] and len(first["attempts"]) == 1
    assert report["token_forwards"] == 3 * first["token_forwards"]
    assert go(tmp_path / "enough", *search, "--attempts", "3", "--enough", str(scores[0])) == 0
    assert (tmp_path / "enough" / "answer.png").read_bytes() == (tmp_path / "one" / "answer.png").read_bytes()
    assert go(tmp_path / "unsaid", *search, "--enough", "1") != 0 and "--attempts" in capsys.readouterr().err
