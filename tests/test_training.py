"""Training: a few steps on tiny sizes lower the loss, and a resumed run ends in the same state as an uninterrupted one."""

import json

import numpy
import pytest
import torch

from lab.training import evaluate, headline, publish, tokenizer, transformer, words
from ttsvar_core.bsq.bits import encode_bits
from ttsvar_core.config import ModelConfig
from ttsvar_core.scales import parse_schedule
from ttsvar_core.scenes.grammar import all_prompts

TINY_TOKENIZER = [
    "--width", "8", "--ch-mult", "1,1,2,2", "--batch", "8", "--warmup", "5", "--threads", "1", "--rate", "3e-3",
]
TINY_TRANSFORMER = [
    "--width", "32", "--heads", "2", "--depth", "2", "--batch", "16", "--warmup", "5", "--threads", "1", "--pool", "96",
    "--rate", "3e-3", "--text-steps", "20",
]


def losses(folder, name, key):
    lines = [json.loads(line) for line in (folder / f"{name}.log.jsonl").read_text().splitlines()]
    return [line[key] for line in lines if key in line]


def assert_same(first, second):
    for name in ("modules", "average"):
        for key, value in first[name].items():
            assert torch.equal(value, second[name][key]), key
    assert first["step"] == second["step"]
    for place, moments in first["optimiser"]["state"].items():
        assert all(torch.equal(value, second["optimiser"]["state"][place][key]) for key, value in moments.items())


def stopped_after(steps, folder, module, arguments):
    """Run a training command with a run that is cut off after some steps, as by a power cut just after a checkpoint."""
    args = module.build_parser().parse_args(["--out", str(folder), *arguments])
    whole = args.steps

    class Cut(module.Run):
        @property
        def done(self):
            return self.step >= steps

        @property
        def progress(self):
            return self.step / whole

    original, module.Run = module.Run, Cut
    try:
        module.main(["--out", str(folder), *arguments])
    finally:
        module.Run = original


