"""Apple's GPUs: what they cannot do happens on the CPU or is refused. Tried without one, on tensors that say they are there."""

import argparse
import sys

import pytest
import torch
import torch.nn.functional as F
from host_stand_in import load_pack
from tiny_models import make_conditioning, make_tiny_model

from ttsvar_core.bsq.bits import encode_bits
from ttsvar_core.commands import choices
from ttsvar_core.extractors.latent_pool import LatentPool
from ttsvar_core.infinity.model import Infinity
from ttsvar_core.inspect.maps import principal_colours
from ttsvar_core.inspect.preview import preview
from ttsvar_core.sampling import sample
from ttsvar_core.state import start

MPS = torch.device("mps")
NO_FLOAT8 = "Apple's GPUs have no float8 numbers: take weights in bfloat16"


class OnMPS(torch.Tensor):
    """A tensor that says it is on an Apple GPU, where areas that do not divide evenly cannot be averaged."""

    device = MPS

    @classmethod
    def __torch_function__(cls, function, types, args=(), kwargs=None):
        here = isinstance(args[0], cls)
        averages = function is F.adaptive_avg_pool2d or (function is F.interpolate and kwargs["mode"] == "area")
        if averages and here:
            raise RuntimeError("Adaptive pool MPS: input sizes must be divisible by output sizes")
        if function is torch.Tensor.double:
            raise TypeError("Cannot convert a MPS Tensor to float64 dtype as the MPS framework doesn't support float64.")
        if function is torch.Tensor.cpu:
            return args[0].as_subclass(torch.Tensor)
        if function is torch.Tensor.to:
            return args[0].as_subclass(torch.Tensor if isinstance(args[1], torch.device) else cls)
        result = super().__torch_function__(function, types, args, kwargs or {})
        return result if here else result.as_subclass(torch.Tensor)


@pytest.fixture
def features():
    return torch.randn(2, 8, 6, 6, generator=torch.Generator().manual_seed(0))


def test_an_image_is_encoded_on_grids_that_do_not_divide_the_last(features):
    schedule = make_tiny_model().schedule()  # 4 does not divide 6
    ours, _ = encode_bits(features.as_subclass(OnMPS), schedule, False)
    theirs, _ = encode_bits(features, schedule, False)
    assert all(torch.equal(a.cpu(), b) for a, b in zip(ours, theirs, strict=True))


def test_latent_pool_and_previews_average_elsewhere(features):
    there = features.as_subclass(OnMPS)
    assert torch.equal(LatentPool().describe(there), LatentPool().describe(features))
    state = sample(start(make_tiny_model(), make_conditioning(), 2, 0), 2)._replace(features=features, cache=None)
    assert preview(state._replace(features=there)).tobytes() == preview(state).tobytes()


def test_maps_of_features_are_computed_elsewhere(features):
    assert torch.equal(principal_colours(features.as_subclass(OnMPS)), principal_colours(features))


def test_float8_is_refused_before_anything_is_loaded_or_sampled(monkeypatch, tmp_path):
    parser = argparse.ArgumentParser()
    choices.add_model_arguments(parser)
    monkeypatch.setattr("ttsvar_core.weights.load_bundled", lambda **_: pytest.fail("loaded"))
    with pytest.raises(ValueError, match=NO_FLOAT8):
        choices.load_models(argparse.Namespace(**{**vars(parser.parse_args(["--float8-weights"])), "device": "mps"}))
    with load_pack(tmp_path) as pack:
        monkeypatch.setattr(sys.modules["comfy.model_management"], "get_torch_device", lambda: MPS)
        with pytest.raises(ValueError, match=NO_FLOAT8):
            pack.run("TTSVAR_InfinityLoader", precision="float8")
    state = start(make_tiny_model(), make_conditioning(), 1, 0)
    monkeypatch.setattr(Infinity, "device", MPS)
    with pytest.raises(ValueError, match=NO_FLOAT8):
        sample(state, 1, cache_policy="float8")
