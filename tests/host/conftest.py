"""The server most host tests share, and small files under the published names for the Infinity-2B graph."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from comfyui_server import HOW_TO_GET_ONE, ROOT, Server, find_comfyui

GOLDEN = ROOT / "tests" / "golden"
WORDS, BERT_WORDS = "blip.text_encoder.embeddings.word_embeddings.weight", 30524


def pytest_collection_modifyitems(items):
    """Skip what needs a host where there is none."""
    if find_comfyui() is None:
        for item in items:
            if Path(__file__).parent in item.path.parents:
                item.add_marker(pytest.mark.skip(reason=HOW_TO_GET_ONE))


@pytest.fixture(scope="session")
def server(tmp_path_factory):
    """A server with the cache mode that is the default."""
    base = tmp_path_factory.mktemp("comfyui")
    publish_small_files(base / "models")
    (base / "custom_nodes").mkdir()
    shutil.copy(Path(__file__).parent / "tiny_language_model.py", base / "custom_nodes")
    running = Server(base)
    yield running
    running.stop()


def publish_small_8b(models: Path, own: dict) -> None:
    """A folder as Infinity-8B is published in, and its tokenizer."""
    import torch
    from safetensors.torch import load_file

    tiny, folder = GOLDEN / "infinity_tiny_8b_style", models / "infinity" / "infinity_8b_weights"
    folder.mkdir()
    shutil.copy(f"{tiny}.transformer.safetensors", folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(json.loads(tiny.with_suffix(".json").read_text()) | own))
    torch.save(load_file(f"{tiny}.vae.safetensors"), models / "vae" / "infinity_vae_d56_f8_14_patchify.pth")


def publish_small_files(models: Path) -> None:
    """Tiny models under the names the real ones are published with."""
    import reward_files
    import torch
    from safetensors.torch import load_file, save_file

    for name in ("infinity", "vae", "text_encoders", "reward_models"):
        (models / name).mkdir(parents=True, exist_ok=True)
    tiny = GOLDEN / "infinity_tiny_2b_style"
    torch.save(load_file(f"{tiny}.transformer.safetensors"), models / "infinity" / "infinity_2b_reg.pth")
    torch.save(load_file(f"{tiny}.vae.safetensors"), models / "vae" / "infinity_vae_d32reg.pth")
    # Thirteen scales, as the real model has, but small ones.
    sizes = json.loads((GOLDEN / "infinity_tiny_2b_style.json").read_text())
    own = json.loads((ROOT / "ttsvar_core" / "bundled" / "scenes128.json").read_text())
    own = {name: own[name] for name in ("scale_schedule", "rope_reference_grid")}
    sizes |= own
    (models / "infinity" / "infinity_2b_reg.json").write_text(json.dumps(sizes))
    publish_small_8b(models, own)
    encoder, shard = models / "text_encoders" / "flan-t5-xl", "model-00001-of-00002.safetensors"
    shutil.copytree(ROOT / "ttsvar_core" / "bundled" / "scenes128.t5", encoder)
    (encoder / "model.safetensors").rename(encoder / shard)
    names = dict.fromkeys(load_file(encoder / shard), shard)
    (encoder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": names}))
    for tiny_name, published in (("image_reward_tiny", "ImageReward.pt"), ("dinov2_reg_tiny", "dinov2_vitl14_reg4_pretrain.pth")):
        tensors = load_file(GOLDEN / f"{tiny_name}.safetensors")
        if WORDS in tensors:  # the tiny text tower knows fewer words than the tokenizer of the published one
            tensors[WORDS] = torch.nn.functional.pad(tensors[WORDS], (0, 0, 0, BERT_WORDS - len(tensors[WORDS])))
        torch.save(tensors, models / "reward_models" / published)
        shutil.copy(GOLDEN / f"{tiny_name}.json", models / "reward_models" / f"{Path(published).stem}.json")
    (models / "reward_models" / "clip-vit-large-patch14").mkdir()
    save_file(reward_files.open_clip(), models / "reward_models" / "clip-vit-large-patch14" / "model.safetensors")
    publish_small_checkpoint(models / "checkpoints")


def publish_small_checkpoint(folder: Path) -> None:
    """What the graph for any model loads, made by the host's own classes."""
    folder.mkdir(parents=True, exist_ok=True)
    home, python = find_comfyui()
    script, out = Path(__file__).parent / "tiny_checkpoint.py", folder / "v1-5-pruned-emaonly-fp16.safetensors"
    subprocess.run([str(python), str(script), str(out)], cwd=home, check=True, capture_output=True, timeout=300)
