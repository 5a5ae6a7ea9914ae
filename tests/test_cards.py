"""What a card is asked to do, tried without one: tensors that say they are on it but hold nothing."""

import sys
import weakref
from contextlib import contextmanager
from dataclasses import replace
from unittest.mock import patch

import pytest
import torch
from host_stand_in import load_pack
from tiny_models import make_conditioning, make_tiny_model
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from ttsvar_core import decoding, footprint
from ttsvar_core.bsq.autoencoder import Decoder
from ttsvar_core.bsq.bits import empty_features
from ttsvar_core.config import PRESETS, Sampling
from ttsvar_core.decoding import decode, decode_features, decode_tiled, decoder_in
from ttsvar_core.extractors.latent_pool import LatentPool
from ttsvar_core.footprint import activation_bytes, decoding_bytes
from ttsvar_core.infinity import attention
from ttsvar_core.infinity.cache import Chunk, KVCache
from ttsvar_core.infinity.model import Infinity, TextContext
from ttsvar_core.out_of_memory import is_out_of_memory
from ttsvar_core.sampling import sample
from ttsvar_core.scales import official
from ttsvar_core.search.cluster import Cluster
from ttsvar_core.search.plan import Plan
from ttsvar_core.state import start

CARD = torch.device("meta")


class Crossings(TorchDispatchMode):
    """Notes every tensor that goes from the processor to the card."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        made = function(*args, **(kwargs or {}))
        came = next((a for a in args if isinstance(a, torch.Tensor)), None)
        if isinstance(made, torch.Tensor) and came is not None and (came.device.type, made.device.type) == ("cpu", "meta"):
            self.seen.append(f"{function} {tuple(made.shape)}")
        return made


class LiveBytes(TorchDispatchMode):
    """Adds up the storages that operations make while they are alive; ``peak`` is the most there was at once."""

    def __init__(self):
        super().__init__()
        self.alive = self.peak = 0
        self._known = set()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        made = function(*args, **(kwargs or {}))
        for tensor in made if isinstance(made, list | tuple) else (made,):
            if isinstance(tensor, torch.Tensor) and not function.is_view:
                self._note(tensor.untyped_storage())
        return made

    def _note(self, storage):
        key, size = storage._cdata, storage.nbytes()
        if key not in self._known:
            self._known.add(key)
            self.alive += size
            self.peak = max(self.peak, self.alive)
            weakref.finalize(storage, self._gone, key, size)

    def _gone(self, key, size):
        self._known.discard(key)
        self.alive -= size


@contextmanager
def without_data():
    """Run on shapes alone; attention as a fused kernel holds it: its output, no matrix of all pairs."""

    def fused(query, key, value, **_):
        return query.new_empty((*query.shape[:-1], value.shape[-1]))

    live = LiveBytes()
    with (
        torch.device("meta"), torch.inference_mode(), live,
        patch.object(attention.F, "scaled_dot_product_attention", fused),
    ):
        yield live


def on_the_card(module):
    """The module with parameters that say they are on the card."""
    for part in module.modules():
        for name, parameter in part.named_parameters(recurse=False):
            setattr(part, name, nn.Parameter(torch.empty_like(parameter, device=CARD), requires_grad=False))
    return module


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_nothing_crosses_to_the_card_within_a_scale(dtype):
    """Neither positions, nor the number of the scale, nor which sample reads which keys; and all devices and types agree."""
    model = make_tiny_model()
    schedule, step, transformer = model.schedule(), model.config.sampling.at(0), model.transformer.in_precision(dtype)
    text = transformer.project_text(transformer.guidance_texts(make_conditioning())).to(CARD)
    transformer = on_the_card(transformer)
    with FakeTensorMode(allow_non_fake_inputs=True), torch.inference_mode():
        features, cache = empty_features(4, 8, schedule, False).to(CARD), KVCache()
        for scale in range(len(schedule)):
            rows = torch.tensor([3, 1, 1, 0])
            cache = cache.select(rows)
            with Crossings() as crossings:
                logits, chunk = transformer.forward_scale(features, scale, schedule, text, cache, step)
            assert crossings.seen == [] and logits.device == CARD and logits.dtype == torch.float32
            cache = cache.append(chunk)


@pytest.mark.parametrize(
    "words",
    [
        "CUDA out of memory. Tried to allocate 1.50 GiB. GPU 0 has a total capacity of 7.78 GiB",
        "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`",
        "CUDA error: CUBLAS_STATUS_NOT_INITIALIZED when calling `cublasCreate(handle)`",
        "cuDNN error: CUDNN_STATUS_ALLOC_FAILED",
        "cuDNN error: CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED",
        "Unable to find a valid cuDNN algorithm to run convolution",
        "GET was unable to find an engine to execute this computation",
        "HIP out of memory. Tried to allocate 2.00 GiB",
        "Native API failed. Native API returns: 39 (UR_RESULT_ERROR_OUT_OF_DEVICE_MEMORY)",
        "Could not allocate tensor with 234881024 bytes. There is not enough GPU video memory available!",
        "MPS backend out of memory (MPS allocated: 17.91 GiB, other allocations: 1.35 MiB, max allowed: 18.13 GiB)",
        "Invalid buffer size: 16.00 GiB",
        "[enforce fail at alloc_cpu.cpp:127] data. DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes.",
        "DefaultCPUAllocator: not enough memory: you tried to allocate 68719476736 bytes.",
        "std::bad_alloc",
    ],
)
def test_memory_that_ran_out_is_recognised_whoever_says_so(words):
    assert is_out_of_memory(RuntimeError(words)) and not is_out_of_memory(ValueError(words))


@pytest.mark.parametrize("words", ["CUDA error: an illegal memory access was encountered", "CUDNN_STATUS_BAD_PARAM"])
def test_other_faults_are_not_taken_for_it(words):
    assert not is_out_of_memory(RuntimeError(words))


@pytest.fixture
def state():
    features = torch.randn(2, 8, 40, 22, generator=torch.Generator().manual_seed(0)) * 0.5
    return start(make_tiny_model(), make_conditioning(), 2, 0)._replace(features=features)


def small_card(state, monkeypatch, cells, error="cuDNN error: CUDNN_STATUS_ALLOC_FAILED"):
    """Only so many cells of one picture can be decoded on the card; returns the sizes that were tried."""
    tokenizer, tried = state.model.tokenizer, []
    whole = tokenizer.decode

    def decode(features):
        tried.append(tuple(features.shape[-2:]))
        if tried[-1][0] * tried[-1][1] > cells:
            raise RuntimeError(error)
        return whole(features)

    monkeypatch.setattr(tokenizer, "decode", decode)
    return tried


def test_decoding_goes_on_in_tiles_where_memory_runs_out(state, monkeypatch):
    expected = decode_tiled(state.model, state.features, tile=10, overlap=2)
    tried = small_card(state, monkeypatch, cells=100)
    with pytest.warns(UserWarning, match="in tiles of 20 cells"), pytest.warns(UserWarning, match="in tiles of 10 cells"):
        images = decode(state)
    assert torch.equal(images, expected)
    assert tried[:3] == [(40, 22), (40, 22), (20, 20)] and set(tried[3:]) == {(10, 10)}


def test_and_in_the_end_on_the_processor(state, monkeypatch):
    expected = decode_features(state.model, state.features)
    for asked, sizes in ((0, [(40, 22), (40, 22), (20, 20), (10, 10)]), (40, [(20, 20), (10, 10), (5, 5)])):
        tried = small_card(state, monkeypatch, cells=0)
        with pytest.warns(UserWarning, match="on the processor now"), pytest.warns(UserWarning, match="in tiles of"):
            images = decode(state, tile=asked)
        assert torch.equal(images, expected) and tried == sizes
        monkeypatch.undo()


def test_pictures_that_do_not_fit_together_are_collected_elsewhere(state, monkeypatch, recwarn):
    """One at a time changes nothing, so nothing is said."""
    expected, joined, refused = decode(state), torch.cat, []

    def cat(tensors, *rest, **more):
        if not refused:
            refused.append(len(tensors))
            raise RuntimeError("Could not allocate tensor with 9 bytes. There is not enough GPU video memory available!")
        return joined(tensors, *rest, **more)

    monkeypatch.setattr(torch, "cat", cat)
    assert torch.equal(decode(state), expected) and refused == [2] and not recwarn.list


def test_another_fault_of_the_decoder_is_passed_on(state, monkeypatch):
    tried = small_card(state, monkeypatch, cells=0, error="CUDNN_STATUS_BAD_PARAM")
    with pytest.raises(RuntimeError, match="BAD_PARAM"):
        decode(state)
    assert len(tried) == 1


def test_live_bytes_are_those_alive_at_once():
    """Two tensors of 400 bytes at most at a time: the first is gone when the third is made; views count nothing."""
    with torch.device("meta"), LiveBytes() as live:
        first = torch.empty(100)
        second = first + 1
        view = second.view(10, 10)
        del first
        third = view * 2
        assert (live.alive, live.peak) == (800, 800)
        del second, view, third
    assert live.alive == 0


@pytest.mark.parametrize("preset", ["2b", "8b"])
@pytest.mark.parametrize("samples", [1, 4])
def test_what_a_scale_needs_follows_from_the_transformer(preset, samples):
    """Never less than what is alive beside weights, keys and values when it runs on shapes alone. Layers run one after another in
    the same memory, so two of them tell."""
    sizes, schedule = replace(PRESETS[preset].transformer, depth=2, block_chunks=1), official(1.0, "0.25M")
    dtype, heads, last = torch.bfloat16, (sizes.num_heads, sizes.head_dim), len(schedule) - 1
    with torch.device("meta"):
        model = Infinity(sizes).in_precision(dtype).requires_grad_(False)
        text = (torch.empty(2, heads[0], 64, heads[1], dtype=dtype),) * 2
        prompt = TextContext(torch.empty(2, sizes.embed_dim), torch.empty(2, 1, 1, 6, sizes.embed_dim), text, text, None)
    for scale in (2, last - 1, last):
        shapes = [(2, samples, heads[0], tokens, heads[1]) for tokens in schedule.tokens[:scale]]
        past = [(torch.empty(shape, dtype=dtype, device="meta"),) * 2 for shape in shapes]
        cache = KVCache(tuple(Chunk(side, side) for side in past))
        features = empty_features(samples, sizes.codebook_dim, schedule, sizes.apply_spatial_patchify).to("meta")
        with without_data() as live:
            _, chunk = model.forward_scale(features, scale, schedule, prompt, cache, PRESETS[preset].sampling.at(scale))
        alive, counted = live.peak - chunk.nbytes, samples * activation_bytes(sizes, schedule, scale, 2, dtype.itemsize)
        assert alive <= counted and (scale < last or counted <= 1.1 * alive)


def test_what_decoding_needs_follows_from_the_decoder():
    """Known for 2B at 1M pixels; and never less than what is alive when it runs on shapes alone."""
    assert decoding_bytes(PRESETS["2b"].tokenizer, (64, 64)) == 3.75 * 2**30
    for config in (PRESETS["2b"].tokenizer, PRESETS["8b"].tokenizer):
        with torch.device("meta"):
            decoder, features = Decoder(config), torch.empty(1, config.codebook_dim, 32, 24)
        with without_data() as live:
            decoder(features)
        assert live.peak <= decoding_bytes(config, (32, 24)) <= 1.3 * live.peak


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_a_card_decodes_in_its_precision_and_layout(dtype):
    """Every weight and activation agrees in device and type; the tokenizer itself is left as it was."""
    model = make_tiny_model()
    model.tokenizer.to(memory_format=torch.channels_last)
    with FakeTensorMode(allow_non_fake_inputs=True), torch.inference_mode():
        tokenizer = on_the_card(model.tokenizer)
        layouts = []
        conv = tokenizer.decoder.mid.block_1.conv1.conv
        conv.register_forward_hook(lambda part, given, made: layouts.append((part.weight.is_contiguous(), made.is_contiguous())))
        with Crossings() as crossings:
            images = decoder_in(model, CARD, dtype)(torch.empty(3, 8, 6, 6, device=CARD))
    assert crossings.seen == [] and (images.device, images.dtype, images.shape) == (CARD, torch.float32, (3, 3, 12, 12))
    assert layouts == [(True, True)] and not conv.weight.is_contiguous()
    assert {parameter.dtype for parameter in tokenizer.parameters()} == {torch.float32}


@pytest.fixture
def stood_in(monkeypatch):
    """The processor does what a card is asked to; returns the precisions and numbers of pictures asked for."""
    asked, here = [], decoding.decoder_in

    def decoder(model, device, dtype):
        assert device == CARD
        decode = here(model, torch.device("cpu"), dtype)
        return lambda part: asked.append((dtype, len(part))) or decode(part)

    monkeypatch.setattr(decoding, "decoder_in", decoder)
    return asked


def card_model(dtype):
    """A model with a tokenizer that says it is on a card, and another that is here, of the same weights."""
    model, here = make_tiny_model(), make_tiny_model()
    model.transformer.in_precision(dtype)
    model.tokenizer.parameters = lambda: iter([torch.empty(1, device=CARD)])
    return model, here


@pytest.mark.parametrize(("dtype", "levels"), [(torch.float32, 1e-3), (torch.bfloat16, 0.8), (torch.float16, 0.1)])
def test_small_pictures_are_decoded_together_in_half_precision(state, stood_in, monkeypatch, dtype, levels):
    monkeypatch.setattr(footprint, "DECODED_TOGETHER", 2 * 20 * 20 * 2**2)
    model, here = card_model(dtype)
    features = torch.cat([state.features, state.features[:1] * 0.3])[..., :20, :20]
    error = (decode_features(model, features) - decode_features(here, features)).abs().mean() * 255
    assert stood_in == [(dtype, 2), (dtype, 1)] and error < levels
    monkeypatch.setattr(footprint, "DECODED_TOGETHER", 1)
    decode_features(model, features)
    assert stood_in[2:] == [(dtype, 1)] * 3


def test_pictures_that_are_not_finite_in_half_precision_are_decoded_in_float32(state, stood_in):
    model, here = card_model(torch.float16)
    for tokenizer in (model.tokenizer, here.tokenizer):
        tokenizer.decoder.mid.block_1.conv1.conv.weight.mul_(1e6)
    assert torch.allclose(decode_features(model, state.features), decode_features(here, state.features), atol=1e-5)
    assert [dtype for dtype, _ in stood_in] == [torch.float16, torch.float32]
    for tokenizer in (model.tokenizer, here.tokenizer):
        tokenizer.decoder.conv_out.conv.bias.fill_(torch.nan)
    with pytest.raises(FloatingPointError, match="not finite"):
        decode_features(model, state.features)


@pytest.fixture
def pack(tmp_path):
    with load_pack(tmp_path) as loaded:
        yield loaded


@pytest.mark.parametrize(
    ("bf16", "fp16", "image", "text", "reward"),
    [
        (True, True, torch.bfloat16, torch.float16, torch.bfloat16),
        (False, True, torch.float16, torch.float16, torch.float32),
        (False, False, torch.float32, torch.float32, torch.float32),
    ],
)
def test_auto_takes_what_the_card_computes_in(pack, monkeypatch, bf16, fp16, image, text, reward):
    hosted, management = pack.imported("nodes.host.hosted"), sys.modules["comfy.model_management"]
    monkeypatch.setattr(management, "should_use_bf16", lambda device=None: bf16)
    monkeypatch.setattr(management, "should_use_fp16", lambda device=None: fp16)
    kinds = hosted.IMAGE_PRECISIONS, hosted.TEXT_PRECISIONS, hosted.REWARD_PRECISIONS
    assert {hosted.precision("auto", kind) for kind in kinds} == {torch.float32}  # the stand-in's device is the processor
    monkeypatch.setattr(management, "is_device_cpu", lambda device: False)
    assert [hosted.precision("auto", kind) for kind in kinds] == [image, text, reward]
    assert hosted.precision("float8", hosted.IMAGE_PRECISIONS) == image and hosted.precision("float16") == torch.float16


def test_a_preview_keeps_the_tokenizer_beside_the_transformer(pack):
    """Loaded one after the other, a small card would have moved it away, and each preview would be decoded by the processor."""
    device = pack.imported("nodes.host.device")
    (model,) = pack.run("TTSVAR_InfinityLoader")
    device.load_transformer(model, preview=True)
    assert pack.host.loaded[-2:] == [model.patcher, model.tokenizer_patcher]
    device.load_transformer(model)
    assert pack.host.loaded[-1] is model.patcher and pack.host.loaded[-2] is model.tokenizer_patcher


def test_keys_and_values_on_the_card_are_not_asked_for_again(pack, monkeypatch):
    device = pack.imported("nodes.host.device")
    state = sample(start(make_tiny_model(), make_conditioning(), 2, 0), 2)
    with_cache, without = (device.sampling_memory(one, 4, Sampling(guidance=2.0)) for one in (state, state.without_cache()))
    assert with_cache == without - state.cache.nbytes > 0
    asked, generate = [], sys.modules[pack.nodes["TTSVAR_Generate"].__module__]
    monkeypatch.setattr(device, "load_transformer", lambda model, memory, preview: asked.append(memory))
    monkeypatch.setattr(device, "load_tokenizer", lambda *_: None)
    plan, model = Plan("mine", 1, (Cluster(2, 1),)), state.model
    node, begun = pack.nodes["TTSVAR_Generate"], start(model, make_conditioning(), 1, 0)
    generate._search(begun, plan, None, LatentPool(), model.config.sampling, "off", node)
    started, going_on = asked
    assert going_on == started - state.cache.nbytes / 2  # the second half of the search, which its last scales make dear
