"""Compiled blocks: the same logits, few programs whatever the lengths, and words where nothing can be compiled."""

import argparse
import gc
import shutil
import weakref

import pytest
import torch
from host_stand_in import load_pack
from tiny_models import make_conditioning, make_tiny_model

from ttsvar_core import compiled
from ttsvar_core.cli import main
from ttsvar_core.commands import choices
from ttsvar_core.compiled import compile_blocks
from ttsvar_core.infinity.cache import KVCache
from ttsvar_core.sampling import replay, sample
from ttsvar_core.state import start

needs_compiler = pytest.mark.skipif(
    not (shutil.which("g++") or shutil.which("clang++")), reason="compiling on the CPU takes a C++ compiler"
)


@pytest.fixture
def programs():
    """What counts the programs made from here on."""
    from torch._dynamo.utils import counters

    torch._dynamo.reset()
    before = counters["stats"]["unique_graphs"]
    yield lambda: counters["stats"]["unique_graphs"] - before
    torch._dynamo.reset()


@needs_compiler
def test_compiled_blocks_give_the_same_logits_from_two_programs(programs):
    """Scales, samples, words, groups and the form of the cache change; the programs are those for several samples and for one."""
    model, plain = compile_blocks(make_tiny_model()), make_tiny_model()
    trial = programs()
    assert list(model.transformer.state_dict()) == list(plain.transformer.state_dict())
    float8, groups = {"cache_policy": "float8"}, {"group_size": 2}
    for samples, tokens, options in ((4, 4, {}), (3, 9, {}), (2, 2, float8), (3, 5, groups), (1, 3, {})):
        ours, theirs = (sample(start(one, make_conditioning(tokens), samples, 0), 3, **options) for one in (model, plain))
        assert last_logits(ours) == pytest.approx(last_logits(theirs), abs=1e-4)
    kept = sample(start(model, make_conditioning(4), 4, 0), 3)
    assert last_logits(replay(kept.without_cache())) == pytest.approx(last_logits(kept), abs=1e-4)
    assert last_logits(kept.select(torch.tensor([2, 2, 0]))) == pytest.approx(last_logits(kept)[[2, 2, 0]], abs=1e-4)
    assert programs() - trial <= 2


def test_a_compiled_model_goes_with_its_last_reference(monkeypatch):
    """At once: weights that wait for the garbage collector keep the next model out of the card."""
    monkeypatch.setattr(compiled, "check_compiler", lambda device: None)
    model = compile_blocks(make_tiny_model())
    left = [weakref.ref(parameter) for parameter in model.transformer.parameters()]
    gc.disable()
    try:
        del model
        assert all(parameter() is None for parameter in left)
    finally:
        gc.enable()


def last_logits(state):
    step = state.model.config.sampling.at(4)
    cache = state.cache or KVCache()
    with torch.inference_mode():
        logits, _ = state.model.transformer.forward_scale(state.features, 4, state.schedule, state.text, cache, step)
    return logits.numpy()


@pytest.fixture
def no_compiler(monkeypatch):
    def fails(*_, **__):
        raise FileNotFoundError("no such program: c++")

    monkeypatch.setattr(torch, "compile", fails)


def test_without_a_compiler_it_says_what_to_do(no_compiler):
    with pytest.raises(RuntimeError, match=r"no such program.*C\+\+ compiler.*leave compiling off"):
        compile_blocks(make_tiny_model())
    with pytest.raises(RuntimeError, match="no such program"):
        compiled.check_compiler(torch.device("cpu"))


def test_triton_goes_by_another_name_on_windows():
    card, processor = torch.device("cuda"), torch.device("cpu")
    assert "pip install triton-windows)" in compiled._needed(card, windows=True)
    assert "pip install triton)" in compiled._needed(card, windows=False) and "Triton" not in compiled._needed(processor)


def test_the_command_line_and_the_benchmark_say_so_too(no_compiler, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("ttsvar_core.weights.load_bundled", None)  # it comes before anything is loaded
    assert main(["generate", "a photo of a red circle", "--compile", "--out", str(tmp_path)]) == 2
    assert "cannot be compiled here" in capsys.readouterr().err
    monkeypatch.undo()


def test_every_way_in_compiles_the_model_it_loads(monkeypatch, tmp_path):
    """Command line, benchmark and loader node, and only where asked."""
    import lab.benchmark.__main__ as bench

    seen = []
    monkeypatch.setattr(compiled, "check_compiler", lambda device: None)
    monkeypatch.setattr(compiled, "compile_blocks", lambda model, device=None: seen.append(model.name) or model)
    monkeypatch.setattr(bench, "compile_blocks", lambda model: seen.append(model.name) or model)
    parser = argparse.ArgumentParser()
    choices.add_model_arguments(parser)
    choices.load_models(parser.parse_args([]))
    assert seen == []
    choices.load_models(parser.parse_args(["--compile"]))
    assert bench.main(["--plan", "raw", "--compile"]) == 0
    assert seen == ["scenes128"] * 2
    with load_pack(tmp_path) as pack:
        monkeypatch.setattr(pack.core("compiled"), "check_compiler", lambda device: None)
        monkeypatch.setattr(pack.core("compiled"), "compile_blocks", lambda model, device: seen.append(device) or model)
        pack.run("TTSVAR_InfinityLoader")
        assert len(seen) == 2
        pack.run("TTSVAR_InfinityLoader", compile=True)
    assert seen[2:] == [torch.device("cpu")]
