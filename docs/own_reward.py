"""A reward of your own as a ComfyUI node. Copy this file into ComfyUI's custom_nodes folder, change it, restart.

It prefers colourful pictures. The node's output goes wherever a reward goes: Reward Scorer, Blend Rewards, Score Images,
TTS-VAR Generate. Nothing is imported from the TTS-VAR pack: a reward is any object with a name, a range and `score`.
"""

from comfy_api.latest import ComfyExtension, io


class Colourfulness:
    """Scores 0 to 1: the mean distance of a picture's channels from its own grey."""

    range = (0.0, 1.0)

    def __init__(self, strength: float):
        self.strength = strength
        self.name = "colourfulness"

    def score(self, images, prompt):
        """One float32 number per picture, higher is better; images (B, height, width, 3) in [0, 1], prompt a string."""
        if images.ndim != 4 or images.shape[-1] != 3:
            raise ValueError(f"{self.name} scores images of shape (B, height, width, 3), got {tuple(images.shape)}")
        grey = images.mean(dim=-1, keepdim=True)
        return self.strength * (images - grey).abs().mean(dim=(1, 2, 3)).float()


class ColourfulnessReward(io.ComfyNode):
    """Makes the reward."""

    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="Example_ColourfulnessReward",
            display_name="Colourfulness Reward (example)",
            category="TTS-VAR/load",
            inputs=[io.Float.Input("strength", default=1.0, min=-10.0, max=10.0)],
            outputs=[io.Custom("TTSVAR_REWARD").Output("reward")],
        )

    @classmethod
    def execute(cls, strength) -> io.NodeOutput:
        return io.NodeOutput(Colourfulness(strength))


class Example(ComfyExtension):
    async def get_node_list(self):
        return [ColourfulnessReward]


async def comfy_entrypoint():
    return Example()
