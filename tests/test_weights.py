"""Loading every layout the published files come in."""

import warnings
from pathlib import Path

import pytest
import torch
from checkpoint_files import (
    LAYOUTS,
    assert_same_weights,
    layout_flash_training,
    layout_safetensors_shards,
    layout_training,
    paths,
    plain_model,
    weights,
    with_config,
)
from safetensors.torch import load_file, save_file

from ttsvar_core.weights import RawCheckpoint, load_bundled, load_model, read_checkpoint
from ttsvar_core.weights.names import model_tensors
from ttsvar_core.weights.shapes import transformer_sizes


@pytest.fixture(scope="module")
def plain():
    return plain_model()


def test_loads_with_the_values_of_the_file(plain):
    stored = weights("transformer")
    loaded = plain.transformer.state_dict()
    assert set(stored) - set(loaded) == {name for name in stored if name.endswith("zero_k_bias")}
    assert all(torch.equal(loaded[name], stored[name]) for name in loaded)
    assert not any(parameter.requires_grad for parameter in plain.transformer.parameters())
    assert not plain.transformer.training and not plain.tokenizer.training
    assert plain.config.transformer.depth == 4 and plain.config.own_schedule.rope_grid == (64, 64)


@pytest.mark.parametrize("layout", LAYOUTS, ids=lambda layout: layout.__name__.removeprefix("layout_"))
def test_every_layout_gives_the_same_model(layout, plain, tmp_path):
    files = layout(tmp_path, weights("transformer"), weights("vae"))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert_same_weights(load_model(*files, config=plain.config), plain)


def test_shards_may_be_links_into_another_folder(plain, tmp_path):
    """As in the cache of Hugging Face: snapshots hold links into blobs."""
    _, tokenizer = layout_safetensors_shards(tmp_path, weights("transformer"), weights("vae"))
    snapshot, blobs = tmp_path / "snapshots", tmp_path / "blobs"
    for folder in (snapshot, blobs):
        folder.mkdir()
    for number, file in enumerate(tmp_path.glob("model*")):
        try:
            (snapshot / file.name).symlink_to(file.rename(blobs / str(number)))
        except OSError:
            pytest.skip("this system lets nobody make links")
    assert_same_weights(load_model(snapshot, tokenizer, config=plain.config), plain)


def test_heads_are_counted_where_flash_training_put_them(plain, tmp_path):
    transformer, _ = layout_flash_training(tmp_path, weights("transformer"), weights("vae"))
    sizes = transformer_sizes(model_tensors(read_checkpoint(transformer), "transformer"))
    assert sizes["num_heads"] == plain.config.transformer.num_heads


def test_one_chunk_of_blocks_has_other_names(tmp_path):
    """With one chunk the published code names its layers blocks.N."""
    renamed = {}
    for name, tensor in weights("transformer").items():
        parts = name.split(".")
        if parts[0] == "block_chunks":
            parts = ["blocks", str(2 * int(parts[1]) + int(parts[3])), *parts[4:]]
        renamed[".".join(parts)] = tensor
    save_file(renamed, tmp_path / "m.safetensors")
    model = load_model(tmp_path / "m.safetensors", paths()[1])
    assert (model.config.transformer.depth, model.config.transformer.block_chunks) == (4, 1)


def file_under(tensor):
    """The name of the file whose pages hold a tensor, from the system's list of mappings."""
    for line in Path("/proc/self/maps").read_text().splitlines():
        begin, end = (int(number, 16) for number in line.split()[0].split("-"))
        if begin <= tensor.data_ptr() < end:
            return Path(line.split(maxsplit=5)[5]).name if len(line.split()) > 5 else None
    return None


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="needs the list of mappings that Linux has")
@pytest.mark.parametrize("layout", [layout_training, layout_safetensors_shards])
def test_memory_is_mapped_not_copied(layout, plain, tmp_path):
    model = load_model(*layout(tmp_path, weights("transformer"), weights("vae")), config=plain.config)
    assert file_under(model.transformer.head.weight).startswith("model")
    assert file_under(torch.ones(5)) in (None, "[heap]")


def test_lower_precision_keeps_the_tokenizer_exact(plain):
    model = load_model(*paths(), dtype=torch.bfloat16)
    types = {name: p.dtype for name, p in model.transformer.named_parameters()}
    assert {types["head.weight"], types["shared_ada_lin.1.weight"]} == {torch.float32}  # as the reference has them
    assert {p.dtype for p in model.transformer.layers[0].ffn.parameters()} == {model.transformer.dtype} == {torch.bfloat16}
    assert all(p.dtype == torch.float32 for p in model.tokenizer.parameters())
    expected = plain.transformer.word_embed.weight.to(torch.bfloat16)
    assert torch.equal(model.transformer.word_embed.weight, expected)
    assert model.fingerprint == plain.fingerprint
    assert torch.equal(plain.transformer.head.weight, weights("transformer")["head.weight"])


def test_fingerprint_tells_models_apart(plain, tmp_path):
    changed = weights("transformer")
    changed["head.bias"] += 1
    save_file(changed, tmp_path / "m.safetensors")
    assert load_model(tmp_path / "m.safetensors", paths()[1], config=plain.config).fingerprint != plain.fingerprint


def test_hosts_bring_layers_and_readers(plain):
    class Linear(torch.nn.Linear):
        """As ComfyUI's where it pages weights: without any before they are loaded."""

        def __init__(self, inputs, outputs, bias=True):
            torch.nn.Module.__init__(self)
            self.in_features, self.out_features, self.weight, self.bias = inputs, outputs, None, None

        def _load_from_state_dict(self, tensors, prefix, *_):
            for name in ("weight", "bias"):
                if prefix + name in tensors:
                    setattr(self, name, torch.nn.Parameter(tensors[prefix + name], requires_grad=False))

    class Operations:
        Conv2d, GroupNorm, LayerNorm, Embedding = (getattr(torch.nn, n) for n in ("Conv2d", "GroupNorm", "LayerNorm", "Embedding"))

    Operations.Linear = Linear
    seen = []

    def reader(path):
        seen.append(path.name)
        return RawCheckpoint(path, load_file(path), {}, mapped=False)

    model = load_model(*paths(), operations=Operations, reader=reader)
    assert isinstance(model.transformer.head, Linear) and len(seen) == 2
    assert_same_weights(model, plain)


def test_bundled_model_draws():
    from ttsvar_core.infinity.text import encode_prompt
    from ttsvar_core.sampling import sample
    from ttsvar_core.state import start

    model, encoder = load_bundled()
    state = sample(start(model, encode_prompt(encoder, "a photo of a red circle"), 2, seed=1), through=2)
    assert state.next_scale == 3 and repr(model).startswith(f"ImageModel({model.name}")


# The unconditional text ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rows, kept", [(40, 40), (512, 512), (700, 512)])
def test_unconditional_text_of_any_length(plain, tmp_path, rows, kept):
    changed = weights("transformer")
    changed["cfg_uncond"] = torch.randn(rows, 128)
    save_file(changed, tmp_path / "m.safetensors")
    with_config(tmp_path, name="m")
    model = load_model(tmp_path / "m.safetensors", paths()[1])
    assert torch.equal(model.transformer.cfg_uncond, changed["cfg_uncond"][:kept])
    assert model.config.transformer.text_maxlen == kept
