"""The command that a graphics card is checked with: rehearsed on the processor, and what it does where checks fail or hang."""

import json

import pytest
import torch
from safetensors.torch import load_file
from test_cards import CARD, on_the_card
from tiny_models import GOLDEN, make_conditioning, make_tiny_model
from torch._subclasses.fake_tensor import FakeTensorMode

from lab.gpu import __main__ as command
from lab.gpu import launches, parity
from lab.gpu.place import Place
from lab.gpu.runner import Check, Notes, apart, run_all, table
from ttsvar_core.state import start


def test_rehearsal_runs_every_check(tmp_path, capsys):
    assert command.main(["--rehearse", "--json", str(tmp_path / "gpu.json")]) == 0
    record, told = json.loads((tmp_path / "gpu.json").read_text()), capsys.readouterr().out
    assert list(record) == [check.name for check in command.CHECKS] and all(f"| {name} |" in told for name in record)
    assert sum(check.seconds for check in command.CHECKS) > command.BUDGET < 9 * 60
    together = record["launches"]["found"]["tts-var 1 together"]
    assert {"eager", "graph", "replay", "compiled", "launches"} <= set(together)
    assert record["decoding"]["found"]["8 sketches together, torch.bfloat16"]["seconds"] > 0
    assert record["launches"]["found"]["graphs' memory"]["graphs"] == len(
        [key for key in record["launches"]["found"] if key.startswith("scale")]
    )
    assert record["search"]["found"]["tts-var 1"]["reward"] > 0
    assert list(tmp_path.iterdir()) == [tmp_path / "gpu.json"]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_what_a_graph_is_recorded_from_lies_on_the_card(dtype):
    model = make_tiny_model()
    model.transformer.in_precision(dtype)
    schedule, transformer = model.schedule(), model.transformer
    text = transformer.project_text(transformer.guidance_texts(make_conditioning())).to(CARD)
    with FakeTensorMode(allow_non_fake_inputs=True), torch.inference_mode():
        on_the_card(model.transformer)
        given = launches.inputs_at(model, text, schedule, 3, 4)
        recorded = launches.Recorded(launches.forward(model, schedule, 3), given)
        logits = recorded(given)
    assert {tensor.device for tensor in (*given.tensors(), *recorded.places.tensors(), logits)} == {CARD}
    assert logits.shape == (4, 16, 8, 2) and {tensor.dtype for tensor in given.past.chunks[0].keys} == {dtype}


def test_a_record_is_of_the_inputs_it_is_given():
    model = make_tiny_model()
    state, function = start(model, make_conditioning(), 2, 0), launches.forward(model, model.schedule(), 3)
    first, second = (launches.inputs_at(model, state.text, state.schedule, 3, 2) for _ in range(2))
    with torch.inference_mode():
        recorded = launches.Recorded(function, first)
        assert torch.equal(recorded(second), function(second)) and torch.equal(recorded(first), function(first))
        assert not torch.equal(function(first), function(second))


@pytest.mark.parametrize("name", parity.MODELS)
def test_paths_are_held_to_what_the_public_implementation_computed(name):
    golden = load_file(GOLDEN / f"{name}.golden.safetensors")
    last = golden[max(key for key in golden if key.endswith(".logits"))]
    ours = parity._probability(name, parity.Path(), torch.device("cpu"))
    assert (ours - torch.sigmoid(last[..., 1] - last[..., 0])).abs().max() < 1e-4


@pytest.mark.parametrize("wrong", [0.0, 0.01])
def test_a_path_that_computes_something_else_fails(monkeypatch, wrong):
    exact, path = parity._probability, parity.PATHS["graph"]
    monkeypatch.setattr(parity, "_probability", lambda name, path, device: exact(name, path, device) + wrong * path.graph)
    assert parity._logits(parity.MODELS[0], path, torch.device("cpu"))["ok"] == (wrong == 0)


HANGS = """
import json, sys, time
name, notes = sys.argv[2], sys.argv[4]
if name == "ends": sys.exit("the card fell off the bus")
open(notes, "w").write(json.dumps({"a": {"ok": True, "speed": 1.5, "_all": [1]}}))
if name == "hangs": time.sleep(60)
"""


def test_checks_are_independent(tmp_path):
    """One hangs, one ends the process, one is well; after each, what is known stands in the file."""
    seen, path, run = [], tmp_path / "gpu.json", apart(["-c", HANGS])

    def watched(check, notes, seconds):
        seen.append(sorted(json.loads(path.read_text())) if path.exists() else [])
        return run(check, notes, seconds)

    checks = [Check(name, 5, "") for name in ("hangs", "ends", "well")]
    record = run_all(checks, path, 60, watched)
    assert seen == [[], ["hangs"], ["ends", "hangs"]] and json.loads(path.read_text()) == record
    assert [record[check.name]["ok"] for check in checks] == [False, False, True]
    assert "stopped after" in record["hangs"]["error"] and record["hangs"]["found"]["a"]["speed"] == 1.5
    assert "fell off the bus" in record["ends"]["error"]
    assert "| well | a | yes | speed 1.5 |" in table(record) and "_all" not in table(record)
    assert "no time was left" in run_all(checks[:1], path, 1, watched)["hangs"]["error"]


def test_one_failure_within_a_check_leaves_the_others(tmp_path):
    notes = Notes(tmp_path / "notes")
    notes.attempt("bad", lambda: 1 / 0)
    notes.attempt("good", lambda: {"ok": True, "value": 2})
    kept = json.loads((tmp_path / "notes").read_text())
    assert not kept["bad"]["ok"] and "ZeroDivisionError" in kept["bad"]["error"] and kept["good"]["value"] == 2


def test_nothing_is_limited_where_there_is_no_card():
    place = Place(torch.device("cpu"), rehearse=True)
    with place.limited(5.0) as size:
        assert size == 5.0
    assert place.watched(lambda: 3) == (3, {"peak_gb": 0.0, "reserved_gb": 0.0, "ran_out": 0})
