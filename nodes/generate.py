"""The whole search in one node."""

import json

from comfy_api.latest import io

from ..ttsvar_core.costs import Search
from ..ttsvar_core.looks import told_look
from ..ttsvar_core.names import BUDGET, BUNDLED, POTENTIALS, SCHEMES
from .budget import duration, learn_pace, of_search, prediction, worth
from .host import device, page
from .live import grow, looked
from .load import encode, load, load_encoder
from .rewards import load_extractor, load_reward
from .sample import LAST, leave, previewer, previews, sampling_of
from .types import (
    ASPECT_RATIOS,
    CATEGORY,
    Extractor,
    Model,
    Reward,
    State,
    TextEncoder,
    budget,
    canvas,
    diverse,
    guidance_until,
    negative,
    only,
    prompt,
    sampling,
    seed,
)

MEASURED, OWN_PLAN = "measured best", "own plan"
METHODS = {
    "TTS-VAR": "tts-var", "Best-of-N": "best-of-n", "Importance Sampling": "importance-sampling", "raw": "raw", "Funnel": "funnel",
    "Beam": "beam",
}
_MOST_ATTEMPTS = 16
_PLAN_EXAMPLE = """{
  "name": "mine", "samples": 8,
  "stages": [
    {"kind": "cluster", "scale": 2, "keep": 6},
    {"kind": "cluster", "scale": 5, "keep": 4},
    {"kind": "resample", "scale": 6, "keep": 2, "potential": "value", "lambda": 10},
    {"kind": "resample", "scale": 9, "keep": 1, "potential": "value", "lambda": 10}
  ]
}"""


class Generate(io.ComfyNode):
    """Prompt in, best picture out."""

    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="TTSVAR_Generate",
            display_name="TTS-VAR Generate",
            category=CATEGORY,
            description="The whole search in one node: prompt in, best picture out. Everything not wired is the bundled model, "
            "its verifier and the latent pool. A model you wire needs a reward, too.",
            search_aliases=[
                "text to image", "infinity", "best of n", "test-time scaling", "search", "seed search", "tts-var", "quick start",
                "文生图",
            ],
            inputs=_inputs(),
            outputs=[
                io.Image.Output("image", tooltip="The best picture."),
                io.Image.Output("finalists", tooltip="All pictures that were finished, best first."),
                State.Output("state", tooltip="The finished state, for Inspect State or Save State."),
                io.String.Output("report", tooltip="What happened scale by scale, as JSON."),
                io.Image.Output(
                    "raw", tooltip="What the seed draws without a search, for Compare Images; only with compare on."
                ),
            ],
            hidden=[io.Hidden.prompt],
        )

    @classmethod
    def execute(
        cls, prompt, negative, method, n, seed, aspect_ratio, pixel_budget, guidance, tau, top_p,
        lambda_, potential, scheme, plan, preview, model=None, text_encoder=None, reward=None, extractor=None,
        guidance_until=LAST, budget=0.0, diverse=False, compare=False, attempts=0, enough=0.95, only_price=False,
    ) -> io.NodeOutput:
        from ..ttsvar_core.search.attempts import best_of, repeated
        from ..ttsvar_core.search.budget import plan_within
        from ..ttsvar_core.search.plan import raw
        from ..ttsvar_core.state import start

        if reward is None and (model is None or model.name == BUNDLED):
            reward = load_reward()
        model, text_encoder, extractor = model or load(), text_encoder or load_encoder(), extractor or load_extractor()
        schedule = model.schedule(ASPECT_RATIOS[aspect_ratio], pixel_budget)
        method, how = _how(method, budget, attempts, enough, model, reward)
        chosen, why = _plan(method, n, len(schedule), plan, {"potential": potential, "lam": lambda_, "scheme": scheme}), {}
        reward = _judge(reward, chosen, method, prompt)
        conditioning = encode(text_encoder, prompt, negative)
        drawn = sampling_of(model, guidance, tau, top_p, guidance_until, len(schedule), diverse)
        if how.budget:
            found = plan_within(how.budget, model, conditioning, schedule, drawn, device.InTurn(reward))
            chosen, why = found.plan, {"budget": found.why}
        device.load_transformer(model)
        if only_price:
            before = f"up to {how.attempts} attempts, each " * (how.attempts > 1)
            begin = start(model, conditioning, chosen.samples, seed, schedule)
            told = before + _price(begin, chosen, drawn, reward, extractor) + "; one picture more to compare" * compare
            page.say(told)
            return io.NodeOutput(*[page.nothing()] * 3, told, page.nothing())

        tried = []

        def searched(seed, plan, *lookers, shown=preview, before=""):
            return _search(start(model, conditioning, plan.samples, seed, schedule), plan, *lookers, drawn, shown, cls, before)

        def attempt(seed):
            before = f"attempt {len(tried) + 1} of {how.attempts} at most: " * (how.attempts > 1)
            return searched(seed, chosen, reward, extractor, before=before)

        for one in repeated(attempt, seed, how.attempts, how.enough):
            tried.append(one)
        result = best_of(tried)
        report = json.dumps(result.report | why, indent=1, allow_nan=False)
        alone = device.to_image(searched(seed, raw(), None, None, shown="off").images) if compare else page.nothing()
        page.say(_told(tried, result, _cost(result.state, chosen, drawn, reward, extractor)))
        images = device.to_image(result.images)[[result.best]]
        leave(images, preview)
        return io.NodeOutput(images, _best_first(tried), result.state.without_cache(), report, alone)