@pytest.fixture(scope="module")
def trained_tokenizer(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tokenizer")
    tokenizer.main(["--out", str(folder), "--steps", "100", *TINY_TOKENIZER])
    return folder


def test_the_tokenizer_learns_and_logs(trained_tokenizer):
    early, late = losses(trained_tokenizer, "tokenizer", "loss")[:2]
    assert late < 0.8 * early
    assert 0 <= losses(trained_tokenizer, "tokenizer", "survival")[-1] <= 1
    stored = json.loads((trained_tokenizer / "tokenizer.json").read_text())
    assert len(stored["scale_schedule"]) == 13 and stored["scale_schedule"][-1] == [8, 8]


def test_a_resumed_tokenizer_run_ends_like_an_uninterrupted_one(tmp_path):
    arguments = ["--steps", "8", *TINY_TOKENIZER]
    tokenizer.main(["--out", str(tmp_path / "whole"), *arguments])
    stopped_after(3, tmp_path / "parts", tokenizer, arguments)
    cut = torch.load(tmp_path / "parts" / "tokenizer.checkpoint.pt", weights_only=True)
    assert cut["step"] == 3
    tokenizer.main(["--out", str(tmp_path / "parts"), *arguments])
    ends = [torch.load(tmp_path / part / "tokenizer.checkpoint.pt", weights_only=True) for part in ("whole", "parts")]
    assert_same(*ends)


@pytest.fixture(scope="module")
def trained_transformer(trained_tokenizer, tmp_path_factory):
    folder = tmp_path_factory.mktemp("transformer")
    transformer.main(
        ["--out", str(folder), "--tokenizer", str(trained_tokenizer), "--steps", "100", "--lengths", "5:1:1", *TINY_TRANSFORMER]
    )
    return folder


def test_the_transformer_learns_and_its_folder_draws(trained_transformer, tmp_path):
    early, late = losses(trained_transformer, "transformer", "loss5")[:2]
    assert late < 0.95 * early
    model, encoder = evaluate.load_folder(trained_transformer)
    outcome = evaluate.draw(model, encoder, all_prompts()[0], 2, 0, None)
    assert outcome.images.shape == (2, 64, 64, 3) and 0 <= outcome.grade <= 2
    drawing = ["--prompts", "6", "--settings", "2:1:1", "--sheet", str(tmp_path / "s.png")]
    evaluate.main(["--model", str(trained_transformer), *drawing])
    assert (tmp_path / "s.png").stat().st_size > 0


def test_a_resumed_transformer_run_ends_like_an_uninterrupted_one(trained_tokenizer, tmp_path):
    arguments = ["--tokenizer", str(trained_tokenizer), "--steps", "6", "--lengths", "5:1:1,9:1:0.5", *TINY_TRANSFORMER]
    transformer.main(["--out", str(tmp_path / "whole"), *arguments])
    stopped_after(2, tmp_path / "parts", transformer, arguments)
    transformer.main(["--out", str(tmp_path / "parts"), *arguments])
    ends = [torch.load(tmp_path / part / "transformer.checkpoint.pt", weights_only=True) for part in ("whole", "parts")]
    assert_same(*ends)


def test_training_goes_on_from_exported_weights(trained_transformer, trained_tokenizer, tmp_path):
    arguments = ["--tokenizer", str(trained_tokenizer), "--init", str(trained_transformer), "--steps", "1", *TINY_TRANSFORMER]
    transformer.main(["--out", str(tmp_path / "more"), *arguments, "--rate", "0"])
    models = [evaluate.load_folder(folder)[0].transformer.state_dict() for folder in (trained_transformer, tmp_path / "more")]
    assert all(torch.equal(models[0][key], models[1][key]) for key in models[0])
    again = ["--init", str(trained_transformer), "--steps", "1", *TINY_TOKENIZER, "--rate", "0"]
    tokenizer.main(["--out", str(tmp_path / "t"), *again])
    with pytest.raises(ValueError, match="sizes must agree"):
        transformer.load_init(
            torch.nn.ModuleDict({"transformer": torch.nn.Linear(2, 2), "text": torch.nn.Linear(2, 2)}), trained_transformer
        )


def test_flipped_sequences_teach_what_is_left_to_correct():
    schedule = parse_schedule("1 2 4")
    features = torch.randn(5, 6, 4, 4, generator=torch.Generator().manual_seed(0))
    inputs, targets = transformer.flipped_sequence(features, schedule, 3, torch.zeros(5, 1, 1), torch.Generator().manual_seed(1))
    bits, _ = encode_bits(features, schedule, False)
    assert all(torch.equal(a, b) for a, b in zip(targets, bits, strict=True))
    assert [tuple(i.shape) for i in inputs] == [(5, 4, 6), (5, 16, 6)]
    wrong_in, wrong_out = transformer.flipped_sequence(
        features, schedule, 2, torch.ones(5, 1, 1), torch.Generator().manual_seed(1)
    )
    assert torch.equal(wrong_out[0], bits[0])  # the first answer is not touched by flips
    assert torch.allclose(wrong_in[0], -inputs[0])  # what is fed back is all wrong
    assert not torch.equal(wrong_out[1], bits[1])  # and the next answer has more to correct


def test_scale_weights_sum_to_one_and_favour_few_tokens():
    weights = transformer.scale_weights(parse_schedule("1 2 4"))
    assert torch.isclose(weights.sum(), torch.tensor(1.0))
    assert weights[0] > weights[1] > weights[-1]


def test_batched_text_equals_one_by_one(trained_transformer):
    _, encoder = evaluate.load_folder(trained_transformer)
    table = words.PromptTable("cpu")
    places = [0, 40, 2500, 40]
    with torch.no_grad():
        rows = table.rows(*table.states(encoder.model, places), places)
    for row, place in zip(rows, places, strict=True):
        torch.testing.assert_close(row, encoder.encode(all_prompts()[place].text), rtol=1e-4, atol=1e-5)
    assert not any("<unk>" in encoder.tokenizer.convert_ids_to_tokens(table.ids[i].tolist()) for i in range(0, 3000, 50))


def test_the_text_encoder_learns_which_colour_and_place_belong_to_a_noun():
    given = ["--out", "unused", "--tokenizer", "unused", "--text-steps", "120", "--rate", "2e-3"]
    args = transformer.build_parser().parse_args(given)
    torch.manual_seed(0)
    modules = torch.nn.ModuleDict({"text": words.build_encoder(), "reader": words.build_noun_reader()})
    table = words.PromptTable("cpu")
    transformer.teach_words(modules, table, args)
    held_out = [place for place, prompt in enumerate(all_prompts()) if prompt.split == "test"][::7]
    with torch.no_grad():
        assert float(table.noun_loss(modules["reader"], *table.states(modules["text"], held_out))) < 0.05


def test_the_same_seed_draws_the_same_batch():
    args = tokenizer.build_parser().parse_args(["--out", "unused", *TINY_TOKENIZER, "--device", "cpu"])
    first, again = (tokenizer.picture_batch(args, numpy.random.default_rng([0, 5]))[0] for _ in range(2))
    assert torch.equal(first, again)


def test_descriptions_read_back_as_sizes(trained_transformer):
    config = ModelConfig.from_json(json.loads((trained_transformer / "scenes64.json").read_text()))
    assert config.transformer.depth == 2 and config.tokenizer.base_ch == 8 and len(config.schedule()) == 13


def test_published_weights_load_and_keep_the_tuned_settings(trained_transformer, tmp_path):
    assert publish.main(["--model", str(trained_transformer), "--to", str(tmp_path), "--guidance", "2.5", "--tau", "0.9"]) == 0
    published, _ = evaluate.load_folder(tmp_path)
    assert (published.config.sampling.guidance, published.config.sampling.tau) == (2.5, 0.9)
    trained = evaluate.load_folder(trained_transformer)[0].transformer.state_dict()
    for name, tensor in published.transformer.state_dict().items():
        torch.testing.assert_close(tensor, trained[name].half().float(), rtol=0, atol=0)


def test_the_headline_counts_gains_in_pairs():
    rows = [{"raw": [0, 0.5], "best-of-2": [1, 0.7], "tts-var-1": [1, 0.6], "tts-var-2": [1, 0.9]}] * 3
    rows += [{"raw": [1, 0.9], "best-of-2": [1, 0.9], "tts-var-1": [0, 0.4], "tts-var-2": [1, 0.9]}]
    told = headline.summary(rows)
    assert told["verdict"]["raw"][0] == 0.25 and told["verdict gained"]["tts-var-1 over raw"][0] == 0.5
    mean, low, high = told["grade gained"]["best-of-2 over raw"]
    assert low <= mean == 0.15 <= high and low >= 0
