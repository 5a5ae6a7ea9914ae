"""Training of the world's model: tiny steps lower the loss, and a resumed run ends in the same state as an uninterrupted one."""

import json

import numpy
import pytest
import torch
from tiny_models import squares

from lab.training import evaluate, keep, optimiser, pool, publish, text, tokenizer, transformer
from lab.training.attention import SHORT, TrainingAttention
from lab.training.scenes import sample_scenes
from lab.training.sequence import flipped_sequence, scale_weights
from ttsvar_core.bsq.bits import encode_bits
from ttsvar_core.config import ModelConfig
from ttsvar_core.infinity.model import Infinity
from ttsvar_core.scenes.grammar import CATEGORIES, draw_prompt, parse_prompt

GRIDS = ["--schedule", "1 1 2 4 6"]
TINY_TOKENIZER = [*GRIDS, "--width", "8", "--batch", "4", "--warmup", "5", "--threads", "1", "--rate", "3e-3"]
TINY = [
    "--width", "64", "--heads", "2", "--depth", "2", "--batch", "8", "--warmup", "5", "--threads", "1", "--rate", "3e-3",
    "--text-steps", "5", "--lengths", "3:1:1,5:1:0.5",
]


def losses(folder, name, key):
    lines = [json.loads(line) for line in (folder / f"{name}.log.jsonl").read_text().splitlines()]
    return [line[key] for line in lines if key in line]


def assert_same(first, second):
    for name in ("modules", "average"):
        for key, value in first[name].items():
            assert torch.equal(value, second[name][key]), key
    assert first["step"] == second["step"]


def stopped_after(steps, folder, module, arguments):
    """Run a training command that is cut off after some steps, as by a power cut just after a checkpoint."""
    whole = module.build_parser().parse_args(["--out", str(folder), *arguments]).steps
    name = "MuonRun" if hasattr(module, "MuonRun") else "Run"
    original = getattr(module, name)
    cut = {"done": property(lambda self: self.step >= steps), "progress": property(lambda self: self.step / whole)}
    setattr(module, name, type("Cut", (original,), cut))
    try:
        module.main(["--out", str(folder), *arguments])
    finally:
        setattr(module, name, original)


