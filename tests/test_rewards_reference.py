"""Reward models against reference numbers, in layouts and sizes of their own, and at full size."""

import logging

import pytest
import reward_files
import torch
from tiny_models import GOLDEN, reference_config

from ttsvar_core.extractors.dinov2 import build_dinov2, normed_patches
from ttsvar_core.reading import UnusableFile
from ttsvar_core.rewards import aesthetic
from ttsvar_core.rewards.clip import CLIP, HPS
from ttsvar_core.rewards.image_reward import build_image_reward
from ttsvar_core.rewards.verify import BOUND, verify_model
from ttsvar_core.vision.clip import VIT_H, build_clip

NAMES = ["image_reward_tiny", "hps_tiny", "aesthetic_tiny", "dinov2_reg_tiny"]


@pytest.mark.parametrize("name", NAMES)
def test_equal_to_reference(name):
    result = verify_model(GOLDEN, reference_config(name), name)
    assert result.measures and max(result.measures.values()) <= BOUND == 1e-4
    assert result.ok


@pytest.mark.parametrize("name", NAMES)
def test_a_changed_weight_is_noticed(name, tmp_path):
    from safetensors.torch import load_file, save_file

    tensors = load_file(GOLDEN / f"{name}.safetensors")
    last = sorted(key for key in tensors if (key.endswith("weight") and "norm" in key.lower()) or "ln_post" in key)[-1]
    tensors[last] = tensors[last] + 0.05 * torch.randn(tensors[last].shape)
    save_file(tensors, tmp_path / f"{name}.safetensors")
    (tmp_path / f"{name}.golden.safetensors").symlink_to(GOLDEN / f"{name}.golden.safetensors")
    assert not verify_model(tmp_path, reference_config(name), name).ok


def test_verify_says_what_is_wrong(tmp_path):
    with pytest.raises(ValueError, match=r"kind 'other'.*image_reward"):
        verify_model(tmp_path, {"kind": "other"}, "x")
    with pytest.raises(FileNotFoundError, match=r"x\.safetensors"):
        verify_model(tmp_path, {"kind": "hps"}, "x")


def test_full_size_layouts_load_completely(caplog):
    """Names and shapes of the published files; 1.7 billion zeros, none of which may be missing or left over."""
    with caplog.at_level(logging.WARNING):
        tensors, known = reward_files.full_size("image_reward")
        model, size = build_image_reward(tensors, {}, "ImageReward.pt")
        assert (size, known["mean"], known["std"]) == (224, model.mean, model.std)
        assert model.vision.config.num_attention_heads == 16
        assert model.text.config.num_attention_heads == known["med_config"]["num_attention_heads"]
        tensors, known = reward_files.full_size("hps_v2_1")
        clip = build_clip(tensors, {}, "HPS_v2.1_compressed.pt", HPS, sizes=VIT_H)
        assert (clip.image_size, clip.text_length, clip.vocabulary) == (224, 77, 49408)
        vision, text = clip.network.clip.config.vision_config, clip.network.clip.config.text_config
        assert vision.num_attention_heads == 1280 // known["config"]["vision_cfg"]["head_width"]
        assert text.num_attention_heads == known["config"]["text_cfg"]["heads"]
        tensors, _ = reward_files.full_size("dinov2_vitl14_reg")
        assert build_dinov2(tensors, {}, "dinov2_vitl14_reg4_pretrain.pth").config.num_attention_heads == 16
    assert not caplog.records


@pytest.mark.parametrize(("width", "heads", "gated"), [(384, 6, False), (768, 12, False), (1536, 24, True)])
def test_dinov2_of_every_published_width(width, heads, gated):
    model = build_dinov2(reward_files.dinov2(width, depth=1, grid=2, gated=gated), {}, "x")
    assert model.config.num_attention_heads == heads
    with torch.no_grad():
        assert normed_patches(model, torch.randn(1, 3, 28, 42)).shape == (1, 6, width)


