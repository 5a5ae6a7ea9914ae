"""Which samples go on: the selectors of the search, and your own eyes."""

import re

from comfy_api.latest import io

from .host import device, page
from .live import grow
from .sample import decoded
from .types import CATEGORY, MOST_SAMPLES, Extractor, State, reason, resampling


def _keep(default: int):
    return io.Int.Input("keep", default=default, min=1, max=MOST_SAMPLES, tooltip="How many samples go on.")


def told(node, before, state, selection) -> io.NodeOutput:
    """The outputs of a selector that took the state ``before``; it says why, and the views after it show the tree so far."""
    page.say(selection.reason)
    grow(node, state, before)
    return io.NodeOutput(state, selection.reason)


class ClusterSelector(io.ComfyNode):
    """Keeps samples that differ."""

    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="TTSVAR_ClusterSelector",
            display_name="Cluster Selector",
            category=CATEGORY,
            description="Keeps samples that differ: clusters what they look like and keeps the one nearest to each centre. "
            "The paper does this early, at scales 2 and 5, when layouts form and rewards cannot judge yet.",
            search_aliases=["diversity", "k-means", "cluster", "dinov2", "filter images", "tts-var", "多样性"],
            inputs=[
                State.Input("state", tooltip="A state after an early scale."),
                Extractor.Input("extractor", tooltip="What samples are compared by, from Extractor Loader."),
                _keep(6),
            ],
            outputs=[State.Output("state", tooltip="The samples kept."), reason()],
            hidden=[io.Hidden.prompt],
        )

    @classmethod
    def execute(cls, state, extractor, keep) -> io.NodeOutput:
        from ..ttsvar_core.search.cluster import Cluster
        from ..ttsvar_core.search.view import act

        stage = Cluster(state.last_scale, keep)
        return told(cls, state, *act(state, stage, extractor=device.InTurn(extractor), decode=decoded))


class PotentialResampler(io.ComfyNode):
    """Draws survivors by what their scores promise."""

    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="TTSVAR_PotentialResampler",
            display_name="Potential Resampler",
            category=CATEGORY,
            description="Draws the samples that go on by a potential of their scores; a good sample may go on twice. "
            "Put a Reward Scorer right before it. The paper does this at scales 6 and 9.",
            search_aliases=["importance sampling", "resample", "lambda", "particle filter", "smc", "tts-var", "粒子滤波"],
            inputs=[
                State.Input("state", tooltip="A state that was scored at its last scale."),
                _keep(2),
                *resampling(),
                io.Float.Input(
                    "ess_threshold", default=0.0, min=0.0, max=1.0, step=0.05, advanced=True, display_mode=io.NumberDisplay.slider,
                    tooltip="Above 0: while the effective sample size is at least this share of the samples, samples are only "
                    "cut, without copies.",
                ),
            ],
            outputs=[State.Output("state", tooltip="The samples that go on."), reason()],
            hidden=[io.Hidden.prompt],
        )

    @classmethod
    def execute(cls, state, keep, potential, lambda_, scheme, target_ess, ess_threshold) -> io.NodeOutput:
        from ..ttsvar_core.search.resample import Resample
        from ..ttsvar_core.search.view import act

        stage = Resample(state.last_scale, keep, potential, lambda_, scheme, ess_threshold or None, target_ess or None)  # 0: off
        return told(cls, state, *act(state, stage))


class SelectBest(io.ComfyNode):
    """Keeps the samples with the highest scores."""

    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="TTSVAR_SelectBest",
            display_name="Select Best",
            category=CATEGORY,
            description="Keeps the samples scored highest at the last scale, best first. "
            "A search ends with this; after a Reward Scorer on full samples it is Best-of-N.",
            search_aliases=["best of n", "top k", "argmax", "pick best", "seed search", "tts-var", "最佳"],
            inputs=[State.Input("state", tooltip="A state that was scored at its last scale."), _keep(1)],
            outputs=[State.Output("state", tooltip="The best samples, best first."), reason()],
            hidden=[io.Hidden.prompt],
        )

    @classmethod
    def execute(cls, state, keep) -> io.NodeOutput:
        from ..ttsvar_core.search.score import best

        selection = best(state, keep)
        return told(cls, state, state.select(selection), selection)


class SelectByHand(io.ComfyNode):
    """Keeps the samples you name."""

    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="TTSVAR_SelectByHand",
            display_name="Select by Hand",
            category=CATEGORY,
            description="Keeps the samples you name: look at the sketches in Inspect State, type the numbers you like, run on. "
            "What was sampled before is not sampled again.",
            search_aliases=["manual", "choose image", "select images", "pick", "human in the loop", "tts-var", "挑选"],
            inputs=[
                State.Input("state", tooltip="A state after any scale."),
                io.String.Input(
                    "numbers", default="0",
                    tooltip="Numbers as the contact sheet shows them, counted from 0: 1, 4, 6 or 0-3. A number may be named "
                    "twice; the order is kept.",
                ),
            ],
            outputs=[State.Output("state", tooltip="The samples you named."), reason()],
            hidden=[io.Hidden.prompt],
        )

    @classmethod
    def execute(cls, state, numbers) -> io.NodeOutput:
        from ..ttsvar_core.selection import choose

        selection = choose(rows(numbers, state.samples), state.samples)
        return told(cls, state, state.select(selection), selection)


def rows(text: str, samples: int) -> list[int]:
    """Row numbers below ``samples`` from text such as "1, 4, 6" or "#0-3". Raises ValueError for anything else, before it makes
    a list of a range."""
    chosen: list[int] = []
    for word in re.sub(r"\s*-\s*", "-", re.sub(r"[,;#]", " ", text)).split():
        found = re.fullmatch(r"(\d{1,18})(?:-(\d{1,18}))?", word)
        if not found:
            raise ValueError(f"Cannot read {word[:40]!r}; name samples by number, for example 1, 4, 6 or 0-3.")
        first, last = int(found[1]), int(found[2] or found[1])
        if last < first:
            raise ValueError(f"The range {word!r} runs backwards; write {last}-{first}.")
        if last >= samples:
            raise ValueError(f"There is no sample {last}: there are {samples} samples, name rows from 0 to {samples - 1}.")
        chosen.extend(range(first, last + 1))
        if len(chosen) > MOST_SAMPLES:
            raise ValueError(f"More than {MOST_SAMPLES} samples are named; name at most {MOST_SAMPLES}, repetitions counted.")
    return chosen


NODES = [ClusterSelector, PotentialResampler, SelectBest, SelectByHand]
