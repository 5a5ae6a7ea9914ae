"""Rewards at work: on a state, on any images, and scores that come from other nodes."""

import re
from functools import partial

from comfy_api.latest import io

from .host import device, page
from .sample import decoded
from .types import CATEGORY, EXAMPLE, Reward, State, the_state

_NUMBER = re.compile(r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?")


class RewardScorer(io.ComfyNode):
    """Scores every sample of a state as it looks now."""

    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="TTSVAR_RewardScorer",
            display_name="Reward Scorer",
            category=CATEGORY,
            description="Decodes every sample as it looks now and scores it against the prompt. "
            "The scores travel with the state; resamplers and Select Best use them.",
            search_aliases=["reward", "score", "image reward", "hps", "clip score", "tts-var", "打分"],
            inputs=[
                State.Input("state", tooltip="A state after at least one scale; scores mean something from about scale 6 on."),
                Reward.Input("reward", tooltip="From Reward Loader or Blend Rewards."),
                io.Boolean.Input(
                    "foreseen", default=False, optional=True,
                    tooltip="Score what the samples are foretold to become, not how they look so far. Rewards judge that far "
                    "better; the bundled model foretells after scales 6 and 7, others once they were taught to.",
                ),
            ],
            outputs=[
                State.Output("state", tooltip="The same samples, their scores at this scale noted."),
                io.Float.Output("scores", is_output_list=True, tooltip="One score per sample, in the order of the state."),
            ],
        )

    @classmethod
    def execute(cls, state, reward, foreseen=False) -> io.NodeOutput:
        from ..ttsvar_core.foresight import check_foresight
        from ..ttsvar_core.rewards.base import check_prompt
        from ..ttsvar_core.search.score import Score
        from ..ttsvar_core.search.view import act

        check_prompt(reward, state.conditioning.prompt)
        if foreseen:
            check_foresight(state)
        decode = partial(decoded, foreseen=foreseen)
        state, _ = act(state, Score(state.last_scale), device.InTurn(reward), decode=decode)
        scores = list(state.scores_at(state.last_scale))
        best = max(scores)
        page.say(f"{reward.name}: best {best:.3f} (number {scores.index(best)}), mean {sum(scores) / len(scores):.3f}")
        return io.NodeOutput(state, scores, ui=told(state.answers))


class AttachScores(io.ComfyNode):
    """Takes scores that any other node computed."""

    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="TTSVAR_AttachScores",
            display_name="Attach Scores",
            category=CATEGORY,
            description="Notes scores from other nodes on a state, one per sample: a bridge to every scoring node there is. "
            "Decode State, score the pictures with any node, and bring the numbers back here.",
            search_aliases=["bridge", "custom score", "external reward", "scores from nodes", "tts-var", "外部分数"],
            is_input_list=True,
            inputs=[
                State.Input("state", tooltip="The state whose pictures were scored."),
                io.AnyType.Input(
                    "scores",
                    tooltip="One number per sample in the order of the pictures: a list of numbers, a tensor, or text with "
                    "the numbers in it. Higher is better.",
                ),
            ],
            outputs=[State.Output("state", tooltip="The same samples with these scores at the scale they are at.")],
        )

    @classmethod
    def execute(cls, state, scores) -> io.NodeOutput:
        return io.NodeOutput(the_state(state).with_scores(finite(scores)))


def finite(scores):
    """(P,) float32 of all numbers in a value. Raises ValueError, naming the sample, for one that is not finite there."""
    import torch

    found = torch.tensor(numbers(scores), dtype=torch.float64)
    wrong = ~found.float().isfinite()
    if wrong.any():
        row = int(wrong.int().argmax())
        raise ValueError(f"The score of sample {row} is {found[row]:g}; give a finite number below 3e38.")
    return found.float()


def told(answers, rows=None) -> dict | None:
    """What a node shows of the questions behind its scores: in words, and as a table (see `Answers.table`)."""
    from ..ttsvar_core.rewards.base import answer_lines

    if answers is None or not (lines := answer_lines(answers, rows)):
        return None
    return {"text": ["\n".join(lines)], "answers": (answers if rows is None else answers.select(rows)).table()}


