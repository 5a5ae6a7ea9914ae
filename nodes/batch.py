"""The search for any model: its selections over the host's own batches of pictures and latents."""

from comfy_api.latest import io

from .batch_rows import latent_rows, select_rows
from .host import device
from .score import finite
from .types import CATEGORY, MOST_SAMPLES, Extractor, reason, resampling, seed, the_batch

FOLDER = f"{CATEGORY}/any model"


def _batches():
    """The two kinds of batches, of which one suffices."""
    return [
        io.Latent.Input("latent", optional=True, tooltip="Latents of any model; all that belongs to them goes along."),
        io.Image.Input("images", optional=True, tooltip="The pictures of the same samples in the same order, if you need them."),
    ]


def _outputs(*more):
    return [
        io.Latent.Output("latent", tooltip="The latents of the samples that go on, if latents came."),
        io.Image.Output("images", tooltip="The pictures of the samples that go on, if pictures came."),
        *more,
        reason(),
    ]


class ResampleBatch(io.ComfyNode):
    """Draws survivors of any batch by what their scores promise."""

    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="TTSVAR_ResampleBatch",
            display_name="Resample Batch",
            category=FOLDER,
            description="Draws the latents or pictures that go on by their scores; a good one may go on twice. Halfway through any "
            "model's sampling this is particle steering: sample, decode, score, resample the latents, sample on. Copies part only "
            "under samplers that add noise.",
            search_aliases=["particle filter", "smc", "steering", "resample latents", "fk steering", "tts-var", "粒子滤波"],
            is_input_list=True,
            inputs=[
                io.AnyType.Input(
                    "scores",
                    tooltip="One number per sample in the order of the batch: from Score Images with sort off, or from any node.",
                ),
                *_batches(),
                io.Int.Input(
                    "keep", default=0, min=0, max=MOST_SAMPLES, tooltip="How many go on, copies counted; 0: as many as came."
                ),
                *resampling(),
                seed("Seed of the draw. Give each Resample Batch of a graph its own."),
                io.AnyType.Input(
                    "earlier_scores", optional=True,
                    tooltip="Scores of these samples at an earlier look, for diff, max and sum: the scores that the Resample Batch "
                    "before gave.",
                ),
            ],
            outputs=_outputs(io.Float.Output("scores", is_output_list=True, tooltip="The scores of the samples that go on.")),
        )

    @classmethod
    def execute(
        cls, scores, keep, potential, lambda_, scheme, target_ess, seed, latent=None, images=None, earlier_scores=None
    ) -> io.NodeOutput:
        import torch

        from ..ttsvar_core.rng import selection_generator
        from ..ttsvar_core.search.resample import Resample

        looks = [finite(each) for each in (earlier_scores, scores) if each is not None]
        latent, images = the_batch(latent, "latent"), the_batch(images, "images")
        samples = _samples(latent, images, *looks)
        last = len(looks) - 1
        stage = Resample(last, keep[0] or samples, potential[0], lambda_[0], scheme[0], target_ess=target_ess[0] or None)
        stage.check(samples, scored=last > 0)
        selection = stage.draw(torch.stack(looks, dim=1), last, selection_generator(seed[0], last))
        rows = selection.ancestors.tolist()
        return io.NodeOutput(*_taken(latent, images, rows), looks[-1][rows].tolist(), selection.reason)


class ClusterBatch(io.ComfyNode):
    """Keeps samples of any batch that differ."""

    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="TTSVAR_ClusterBatch",
            display_name="Cluster Batch",
            category=FOLDER,
            description="Keeps latents or pictures of any model that differ: clusters what they look like, keeps the one nearest "
            "to each centre. Early in the sampling it drops the copies of one layout before they cost anything.",
            search_aliases=["diversity", "k-means", "deduplicate", "different pictures", "dinov2", "tts-var", "去重"],
            inputs=[
                Extractor.Input(
                    "extractor",
                    tooltip="What samples are compared by, from Extractor Loader. The latent pool compares latents, or the coarse "
                    "colours of pictures where no latents are wired; the networks look at pictures.",
                ),
                *_batches(),
                io.Int.Input("keep", default=4, min=1, max=MOST_SAMPLES, tooltip="How many samples go on."),
                seed("Seed of the clustering's starting points."),
            ],
            outputs=_outputs(),
        )

    @classmethod
    def execute(cls, extractor, keep, seed, latent=None, images=None) -> io.NodeOutput:
        from ..ttsvar_core.rng import selection_generator
        from ..ttsvar_core.search.cluster import Cluster
        from ..ttsvar_core.search.view import described

        samples, stage = _samples(latent, images), Cluster(0, keep)
        stage.check(samples, scored=False)
        seen, looker = _seen(extractor, latent, images), device.InTurn(extractor)
        selection = stage.draw(samples, lambda: described(looker, seen), looker, selection_generator(seed, 0))
        return io.NodeOutput(*_taken(latent, images, selection.ancestors.tolist()), selection.reason)


def _seen(extractor, latent, images):
    """What an extractor looks at. Raises ValueError where it needs pictures and none came."""
    if extractor.looks_at == "images":
        if images is None:
            raise ValueError(f"{extractor.name} looks at pictures; decode the latents and wire them to images as well.")
        return images[..., :3].float()
    if latent is None:
        return images.movedim(-1, 1)
    samples = latent["samples"]
    samples = samples.unbind()[0] if getattr(samples, "is_nested", False) else samples
    return samples.flatten(1, -3) if samples.ndim > 3 else samples[:, None]


def _samples(latent, images, *looks) -> int:
    """How many samples came. Raises ValueError for none, and where latents, pictures and scores are not equally many."""
    counts = {"latents": latent and latent_rows(latent), "pictures": None if images is None else len(images)}
    counts = {name: count for name, count in counts.items() if count is not None}
    if not counts:
        raise ValueError("Nothing came to choose from; wire a latent, images, or both.")
    counts |= {("scores", "earlier scores")[place]: len(look) for place, look in enumerate(reversed(looks))}
    if len(set(counts.values())) > 1:
        told = ", ".join(f"{count} {name}" for name, count in counts.items())
        raise ValueError(f"{told} came; they belong together only if they are equally many.")
    return next(iter(counts.values()))


def _taken(latent, images, rows: list[int]) -> tuple:
    """The latent and the pictures of the rows, where they came."""
    return latent and select_rows(latent, rows), None if images is None else images[rows]


NODES = [ResampleBatch, ClusterBatch]