def _by_method(*methods: str) -> dict:
    """Options of an input that only these methods have, or any, and no search within a budget."""
    return only(budget=[0], **({"method": methods} if methods else {}))


def _inputs() -> list:
    resampled = _by_method("TTS-VAR", "Importance Sampling")
    return [
        prompt("prompt"),
        negative(),
        _method(),
        io.Int.Input(
            "n", display_name="N", default=1, min=1, max=8, display_mode=io.NumberDisplay.slider,
            **_by_method(*(method for method in METHODS if method != "raw")),
            tooltip="Size of the search. TTS-VAR starts 8N samples and finishes N, at about 1.4 times the work of N pictures.",
        ),
        seed("Every random draw of the search follows from this number."),
        *canvas(),
        *sampling(),
        io.Float.Input(
            "lambda_", display_name="lambda", default=10.0, min=0.0, max=1000.0, step=0.5, advanced=True, **resampled,
            tooltip="How strongly scores decide when samples are resampled; 10 is the paper's.",
        ),
        io.Combo.Input(
            "potential", options=list(POTENTIALS), default="value", advanced=True, **resampled,
            tooltip="What of the scores counts when samples are resampled; value is the paper's.",
        ),
        io.Combo.Input(
            "scheme", options=list(SCHEMES), default="multinomial", advanced=True, **resampled,
            tooltip="How survivors are drawn; multinomial is the paper's.",
        ),
        io.String.Input(
            "plan", multiline=True, default=_PLAN_EXAMPLE, **_by_method(OWN_PLAN),
            tooltip="For method 'own plan': how many samples start, and at which scales how many go on, by cluster or resample.",
        ),
        previews(),
        Model.Input("model", optional=True, tooltip="From Infinity Loader; the bundled model otherwise."),
        TextEncoder.Input("text_encoder", optional=True, tooltip="From Text Encoder Loader; the bundled one otherwise."),
        Reward.Input("reward", optional=True, tooltip="From Reward Loader; the bundled model's scene verifier otherwise."),
        Extractor.Input("extractor", optional=True, tooltip="From Extractor Loader; the latent pool otherwise."),
        guidance_until(),
        budget(0.0, 0.0, 0.5, " The report says which and why. 0 goes by method and N.", optional=True),
        diverse(),
        _compare(),
        *_attempts(),
        io.Boolean.Input(
            "only_price", default=False, optional=True, advanced=True,
            tooltip="Draw nothing: say what the search would cost, on the node and as the report. The button of the node does the "
            "same without a change to the graph.",
        ),
    ]


def _method():
    return io.Combo.Input(
        "method", options=[MEASURED, *METHODS, OWN_PLAN], default=MEASURED, **_by_method(),
        tooltip=f"measured best: the search measured to draw the best picture for the work of {BUDGET}, as it was for the bundled "
        "model; TTS-VAR where nobody measured. TTS-VAR: diverse sketches early, good ones later. Best-of-N: N full pictures, the "
        "best one. Importance Sampling: N pictures resampled by score. raw: one picture, no search. Funnel: 8N sketches, the best "
        "N finish. Beam: N sketches that branch at scales 4 to 6. own plan: the JSON below.",
    )


def _compare():
    return io.Boolean.Input(
        "compare", default=False, optional=True, advanced=True,
        tooltip="Draw what the seed gives without a search, too, for the output raw: the work of one more picture.",
    )


def _attempts() -> list:
    return [
        io.Int.Input(
            "attempts", default=0, min=0, max=_MOST_ATTEMPTS, optional=True,
            tooltip="Search again, with other draws, at most so often, until an answer is good enough: an easy prompt costs one "
            "search, a hard one several. 0: as was measured to pay with method 'measured best', once with the others.",
        ),
        io.Float.Input(
            "enough", display_name="good enough", default=0.95, min=-100.0, max=100.0, step=0.01, optional=True,
            **only(attempts=range(2, _MOST_ATTEMPTS + 1)),
            tooltip="The score of an answer that needs no further attempt, on the reward's own scale: of those that the bundled "
            "verifier gives 0.95, nearly all are right.",
        ),
    ]


