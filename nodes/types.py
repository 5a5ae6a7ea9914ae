"""The types on the wires between our nodes, and the choices several nodes share."""

from comfy_api.latest import io

from ..ttsvar_core.names import DTYPES, MAX_SEED, MEANS, PIXEL_BUDGETS, POTENTIALS, SCHEMES

Model = io.Custom("TTSVAR_MODEL")
TextEncoder = io.Custom("TTSVAR_TEXT_ENCODER")
Conditioning = io.Custom("TTSVAR_CONDITIONING")
State = io.Custom("TTSVAR_STATE")
Extractor = io.Custom("TTSVAR_EXTRACTOR")
Reward = io.Custom("TTSVAR_REWARD")

CATEGORY = "TTS-VAR"
# Width : height as people write it, and the published height / width the core knows it by.
ASPECT_RATIOS = {
    "1:1": 1.0, "5:4": 0.8, "4:3": 0.75, "3:2": 0.666, "7:4": 0.571, "2:1": 0.5, "5:2": 0.4, "3:1": 0.333,
    "4:5": 1.25, "3:4": 1.333, "2:3": 1.5, "4:7": 1.75, "1:2": 2.0, "2:5": 2.5, "1:3": 3.0,
}
EXAMPLE = "a photo of a red circle left of a blue square"
MOST_SAMPLES = 64  # that a widget offers; the paper's largest search starts with as many (8 samples at N = 8)


def only(**values) -> dict:
    """Options of an input that applies only while the node's other inputs, by id, have one of these values. web/fold.js hides it
    otherwise; the node itself must not mind what it then holds."""
    return {"extra_dict": {"ttsvar_only": {name: list(some) for name, some in values.items()}}}


def prompt(name: str):
    """The widget of what to draw."""
    return io.String.Input(
        name, multiline=True, dynamic_prompts=True, default=EXAMPLE,
        tooltip="What to draw. The bundled model knows: (a, two to six) (small, large) (red, orange, yellow, green, cyan, blue, "
        "purple, black) (circle, square, triangle, star, cross, heart), several of them joined by and, left of, right of, above, "
        "below; seven things at most.",
    )


def negative():
    """The widget of what to lead away from."""
    return io.String.Input(
        "negative", multiline=True, default="", advanced=True,
        tooltip="What to lead away from. Empty: guidance leads away from 'no prompt', as the model was trained.",
    )


def seed(tooltip: str):
    """The seed widget."""
    return io.Int.Input("seed", default=0, min=0, max=MAX_SEED, control_after_generate=True, tooltip=tooltip)


def reason():
    """The output of a selector that says what it decided."""
    return io.String.Output("reason", tooltip="What was decided and on what evidence, in words.")


def the_one(values: list | None, several: str):
    """The one value of a list input, None where nothing came. Raises ValueError for more, ``several`` being the words."""
    if values is not None and len(values) > 1:
        raise ValueError(f"{len(values)} {several}")
    return values[0] if values else None


def the_state(states: list):
    """The one state of a list input. Raises ValueError for several."""
    return the_one(states, "states came in a list; this node takes one. Give each a node of its own.")


def the_batch(batches: list | None, name: str):
    """The one batch of the list input ``name``, None where nothing came. Raises ValueError for several."""
    return the_one(batches, f"batches came to {name}; join them to one (Rebatch Latents, Rebatch Images).")


def budget(default: float, least: float, step: float, more: str = "", **options):
    """The widget of what a search may cost; ``more`` ends its tooltip."""
    return io.Float.Input(
        "budget", display_name="budget (pictures)", default=default, min=least, max=64.0, step=step, **options,
        tooltip="What a search may cost, in pictures: 4 finds the plan that should give the best one for the work of drawing four."
        + more,
    )


def precision(tooltip: str, *more: str, **options):
    """The precision widget of a loader; ``more`` are choices only this loader has."""
    choices = ["auto", *DTYPES, *more]
    return io.Combo.Input("precision", options=choices, default="auto", advanced=True, tooltip=tooltip, **options)


