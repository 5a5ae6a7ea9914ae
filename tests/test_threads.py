"""Small work on few threads: how many, and what they were afterwards."""

from __future__ import annotations

import pytest
import torch

from ttsvar_core.decoding import decode
from ttsvar_core.infinity.text import encode_prompt
from ttsvar_core.sampling import sample
from ttsvar_core.state import start
from ttsvar_core.threads import WORTH_THREADS, threads_for
from ttsvar_core.weights import load_bundled


@pytest.fixture
def eight_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(8)
    yield
    torch.set_num_threads(before)


def during(network, rows: int) -> int:
    with threads_for(network, rows):
        return torch.get_num_threads()


def test_threads_follow_the_work(eight_threads):
    network = torch.nn.Linear(1000, 1000, bias=False)
    worth = int(WORTH_THREADS / 2e6)  # rows
    assert [during(network, rows) for rows in (0, 1, worth - 1, worth, 100 * worth)] == [1, 1, 1, 8, 8]
    assert torch.get_num_threads() == 8
    with pytest.raises(RuntimeError), threads_for(network, 1):
        raise RuntimeError
    assert torch.get_num_threads() == 8


def test_other_devices_and_one_thread_are_left_alone(eight_threads):
    assert during(torch.nn.Linear(2, 2, device="meta"), 1) == 8 and during(torch.nn.Identity(), 1) == 8
    torch.set_num_threads(1)
    assert during(torch.nn.Linear(1000, 1000), 10**9) == 1


def test_the_bundled_model_runs_on_one_thread_whatever_the_process_has(eight_threads, monkeypatch):
    seen, projected = [], []
    model, encoder = load_bundled()
    attention = next(part for part in model.transformer.modules() if type(part).__name__ == "SelfAttention")
    for part in (attention, next(model.tokenizer.decoder.children()), encoder.model):
        part.register_forward_pre_hook(lambda *_: seen.append(torch.get_num_threads()))
    model.transformer.text_proj_for_ca.register_forward_pre_hook(lambda *_: projected.append(torch.get_num_threads()))
    conditioning = encode_prompt(encoder, "a photo of a red circle")
    state = sample(start(model, conditioning, 8, 0), 12)
    decode(state)
    assert projected == [1]
    assert len(seen) > 13 and set(seen) == {1} and torch.get_num_threads() == 8