def _how(method: str, budget: float, attempts: int, enough: float, model, reward):
    """The method whose plan says what is needed, and budget and attempts as asked for; with `MEASURED` what was measured to pay,
    where anybody did. Raises ValueError as `check_attempts`."""
    from ..ttsvar_core.search.attempts import check_attempts
    from ..ttsvar_core.search.budget import Usual, usual_search

    how = Usual(budget, attempts or 1)
    if method == MEASURED:
        method, how = "TTS-VAR", how if budget else usual_search(model, reward, attempts) or how
    check_attempts(reward, how.attempts)
    return "Funnel" if how.budget else method, how._replace(enough=enough) if attempts else how


def _judge(reward, plan, method: str, prompt: str):
    """As `run.judge`, before any work. Raises ValueError where the plan needs a reward and there is none."""
    from ..ttsvar_core.search.run import judge

    if reward is None and plan.needs_reward:
        raise ValueError(
            f"{method} needs a reward: wire a Reward Loader (ImageReward, HPS v2.1, ...). Only the bundled model brings its own."
        )
    return judge(reward, plan, prompt)


def _plan(method: str, n: int, scales: int, own: str, settings: dict):
    """The plan of a method by name, or the one written in JSON. Raises ValueError for JSON that is no plan."""
    from ..ttsvar_core.search import plan, plan_file

    if method != OWN_PLAN:
        return plan.with_potential(plan.PLANS[METHODS[method]](n, scales), **settings)
    try:
        return plan_file.from_json(json.loads(own))
    except json.JSONDecodeError as error:
        raise ValueError(f"The plan is not JSON: {error}. The widget's default shows one.") from error


def _search(state, plan, reward, extractor, sampling, preview, node, before: str = ""):
    """``search.run`` with progress, preview and interrupt, its networks taking turns on a card that does not hold them all.

    before: what the node says in front of the search's own words."""
    from ..ttsvar_core.decoding import sketch
    from ..ttsvar_core.footprint import showing_bytes
    from ..ttsvar_core.search.memory import Sampler
    from ..ttsvar_core.search.run import run

    model, schedule = state.model, state.schedule

    def load_transformer(scale: int = 0, held: int = 0) -> None:
        room = device.plan_memory(model, plan, schedule, sampling, scale)
        device.load_transformer(model, max(0.0, room - held), preview != "off")

    def decoded(state):
        device.load_tokenizer(model, showing_bytes(state))
        images = sketch(state, foreseen=plan.foreseen)
        looked(node, state, images, plan.foreseen)
        return images

    def acted(step) -> None:
        budget.looked(step.state.last_scale)
        if step.selections:
            grow(node, step.state)
        if not step.state.finished:
            load_transformer(step.state.next_scale, step.cache_bytes)

    seen_by, judged_by = (None if looker is None else device.InTurn(looker) for looker in (extractor, reward))
    cost = _cost(state, plan, sampling, reward, extractor)
    budget = of_search(cost, model)
    page.say(before + prediction(cost, budget, device.plan_memory(model, plan, schedule, sampling)))
    load_transformer()
    sampler = Sampler(sampling, on_scale=previewer(len(schedule), preview, budget.drawn))
    result = run(state, plan, judged_by, seen_by, sampler, decoded, acted)
    budget.ended()
    return result


def _price(state, plan, sampling, reward, extractor) -> str:
    """What the search from a state's beginning would cost, in words, its time from a few scales where none was run before."""
    cost = _cost(state, plan, sampling, reward, extractor)
    budget = of_search(cost, state.model)
    if budget.expected is None:
        learn_pace(state, sampling)
    return prediction(cost, budget, device.plan_memory(state.model, plan, state.schedule, sampling))


def _cost(state, plan, sampling, reward, extractor) -> Search:
    """What a search costs, from shapes."""
    config, schedule, tokens = state.model.config, state.schedule, len(state.conditioning.text)
    branches, itemsize = sampling.branches(len(schedule)), state.model.transformer.dtype.itemsize
    return Search(config, plan, schedule, branches, tokens, told_look(extractor), told_look(reward), itemsize=itemsize)


def _told(found, result, cost: Search) -> str:
    """What came of all attempts, each of this cost, in a line."""
    best = "" if result.scores is None else f"best {float(result.scores[result.best]):.3f} "
    of = f"in {len(found)} attempts" if len(found) > 1 else f"of {len(result.images)} finished"
    return f"{best}{of}, {duration(result.report['seconds'])}, the work of {len(found) * worth(cost):.1f} pictures"


def _best_first(found):
    """(P, H, W, 3) all finished pictures, in their order where nothing scored them."""
    import torch

    from ..ttsvar_core.search.resample import top_k

    images = torch.cat([device.to_image(one.images) for one in found])
    return images if found[0].scores is None else images[top_k(torch.cat([one.scores for one in found]), len(images))]


NODES = [Generate]