@pytest.mark.parametrize("gated", [False, True])
def test_dinov2_layouts_agree(gated):
    tensors = reward_files.dinov2(48, depth=3, grid=3, registers=2, gated=gated)
    model = build_dinov2(tensors, {"num_attention_heads": 3}, "hub")
    published = {}
    for name, tensor in tensors.items():
        name = name.replace("pos_embed", "embeddings.position_embeddings").replace("patch_embed.", "embeddings.patch_embeddings.")
        name = name.replace("blocks.", "encoder.layer.").replace("mlp.w12", "mlp.weights_in").replace("mlp.w3", "mlp.weights_out")
        name = name.replace("ls1.gamma", "layer_scale1.lambda1").replace("ls2.gamma", "layer_scale2.lambda1")
        name = name.replace("attn.proj", "attention.output.dense").replace("embeddings.proj", "embeddings.projection")
        name = "layernorm." + name[5:] if name.startswith("norm.") else name
        name = "embeddings." + name if name.endswith("_token") or name == "register_tokens" else name
        if "attn.qkv" in name:
            rows = zip(("query", "key", "value"), tensor.chunk(3), strict=True)
            published |= {name.replace("attn.qkv", f"attention.attention.{part}"): block for part, block in rows}
        else:
            published[name.replace("patch_embeddings.proj.", "patch_embeddings.projection.")] = tensor
    again = build_dinov2(published, {"num_attention_heads": 3}, "published")
    pixels = torch.randn(2, 3, 56, 42)
    with torch.no_grad():
        assert torch.equal(normed_patches(model, pixels), normed_patches(again, pixels))


def test_dinov2_without_registers_is_refused():
    tensors = reward_files.dinov2()
    del tensors["register_tokens"]
    with pytest.raises(UnusableFile, match=r"without registers.*github\.com/facebookresearch/dinov2"):
        build_dinov2(tensors, {}, "dinov2_vitl14_pretrain.pth")


