"""The example graph that steers another model than Infinity: core nodes sample, the pack's nodes choose."""

from __future__ import annotations

from graph_builder import GAP, HEAD, PAD, Graph, Node
from parts import left_column, published

from ttsvar_core.registry import REWARDS

PROMPT = "a red fox and two white rabbits at a small round table, morning light, photograph"
CHECKPOINT, SAMPLER = "v1-5-pruned-emaonly-fp16.safetensors", "euler_ancestral"
_CLIP = REWARDS["clip"].files[0]  # published as a folder; these are the weights in it
CLIP = {
    "name": "clip-vit-large-patch14/model.safetensors", "url": f"{_CLIP.page}/resolve/main/model.safetensors",
    "directory": _CLIP.folder,
}
PAGE = "https://huggingface.co/Comfy-Org/stable-diffusion-v1-5-archive/resolve/main"  # where the host's own templates have it from
STEPS, LOOK = 20, 8  # how many, and after how many the samples are judged
SAMPLING = (225, 270)  # with the widget under its seed
NOTE = """## Particle steering of any model

Eight latents run 8 of 20 steps. A **cheap verifier** judges what each would become, **Resample Batch** draws four that go on, \
and a **dear verifier** judges only those. Any model will do: double-click *Load any model*.

Two things matter:
- a sampler that adds noise (*euler_ancestral*, *lcm*); under others copies stay copies
- **another noise_seed** for the second half

**Try**
- lambda by hand: *target_ess* 0, among the advanced inputs
- *Cluster Batch* in place of *Resample Batch*: keep what differs

**Files**: a checkpoint, and for the verifiers CLIP and ImageReward in models/reward_models. Whichever is missing, the editor \
lists with its address."""


def load_any(catalogue: dict) -> Graph:
    """What a sampler of the host asks for: model, texts, sampler, both parts of the steps, empty latents; and the prompt."""
    inside = Graph("Load any model", catalogue, first=900)
    words = inside.add("PrimitiveStringMultiline", "Prompt for all", value=inside.takes("prompt", default=PROMPT))
    checkpoint = inside.add("CheckpointLoaderSimple", ckpt_name=inside.takes("checkpoint", default=CHECKPOINT))
    checkpoint.models = [{"name": CHECKPOINT, "url": f"{PAGE}/{CHECKPOINT}", "directory": "checkpoints"}]
    clip = checkpoint.out("CLIP")
    positive = inside.add("CLIPTextEncode", "Positive prompt", clip=clip, text=words)
    negative = inside.add("CLIPTextEncode", "Negative prompt", clip=clip, text="blurry, deformed")
    sampler = inside.add("KSamplerSelect", sampler_name=inside.takes("sampler_name", "sampler", SAMPLER))
    model = checkpoint.out("MODEL")
    steps = inside.add("BasicScheduler", model=model, scheduler="normal", steps=STEPS, denoise=1.0)
    split = inside.add("SplitSigmas", f"{LOOK} steps, then the rest", sigmas=steps, step=LOOK)
    empty = inside.add("EmptyLatentImage", width=512, height=512, batch_size=inside.takes("samples", default=8))
    inside.returns(**{
        "latent": empty, "first steps": split.out("high_sigmas"), "model": model, "positive": positive, "negative": negative,
        "sampler": sampler, "last steps": split.out("low_sigmas"), "vae": checkpoint.out("VAE"), "prompt": words,
    })
    inside.row([words, checkpoint, positive, negative], (0, 0))
    inside.row([empty, sampler, steps, split], (0, 280))
    return inside


def any_model(graph: Graph) -> None:
    """Half the steps, look, resample, the rest; a cheap verifier for all, a dear one for the survivors."""
    load = graph.fold(load_any(graph.catalogue), size=(320, 400))
    shared = {name: load.out(name) for name in ("model", "positive", "negative", "sampler")} | {"cfg": 7.0}

    def sample(title: str, latent: tuple[Node, str], part: str, **inputs) -> Node:
        return graph.add("SamplerCustom", title, SAMPLING, latent_image=latent, sigmas=load.out(part), **inputs, **shared)

    def judge(title: str, latent: tuple[Node, str], verifier: str, key: str, judging: str, **inputs) -> list[Node]:
        decoded = graph.add("VAEDecode", title, samples=latent, vae=load.out("vae"))
        file = CLIP if key == "clip" else published(REWARDS[key].files[0])
        loader = graph.add("TTSVAR_RewardLoader", verifier, reward=REWARDS[key].title, file=file["name"])
        loader.models = [file]
        given = {"images": decoded, "reward": loader, "prompt": load.out("prompt"), **inputs}
        return [decoded, loader, graph.add("TTSVAR_ScoreImages", judging, **given)]

    first = sample(f"Steps 1-{LOOK}", load.out("latent"), "first steps", add_noise=True, noise_seed=1)
    looked = judge("How they would end", first.out("denoised_output"), "Cheap verifier", "clip", "All eight", sort=False)
    cut = graph.add(
        "TTSVAR_ResampleBatch", "8 to 4", (225, 330), scores=looked[2].out("scores"), latent=first.out("output"), keep=4,
        scheme="systematic", target_ess=0.5,
    )
    rest = sample(f"Steps {LOOK + 1}-{STEPS}", cut.out("latent"), "last steps", add_noise=False, noise_seed=2)
    ranked = judge("Finished", rest.out("output"), "Dear verifier", "image-reward", "The four that are left")
    seen = graph.add("PreviewImage", f"After {LOOK} steps", (420, 330), images=looked[2].out("images"))
    prefix = "ttsvar/any_model"
    saved = graph.add("SaveImage", "Best first", (420, 330), images=ranked[2].out("images"), filename_prefix=prefix)
    _place(graph, load, [first, *looked, cut, seen], [rest, *ranked, saved])


def _place(graph: Graph, load: Node, look: list[Node], end: list[Node]) -> None:
    """Two rows beside what is loaded; what skips a node runs in the lanes below its row."""
    x = left_column(graph, NOTE, load, 360) + PAD
    low = _row(graph, "2  Sample, look, resample", "search", look, (x, HEAD))
    last = _row(graph, "3  The rest of the steps", "answer", end, (x, low + 80 + HEAD))
    for place, name in enumerate(("latent_image", "sigmas", "sampler", "negative", "positive", "model")):
        graph.lead([(load.right + 26 + 9 * place, look[0].position[1] + 14 + 20 * place)], (look[0], name))
    for row, bottom in ((look, low), (end, last)):
        graph.lead([(load.right + 80, bottom + 16)], (row[1], "vae"))
        graph.lead([(load.right + 89, bottom + 30)], (row[3], "prompt"))
    graph.lead([(look[0].right + 10, low + 44)], (look[4], "latent"))
    graph.lead([(look[3].right + 14, low + 16)], (look[5], "images"))
    graph.lead([(look[4].right + 14, low + 58)], (end[0], "latent_image"))


def _row(graph: Graph, title: str, kind: str, nodes: list[Node], at: tuple[int, int]) -> int:
    """Nodes in a row and a group, the verifier's loader below what decodes for it; the group's lower edge."""
    sampled, decoded, loader, *others = nodes
    graph.row([sampled, decoded, *others], at, GAP)
    loader.position = (decoded.position[0], decoded.bottom + 50)
    return graph.group(title, kind, nodes)