def numbers(value) -> list[float]:
    """All numbers in a value: a number, text, a tensor or array, or lists of these. Raises ValueError for anything else."""
    if isinstance(value, bool) or value is None:
        raise ValueError(f"Scores are numbers; got {value!r}.")
    if isinstance(value, int | float):
        return [float(value)]
    if isinstance(value, str):
        return [number for piece in re.split(r"[,;\n]", value) for number in _numbers_in_text(piece)]
    if hasattr(value, "tolist"):
        return numbers(value.tolist())
    if isinstance(value, list | tuple):
        return [number for part in value for number in numbers(part)]
    raise ValueError(f"Scores are numbers, text or tensors; got a {type(value).__name__}.")


def _numbers_in_text(piece: str) -> list[float]:
    """The numbers between two commas: any with spaces between them, or one among words. Raises ValueError where words leave open
    which of several is the score, or there is none."""
    found = [float(number) for number in _NUMBER.findall(piece)]
    words = _NUMBER.sub("", piece).strip(" \t\r[](){}")
    if words and len(found) != 1:
        raise ValueError(
            f"Cannot tell which score is meant by {piece.strip()[:60]!r}. Give one number per sample and nothing else, "
            "for example 0.5, 0.7."
        )
    return found


class ScoreImages(io.ComfyNode):
    """Scores and sorts the pictures of any workflow."""

    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="TTSVAR_ScoreImages",
            display_name="Score Images",
            category=CATEGORY,
            description="Scores any pictures against a prompt and sorts them, best first. Works in every workflow, "
            "whatever made the pictures: Best-of-N for any model.",
            search_aliases=[
                "sort images", "rank images", "filter images", "select images", "choose image", "best of n", "aesthetic score",
                "image reward", "hps", "pick best", "seed search", "tts-var", "排序",
            ],
            inputs=[
                io.Image.Input("images", tooltip="A batch of pictures from any node."),
                Reward.Input("reward", tooltip="From Reward Loader or Blend Rewards."),
                io.String.Input(
                    "prompt", multiline=True, default=EXAMPLE,
                    tooltip="What the pictures should show.",
                ),
                io.Boolean.Input(
                    "sort", default=True, optional=True,
                    tooltip="Best first. Off: in the order they came, as Resample Batch needs it to know the latents' scores.",
                ),
            ],
            outputs=[
                io.Image.Output("images", tooltip="The pictures, best first unless sort is off."),
                io.Float.Output("scores", is_output_list=True, tooltip="Their scores, in the same order."),
                io.String.Output("report", tooltip="Place, score and former number of every picture."),
            ],
        )

    @classmethod
    def execute(cls, images, reward, prompt, sort=True) -> io.NodeOutput:
        from ..ttsvar_core.rewards.base import answer_lines, check_prompt, explained
        from ..ttsvar_core.search.resample import top_k

        check_prompt(reward, prompt)
        answers = explained(device.InTurn(reward), images[..., :3].float(), prompt)
        scores = answers.scores
        ranked = top_k(scores, len(scores)).tolist()
        said = f"{reward.name}: image {ranked[0]} is best with {scores[ranked[0]]:.3f}, of {len(ranked)}"
        if alone := len(ranked) == 1 and getattr(reward, "compares", False):  # as when pictures come one by one in a list
            said = f"{reward.name} compares pictures of one batch; the score of one alone says nothing. Blend by weighted"
        page.say(said)
        lines = [f"{place + 1}. image {row}: {scores[row]:.4f}" for place, row in enumerate(ranked)]
        report = "\n".join([f"{reward.name}: {prompt}", *([said] if alone else []), *lines, *answer_lines(answers, ranked)])
        order = ranked if sort else list(range(len(scores)))
        return io.NodeOutput(images[order], scores[order].tolist(), report, ui=told(answers, order))


NODES = [RewardScorer, AttachScores, ScoreImages]
