"""What a budget in pictures is best spent on, as numbers for a graph of separate nodes."""

import json

from comfy_api.latest import io

from ..ttsvar_core.names import BUNDLED
from .host import device, page
from .rewards import load_reward
from .types import ASPECT_RATIOS, CATEGORY, Conditioning, Model, Reward, budget, canvas


class BudgetPlan(io.ComfyNode):
    """A budget's plan: how many start, where they are cut, how many finish."""

    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="TTSVAR_BudgetPlan",
            display_name="Plan for a Budget",
            category=CATEGORY,
            description="Finds how many samples should start, and after which scale how few should go on, for the work of so many "
            "pictures, as TTS-VAR Generate does. Its numbers are inputs of Start State, Scale-Step Sampler, Reward Scorer and "
            "Select Best.",
            search_aliases=["budget", "plan", "cost", "best of n", "test-time scaling", "tts-var", "预算"],
            inputs=[
                Model.Input("model", tooltip="The model that will draw."),
                Conditioning.Input("conditioning", tooltip="The prompt, whose length counts a little."),
                Reward.Input("reward", optional=True, tooltip="What will score; the bundled model's verifier otherwise."),
                budget(4.0, 1.0, 0.25),
                *canvas(),
            ],
            outputs=[
                io.Int.Output("samples", tooltip="How many start: samples of Start State."),
                io.Int.Output("scale", tooltip="After which scale they are cut: through_scale of the first Scale-Step Sampler."),
                io.Int.Output("keep", tooltip="How many go on: keep of Select Best. As many as start where no cut should pay."),
                io.Boolean.Output("foreseen", tooltip="Whether the cut looks at foreseen sketches: foreseen of Reward Scorer."),
                io.String.Output("plan", tooltip="The same as JSON, for TTS-VAR Generate's own plan."),
                io.String.Output("reason", tooltip="What was chosen and why, in words."),
            ],
        )

    @classmethod
    def execute(cls, model, conditioning, budget, aspect_ratio, pixel_budget, reward=None) -> io.NodeOutput:
        from ..ttsvar_core.search.budget import plan_within
        from ..ttsvar_core.search.plan_file import to_json

        if reward is None and model.name != BUNDLED:
            raise ValueError("A plan needs to know what will score: wire a Reward Loader. Only the bundled model brings its own.")
        schedule = model.schedule(ASPECT_RATIOS[aspect_ratio], pixel_budget)
        looker = device.InTurn(load_reward() if reward is None else reward)
        found = plan_within(budget, model, conditioning, schedule, model.config.sampling, looker)
        plan, cuts = found.plan, found.plan.stages
        scale, keep = (cuts[0].scale, cuts[0].keep) if cuts else (0, plan.samples)
        finish = f"the best {keep} after scale {scale} finish" if cuts else "all finish"
        page.say(f"{plan.samples} start, {finish}: the work of {found.pictures:.1f} pictures")
        return io.NodeOutput(plan.samples, scale, keep, plan.foreseen, json.dumps(to_json(plan), indent=1), found.why)


NODES = [BudgetPlan]