def attention_by_hand(x, tensors, prefix, heads, causal):
    """One residual block of open_clip, written out: the oracle for sizes the reference files do not have."""
    width = x.shape[-1]
    norm = [torch.nn.functional.layer_norm(x, (width,), tensors[prefix + "ln_1.weight"], tensors[prefix + "ln_1.bias"])]
    q, k, v = (norm[0] @ tensors[prefix + "attn.in_proj_weight"].T + tensors[prefix + "attn.in_proj_bias"]).chunk(3, dim=-1)
    split = [part.unflatten(-1, (heads, width // heads)).transpose(1, 2) for part in (q, k, v)]
    scores = split[0] @ split[1].transpose(-1, -2) / (width // heads) ** 0.5
    if causal:
        scores = scores + torch.full(scores.shape[-2:], float("-inf")).triu(1)
    mixed = (scores.softmax(dim=-1) @ split[2]).transpose(1, 2).flatten(2)
    x = x + mixed @ tensors[prefix + "attn.out_proj.weight"].T + tensors[prefix + "attn.out_proj.bias"]
    y = torch.nn.functional.layer_norm(x, (width,), tensors[prefix + "ln_2.weight"], tensors[prefix + "ln_2.bias"])
    y = torch.nn.functional.gelu(y @ tensors[prefix + "mlp.c_fc.weight"].T + tensors[prefix + "mlp.c_fc.bias"])
    return x + y @ tensors[prefix + "mlp.c_proj.weight"].T + tensors[prefix + "mlp.c_proj.bias"]


@pytest.mark.parametrize(("vision", "text", "patch", "grid"), [((96, 1), (64, 3), 4, 5), ((128, 2), (192, 1), 16, 2)])
def test_clip_of_other_sizes_against_its_formulas(vision, text, patch, grid):
    tensors = reward_files.open_clip(vision, text, patch, grid, vocabulary=500)
    config = {"vision_cfg": {"head_width": 32}, "text_cfg": {"heads": 2}}
    clip = build_clip(tensors, config, "x", CLIP)
    pixels, ids = torch.randn(2, 3, clip.image_size, clip.image_size), torch.tensor([[498, 7, 3, 499, 0, 0]])
    with torch.no_grad():
        x = torch.nn.functional.conv2d(pixels, tensors["visual.conv1.weight"], stride=patch).flatten(2).transpose(1, 2)
        x = torch.cat([tensors["visual.class_embedding"].expand(2, 1, -1), x], dim=1) + tensors["visual.positional_embedding"]
        width = (vision[0],)
        x = torch.nn.functional.layer_norm(x, width, tensors["visual.ln_pre.weight"], tensors["visual.ln_pre.bias"])
        for block in range(vision[1]):
            x = attention_by_hand(x, tensors, f"visual.transformer.resblocks.{block}.", vision[0] // 32, causal=False)
        x = torch.nn.functional.layer_norm(x[:, 0], width, tensors["visual.ln_post.weight"], tensors["visual.ln_post.bias"])
        image = torch.nn.functional.normalize(x @ tensors["visual.proj"], dim=-1)
        t = tensors["token_embedding.weight"][ids] + tensors["positional_embedding"][: ids.shape[1]]
        for block in range(text[1]):
            t = attention_by_hand(t, tensors, f"transformer.resblocks.{block}.", 2, causal=True)
        t = torch.nn.functional.layer_norm(t, (text[0],), tensors["ln_final.weight"], tensors["ln_final.bias"])
        wanted = torch.nn.functional.normalize(t[:, 3] @ tensors["text_projection"], dim=-1)
        assert (clip.network(pixels) - image).abs().max() <= 1e-4
        assert (clip.network.embed_text(ids) - wanted).abs().max() <= 1e-4
        assert torch.allclose(clip.network.embed_text(ids[:, :4]), wanted, atol=1e-6), "padding must not matter"


def test_clip_layouts_agree():
    from transformers import CLIPConfig, CLIPModel

    tensors = reward_files.open_clip(vocabulary=500)
    ours = build_clip(tensors, {}, "x", CLIP).network
    saved = {name: tensor for name, tensor in ours.clip.state_dict().items() if not name.endswith("position_ids")}
    again = build_clip(saved, {"vision_config": {"hidden_act": "gelu"}}, "x", CLIP).network
    wrapped = {f"text.{name}" if not name.startswith(("visual.", "logit")) else name: value for name, value in tensors.items()}
    custom = build_clip(wrapped, {}, "x", CLIP).network
    pixels = torch.randn(1, 3, 32, 32)
    with torch.no_grad():
        wanted = ours(pixels)
        assert torch.equal(again(pixels), wanted)
        assert torch.equal(custom(pixels), wanted)
        assert torch.equal(custom.embed_text(torch.tensor([[1, 499]])), ours.embed_text(torch.tensor([[1, 499]])))
    assert isinstance(ours.clip, CLIPModel) and isinstance(ours.clip.config, CLIPConfig)


@pytest.mark.parametrize(
    ("config", "open_clip", "activation", "expected"),
    [
        ({}, True, "auto", "gelu"),
        ({}, False, "auto", "quick_gelu"),
        ({}, False, "gelu", "gelu"),
        ({"vision_config": {"hidden_act": "gelu"}}, False, "auto", "gelu"),
        ({"vision_config": {}}, False, "auto", "quick_gelu"),
        ({"model_cfg": {"vision_cfg": {}, "quick_gelu": True}}, True, "auto", "quick_gelu"),
        ({"activation": "quick_gelu"}, True, "auto", "quick_gelu"),
    ],
)
def test_activation_follows_configuration_then_publisher(config, open_clip, activation, expected):
    tensors = reward_files.open_clip(vocabulary=50)
    if not open_clip:
        tensors = dict(build_clip(tensors, {}, "x", CLIP).network.clip.state_dict())
    clip = build_clip(tensors, config, "x", CLIP, activation)
    assert clip.network.clip.config.vision_config.hidden_act == clip.network.clip.config.text_config.hidden_act == expected


def test_siglip_so400m_keeps_its_384_pixels():
    shapes = reward_files.siglip(width=32, depth=1, patch=14, grid=27)
    model, size = aesthetic.build_aesthetic(shapes | reward_files.aesthetic_head(32), {}, "x")
    assert size == 384
    with torch.no_grad():
        assert model.embed(torch.zeros(1, 3, 384, 384)).shape == (1, 32)