@pytest.fixture(scope="module")
def trained_tokenizer(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tokenizer")
    tokenizer.main(["--out", str(folder), "--steps", "100", *TINY_TOKENIZER])
    pool.main(["--tokenizer", str(folder), "--scenes", "96"])
    return folder


@pytest.fixture(scope="module")
def trained_transformer(trained_tokenizer, tmp_path_factory):
    folder = tmp_path_factory.mktemp("transformer")
    transformer.main(["--out", str(folder), "--tokenizer", str(trained_tokenizer), "--steps", "100", *TINY])
    return folder


def test_the_tokenizer_learns(trained_tokenizer):
    early, late = losses(trained_tokenizer, "tokenizer", "whole")[:2]
    assert late < 0.8 * early
    model, schedule = pool.load_tokenizer(trained_tokenizer), squares("1 1 2 4 6")
    for shrink in (1, 2):
        whole, atoms = tokenizer.survival(model, schedule, 6, shrink=shrink)
        assert 0 <= whole <= atoms <= 1


def test_a_resumed_tokenizer_run_ends_like_an_uninterrupted_one(tmp_path, monkeypatch):
    monkeypatch.setattr(tokenizer, "UNQUANTISED_STEPS", 2)
    arguments = ["--steps", "5", *TINY_TOKENIZER]
    tokenizer.main(["--out", str(tmp_path / "whole"), *arguments])
    stopped_after(3, tmp_path / "parts", tokenizer, arguments)
    tokenizer.main(["--out", str(tmp_path / "parts"), *arguments])
    assert_same(*(torch.load(tmp_path / part / "tokenizer.checkpoint.pt", weights_only=True) for part in ("whole", "parts")))


def test_only_the_decoder_learns_where_the_features_are_in_use(trained_tokenizer, tmp_path):
    arguments = ["--init", str(trained_tokenizer), "--steps", "2", "--decoder-only", *TINY_TOKENIZER]
    tokenizer.main(["--out", str(tmp_path), *arguments])
    before, after = pool.load_tokenizer(trained_tokenizer), pool.load_tokenizer(tmp_path)
    same = [torch.equal(a, b) for a, b in zip(before.encoder.parameters(), after.encoder.parameters(), strict=True)]
    assert all(same)
    assert not torch.equal(before.decoder.conv_in.conv.weight, after.decoder.conv_in.conv.weight)


def test_the_transformer_learns_and_its_folder_draws(trained_transformer, tmp_path):
    early, late = losses(trained_transformer, "transformer", "loss3")[:2]
    assert late < 0.97 * early
    config = ModelConfig.from_json(json.loads((trained_transformer / "scenes128.json").read_text()))
    assert config.transformer.depth == 2 and config.tokenizer.base_ch == 8 and len(config.schedule()) == 5
    model, encoder = evaluate.load_folder(trained_transformer)
    outcome = evaluate.draw(model, encoder, parse_prompt("a red circle"), 2, 0, None)
    assert outcome.images.shape == (2, 48, 48, 3) and 0 <= outcome.right <= 1
    drawing = ["--prompts", "10", "--samples", "2", "--settings", "2:1x3+0.5x2:1", "--sheet", str(tmp_path / "s.png")]
    assert evaluate.main(["--model", str(trained_transformer), *drawing]) == 0
    assert (tmp_path / "s.png").stat().st_size > 0


def test_a_resumed_transformer_run_ends_like_an_uninterrupted_one(trained_tokenizer, tmp_path):
    arguments = ["--tokenizer", str(trained_tokenizer), "--steps", "5", *TINY]
    transformer.main(["--out", str(tmp_path / "whole"), *arguments])
    stopped_after(2, tmp_path / "parts", transformer, arguments)
    transformer.main(["--out", str(tmp_path / "parts"), *arguments])
    assert_same(*(torch.load(tmp_path / part / "transformer.checkpoint.pt", weights_only=True) for part in ("whole", "parts")))


def test_the_pool_grows_by_parts_and_says_when_there_is_none(trained_tokenizer, tmp_path):
    stored = pool.load_pool(trained_tokenizer)
    assert {len(tensor) for tensor in stored.values()} == {96}
    assert stored["features"].shape[1:] == (16, 6, 6) and int(stored["content"].max()) < pool.CONTENTS
    scenes = sample_scenes([parse_prompt("a small star")] * 20, numpy.random.default_rng(0))
    assert (pool.content_map(scenes, 16).flatten(1).amax(1) > 0).all()
    with pytest.raises(FileNotFoundError, match=r"lab\.training\.pool"):
        pool.load_pool(tmp_path)


def test_every_word_of_the_grammar_is_known_and_every_noun_has_its_facts():
    generator = numpy.random.default_rng(0)
    prompts = [draw_prompt(category, "train", generator) for category in CATEGORIES for _ in range(30)]
    ids, facts = text.tokenised(prompts, pool.worded(prompts, generator))
    assert not (ids == text.vocabulary()["<unk>"]).any()
    assert [(row != text.UNSAID).any(-1).sum().item() for row in facts] == [len(p.nouns) for p in prompts]
    chain = parse_prompt("a small red circle left of a blue square and above a green star")
    assert [text.noun_facts(chain, order)[4:] for order in range(3)] == [[1, 3, 0], [2, 0, 1], [4, 0, 2]]


@pytest.mark.parametrize("grids", ["1 2 4", "1 2 6 8 10"])
def test_attention_in_training_is_attention(grids):
    schedule = squares(grids)
    assert grids == "1 2 4" or schedule.total_tokens > SHORT
    torch.manual_seed(0)
    config = ModelConfig.from_json({"embed_dim": 32, "depth": 2, "num_heads": 2, "codebook_dim": 8, "text_channels": 128})
    model = Infinity(config.transformer)
    features = torch.randn(3, 8, *schedule.final)
    inputs, _ = flipped_sequence(features, schedule, len(schedule), torch.zeros(3, 1, 1), torch.Generator().manual_seed(0))
    texts = [torch.randn(length, 128) for length in (3, 5, 4)]
    plain = model.forward_sequence(inputs, schedule, model.project_text(texts))
    with TrainingAttention(schedule.tokens):
        ours = model.forward_sequence(inputs, schedule, model.project_text(texts))
    torch.testing.assert_close(ours, plain, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("option", [[], ["--no-optimiser"]])
def test_a_kept_checkpoint_trains_on(trained_tokenizer, trained_transformer, tmp_path, option):
    keep.main(["pack", str(trained_transformer), str(tmp_path / "kept"), *option])
    keep.main(["unpack", str(tmp_path / "kept"), str(tmp_path / "run")])
    name = "transformer.checkpoint.pt"
    before, after = (torch.load(folder / name, weights_only=True) for folder in (trained_transformer, tmp_path / "run"))
    assert (tmp_path / "kept" / name).stat().st_size < 0.55 * (trained_transformer / name).stat().st_size
    for key, value in before["average"].items():
        torch.testing.assert_close(after["average"][key], value, rtol=2e-3, atol=1e-4)
    transformer.main(["--out", str(tmp_path / "run"), "--tokenizer", str(trained_tokenizer), "--steps", "102", *TINY])
    assert torch.load(tmp_path / "run" / name, weights_only=True)["step"] == 102
    assert losses(tmp_path / "run", "transformer", "step")[0] == 50


def test_flipped_sequences_teach_what_is_left_to_correct():
    schedule = squares("1 2 4")
    features = torch.randn(5, 6, 4, 4, generator=torch.Generator().manual_seed(0))
    inputs, targets = flipped_sequence(features, schedule, 3, torch.zeros(5, 1, 1), torch.Generator().manual_seed(1))
    bits, _ = encode_bits(features, schedule, False)
    assert all(torch.equal(a, b) for a, b in zip(targets, bits, strict=True))
    assert [tuple(i.shape) for i in inputs] == [(5, 4, 6), (5, 16, 6)]
    wrong_in, wrong_out = flipped_sequence(
        features, schedule, 2, torch.ones(5, 1, 1), torch.Generator().manual_seed(1)
    )
    assert torch.equal(wrong_out[0], bits[0])  # the first answer is not touched by flips
    assert torch.allclose(wrong_in[0], -inputs[0])  # what is fed back is all wrong
    assert not torch.equal(wrong_out[1], bits[1])  # and the next answer has more to correct


def test_scale_weights_sum_to_one_and_grow_with_the_side():
    weights = scale_weights(squares("1 2 4"))
    assert torch.isclose(weights.sum(), torch.tensor(1.0))
    assert torch.allclose(weights[[1, -1]] / weights[0], torch.tensor([2.0, 4.0]))


def test_the_text_encoder_learns_which_colour_and_place_belong_to_a_noun():
    given = ["--out", "unused", "--tokenizer", "unused", "--text-steps", "150", "--rate", "2e-3"]
    args = transformer.build_parser().parse_args(given)
    torch.manual_seed(0)
    modules = torch.nn.ModuleDict({"text": text.build_encoder(), "reader": text.build_noun_reader()})
    generator = numpy.random.default_rng(1)
    prompts = [draw_prompt(category, "test", generator) for category in CATEGORIES for _ in range(8)]
    ids, facts = text.tokenised(prompts, [prompt.text for prompt in prompts])
    transformer.teach_words(modules, args)
    with torch.no_grad():
        assert float(text.noun_loss(modules["reader"], text.padded_states(modules["text"], ids), facts)) < 0.1


def test_batched_text_equals_one_by_one(trained_transformer):
    _, encoder = evaluate.load_folder(trained_transformer)
    generator = numpy.random.default_rng(0)
    prompts = [draw_prompt(category, "train", generator) for category in CATEGORIES]
    ids, _ = text.tokenised(prompts, [prompt.text for prompt in prompts])
    with torch.no_grad():
        states = text.padded_states(encoder.model, ids)
    for row, found, prompt in zip(states, ids, prompts, strict=True):
        length = int((found != 0).sum())
        torch.testing.assert_close(row[:length], encoder.encode(prompt.text), rtol=1e-4, atol=1e-5)


def test_the_same_seed_draws_the_same_batch():
    args = tokenizer.build_parser().parse_args(["--out", "unused", *TINY_TOKENIZER, "--device", "cpu"])
    first, again = (tokenizer.picture_batch(args, 48, numpy.random.default_rng([0, 5]))[0] for _ in range(2))
    assert torch.equal(first, again)


def test_published_weights_load_and_keep_the_tuned_settings(trained_transformer, tmp_path):
    settings = ["--guidance", "2.5", "--tau", "1x3+0.5x2"]
    assert publish.main(["--model", str(trained_transformer), "--to", str(tmp_path), *settings]) == 0
    published, _ = evaluate.load_folder(tmp_path)
    assert (published.config.sampling.guidance, published.config.sampling.tau) == (2.5, (1, 1, 1, 0.5, 0.5))
    trained = evaluate.load_folder(trained_transformer)[0].transformer.state_dict()
    for name, tensor in published.transformer.state_dict().items():
        torch.testing.assert_close(tensor, trained[name].half().float(), rtol=0, atol=0)


def test_muon_in_float32_steps_as_muon_does():
    """They differ by the rounding of bfloat16 alone, in which torch's computes."""
    generator = torch.Generator().manual_seed(0)
    starts = [torch.randn(shape, generator=generator) for shape in ((32, 32), (32, 96), (96, 32), (32, 96))]
    ends = []
    for kind in (torch.optim.Muon, optimiser.Float32Muon):
        parameters = [torch.nn.Parameter(start.clone()) for start in starts]
        muon = kind(parameters, lr=0.02, weight_decay=0.1, adjust_lr_fn="match_rms_adamw")
        for step in range(3):
            draws = torch.Generator().manual_seed(step)
            for parameter in parameters:
                parameter.grad = torch.randn(parameter.shape, generator=draws)
            muon.step()
        ends.append([parameter.detach() for parameter in parameters])
    for theirs, ours, start in zip(*ends, starts, strict=True):
        assert (ours - theirs).norm() < 0.02 * (theirs - start).norm()
