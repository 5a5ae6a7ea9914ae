"""Particle steering of another model: a small Stable Diffusion 1.5 of random weights, loaded and sampled by the host itself."""

from __future__ import annotations

import copy

import pytest
from comfyui_server import cached, downstream, numbers
from safetensors.torch import load_file

SAMPLES = 3


def small(prompt: dict, sampler: str) -> dict:
    """The example graph on few small latents that all go on, few of them different; both latents saved."""
    prompt = copy.deepcopy(prompt)
    (empty,), (cut,) = numbers(prompt, "EmptyLatentImage"), numbers(prompt, "TTSVAR_ResampleBatch")
    prompt[empty]["inputs"] |= {"width": 32, "height": 32, "batch_size": SAMPLES}
    prompt[numbers(prompt, "KSamplerSelect")[0]]["inputs"]["sampler_name"] = sampler
    prompt[numbers(prompt, "BasicScheduler")[0]]["inputs"]["steps"] = 3
    prompt[numbers(prompt, "SplitSigmas")[0]]["inputs"]["step"] = 1
    prompt[cut]["inputs"] |= {"keep": 0, "target_ess": 0.4, "scheme": "residual"}
    samplers = numbers(prompt, "SamplerCustom")
    for node in samplers:
        prompt[node]["inputs"]["cfg"] = 1.0  # half the work
    for name, node in (("cut", cut), ("end", samplers[-1])):
        prompt[f"{name}"] = {"class_type": "SaveLatent", "inputs": {"samples": [node, 0], "filename_prefix": f"{sampler}/{name}"}}
    return prompt


def different(server, name: str) -> int:
    """How many different latents the newest file of a name holds."""
    path = max((server.base / "output").glob(f"{name}*"), key=lambda path: path.stat().st_mtime_ns)
    samples = load_file(path)["latent_tensor"]
    assert len(samples) == SAMPLES and samples.isfinite().all()
    return len(samples.flatten(1).unique(dim=0))


@pytest.mark.parametrize("sampler", ["euler_ancestral", "euler"])
def test_copies_part_under_samplers_that_add_noise_and_no_others(server, sampler):
    prompt = small(server.prompt_of("13_any_model"), sampler)
    shown = server.pictures(server.run(prompt))
    assert [len(shown[numbers(prompt, kind)[0]]) for kind in ("PreviewImage", "SaveImage")] == [SAMPLES, SAMPLES]
    kept = different(server, f"{sampler}/cut")
    assert 1 <= kept < SAMPLES, "nothing was copied, so nothing is tested"
    assert different(server, f"{sampler}/end") == (SAMPLES if sampler == "euler_ancestral" else kept)


def test_another_lambda_samples_only_the_rest(server):
    prompt = small(server.prompt_of("13_any_model"), "euler_ancestral")
    server.run(prompt)
    (cut,) = numbers(prompt, "TTSVAR_ResampleBatch")
    prompt[cut]["inputs"]["target_ess"] = 0.7
    assert cached(server.run(prompt)) == set(prompt) - downstream(prompt, cut)


@pytest.mark.parametrize("noise", ["disable", "enable"])
def test_the_advanced_sampler_does_as_well_and_copies_draw_noise_of_their_own(server, noise):
    """Under euler three copies of one latent stay one, unless the second sampler adds noise: by batch_index, where they differ."""
    steps = {"steps": 3, "cfg": 1.0, "sampler_name": "euler", "scheduler": "normal", "model": ["1", 0]}
    steps |= {"positive": ["2", 0], "negative": ["2", 0]}
    first = {"add_noise": "enable", "noise_seed": 1, "start_at_step": 0, "end_at_step": 1, "return_with_leftover_noise": "enable"}
    rest = {"add_noise": noise, "noise_seed": 2, "start_at_step": 1, "end_at_step": 9, "return_with_leftover_noise": "disable"}
    drawn = {"keep": 0, "potential": "value", "lambda_": 50.0, "scheme": "multinomial", "target_ess": 0.0, "seed": 0}
    server.run({
        "1": {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": "v1-5-pruned-emaonly-fp16.safetensors"}},
        "2": {"class_type": "CLIPTextEncode", "inputs": {"clip": ["1", 1], "text": "a fox"}},
        "3": {"class_type": "EmptyLatentImage", "inputs": {"width": 32, "height": 32, "batch_size": SAMPLES}},
        "4": {"class_type": "KSamplerAdvanced", "inputs": {**steps, **first, "latent_image": ["3", 0]}},
        "5": {"class_type": "PrimitiveStringMultiline", "inputs": {"value": "0, 9, 0"}},
        "6": {"class_type": "TTSVAR_ResampleBatch", "inputs": {**drawn, "scores": ["5", 0], "latent": ["4", 0]}},
        "7": {"class_type": "KSamplerAdvanced", "inputs": {**steps, **rest, "latent_image": ["6", 0]}},
        "8": {"class_type": "SaveLatent", "inputs": {"samples": ["7", 0], "filename_prefix": f"advanced/{noise}"}},
    })
    assert different(server, f"advanced/{noise}") == (SAMPLES if noise == "enable" else 1)