def mean(more: str = "", **options):
    """The widget that says how a reward's answers about a picture become one score; ``more`` ends its tooltip."""
    return io.Combo.Input(
        "mean", options=list(MEANS), default=MEANS[0], advanced=True, **options,
        tooltip="Of several answers: geometric where all must hold, arithmetic for how much of the prompt is there." + more,
    )


def canvas():
    """The widgets that say how large a picture gets."""
    return [
        io.Combo.Input(
            "aspect_ratio", options=list(ASPECT_RATIOS), default="1:1",
            tooltip="Width : height. The bundled model always draws 128x128 squares.",
        ),
        io.Combo.Input(
            "pixel_budget", options=list(reversed(PIXEL_BUDGETS)), default="1M",
            tooltip="Size of the picture: 1M is 1024x1024 in 13 scales, smaller budgets stop at 12, 10 or 7 scales. "
            "The bundled model has a schedule of its own (128x128, 13 scales) and ignores this.",
        ),
    ]


def sampling():
    """The widgets that say how bits are drawn."""
    return [
        io.Float.Input(
            "guidance", default=0.0, min=0.0, max=30.0, step=0.1,
            tooltip="How strongly the prompt steers (classifier-free guidance): 3 is Infinity's own, 1 switches guidance off and "
            "halves the work. 0 takes the model's own value, and the node says which.",
        ),
        io.Float.Input(
            "tau", default=0.0, min=0.0, max=10.0, step=0.05, advanced=True,
            tooltip="Temperature of the bits: low is safe and smooth, high is varied and noisy. 0 takes the model's own value "
            "(0.5 for Infinity-2B, 1 for 8B).",
        ),
        io.Float.Input(
            "top_p", default=0.0, min=0.0, max=1.0, step=0.01, advanced=True, display_mode=io.NumberDisplay.slider,
            tooltip="A bit value less likely than 1 - top_p is never drawn; 1 allows everything. 0 takes the model's own value "
            "(0.97 for Infinity-2B).",
        ),
    ]


def diverse():
    """The widget that varies the first scales; behind those of earlier versions, like the next one."""
    return io.Boolean.Input(
        "diverse", default=False, optional=True, advanced=True,
        tooltip="Draws the first six scales with more variety: a tau of 1 to 8, found for every sample, keeps its bits from being "
        "more certain than published targets (60 to 80%). Samples then differ more, at no cost; meant for searches.",
    )


def resampling():
    """The widgets that say how survivors are drawn by their scores, the advanced one last."""
    return [
        io.Combo.Input(
            "potential", options=list(POTENTIALS), default="value", advanced=True,
            tooltip="What counts: value, the score now; diff, its rise since the last scoring; max, the best score so "
            "far; sum, all scores so far. The paper uses value.",
        ),
        io.Float.Input(
            "lambda_", display_name="lambda", default=10.0, min=0.0, max=1000.0, step=0.5, **only(target_ess=[0]),
            tooltip="How strongly scores decide: 0 draws blindly, 10 is the paper's, large values keep the best only.",
        ),
        io.Combo.Input(
            "scheme", options=list(SCHEMES), default="multinomial",
            tooltip="How survivors are drawn: multinomial is the paper's, systematic and residual are less noisy, "
            "top-k just takes the best, without-replacement draws nobody twice.",
        ),
        io.Float.Input(
            "target_ess", default=0.0, min=0.0, max=1.0, step=0.05, advanced=True, display_mode=io.NumberDisplay.slider,
            tooltip="Above 0: lambda is found so that the effective sample size is this share of the samples, "
            "whatever unit the reward has.",
        ),
    ]


def guidance_until():
    """The widget that says where guidance ends; the last of a node, so that graphs saved before it was there stay what they are."""
    return io.Int.Input(
        "guidance_until", default=-1, min=-1, max=13, optional=True, advanced=True,
        tooltip="The last scale that the prompt steers; later ones cost half. -1 steers all scales. Published work ends guidance "
        "before the last three scales (after scale 9 of 13) for a loss of .01 in GenEval.",
    )
