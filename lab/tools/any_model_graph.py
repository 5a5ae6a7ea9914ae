"""The example graph that steers another model than Infinity: core nodes sample, the pack's nodes choose."""

from __future__ import annotations

from graph_builder import Graph, Node

PROMPT = "a red fox and two white rabbits at a small round table, morning light, photograph"
NOTE = """## Particle steering of any model

Eight latents run the first 8 of 20 steps. *denoised_output* shows what each would become: decoded, judged by a **cheap verifier** \
(CLIPScore); **Resample Batch** draws four that go on. A **dear verifier** (ImageReward) judges only those, finished, the best \
first. Nothing here knows which model draws: take the loader and the sampler's settings of yours.

Two things matter:
- the sampler must add noise (*euler_ancestral*, the *sde* ones, *lcm*): copies of one latent stay copies under euler or dpmpp_2m
- the second sampler needs **another noise_seed** than the first

**Try**
- lambda by hand: set *target_ess* to 0
- a second look: split the later sigmas, resample again with the scores of the first as *earlier_scores*, potential *max*
- *Cluster Batch* after 5 steps, with the latent pool and 12 samples
- *yes or no* with a vision-language model as the dear verifier

**Files**: any checkpoint; clip-vit-large-patch14 and ImageReward.pt in models/reward_models."""


def any_model(graph: Graph) -> None:
    """Half the steps, look, resample, the rest; a cheap verifier for all, a dear one for the survivors."""
    checkpoint = graph.add("CheckpointLoaderSimple", ckpt_name="v1-5-pruned-emaonly-fp16.safetensors")
    model, clip, vae = (checkpoint.out(name) for name in ("MODEL", "CLIP", "VAE"))
    prompt = graph.add("PrimitiveStringMultiline", "Prompt for all", value=PROMPT)
    texts = {
        "positive": graph.add("CLIPTextEncode", clip=clip, text=prompt),
        "negative": graph.add("CLIPTextEncode", "Negative prompt", clip=clip, text="blurry, deformed"),
    }
    empty = graph.add("EmptyLatentImage", width=512, height=512, batch_size=8)
    sampler = graph.add("KSamplerSelect", sampler_name="euler_ancestral")
    steps = graph.add("BasicScheduler", model=model, scheduler="normal", steps=20, denoise=1.0)
    split = graph.add("SplitSigmas", sigmas=steps, step=8)
    shared = {"model": model, "sampler": sampler, "cfg": 7.0, **texts}

    def sample(title: str, latent, sigmas: str, **inputs) -> Node:
        return graph.add("SamplerCustom", title, latent_image=latent, sigmas=split.out(sigmas), **inputs, **shared)

    first = sample("Steps 1-8", empty, "high_sigmas", add_noise=True, noise_seed=1)
    sketches = graph.add("VAEDecode", "What they would become", samples=first.out("denoised_output"), vae=vae)
    cheap = graph.add("TTSVAR_RewardLoader", "Cheap verifier", reward="CLIPScore")
    judged = graph.add("TTSVAR_ScoreImages", "All eight", images=sketches, reward=cheap, prompt=prompt, sort=False)
    cut = graph.add(
        "TTSVAR_ResampleBatch", "8 to 4", scores=judged.out("scores"), latent=first.out("output"), keep=4, scheme="systematic",
        target_ess=0.5,
    )
    rest = sample("Steps 9-20", cut.out("latent"), "low_sigmas", add_noise=False, noise_seed=2)
    decoded = graph.add("VAEDecode", samples=rest.out("output"), vae=vae)
    dear = graph.add("TTSVAR_RewardLoader", "Dear verifier", reward="ImageReward")
    ranked = graph.add("TTSVAR_ScoreImages", "The four that are left", images=decoded, reward=dear, prompt=prompt)
    saved = graph.add("SaveImage", "Best first", images=ranked.out("images"), filename_prefix="ttsvar/any_model")
    seen = graph.add("PreviewImage", "After 8 steps", images=judged.out("images"))
    note = graph.note(NOTE, 560)
    begin = [[checkpoint, sampler, steps, split], [prompt, *texts.values()], [empty, cheap, dear]]
    right, low = graph.group("1  Any model, two verifiers", "load", begin, (0, 0))
    _, lower = graph.group("Read me", "look", [[note]], (right + 40, 0))
    top, look = max(low, lower) + 40, [[first, sketches], [judged, cut], [seen]]
    right, _ = graph.group("2  Sample, look, resample", "search", look, (0, top))
    graph.group("3  The rest of the steps", "answer", [[rest, decoded, ranked], [saved]], (right + 40, top))
