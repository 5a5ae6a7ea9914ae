"""Every way through the search, as hashes of what it draws: the net under a change that is meant to change nothing.

`python tests/net.py` records in `tests/golden/net.json` the cases that are not there yet. To record one anew, where pictures are
meant to change, take it out first.
"""

from __future__ import annotations

import hashlib
import json
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import cache, partial
from pathlib import Path

import torch

ROOT = Path(__file__).resolve().parent.parent
STORE = ROOT / "tests" / "golden" / "net.json"
sys.path[:0] = [str(ROOT), str(ROOT / "tests"), str(ROOT / "lab" / "tools")]
PROMPT = "a photo of a red circle left of a blue square"
SEED = 11


def arithmetic() -> str:
    """A hash of sums and products as this processor and this torch round them; pictures compare only where it is the same."""
    generator = torch.Generator().manual_seed(0)
    a, b = torch.randn(96, 128, generator=generator), torch.randn(128, 64, generator=generator)
    image, kernel = torch.randn(1, 16, 12, 12, generator=generator), torch.randn(8, 16, 3, 3, generator=generator)
    parts = (a @ b, torch.nn.functional.conv2d(image, kernel), torch.softmax(a, -1), torch.sigmoid(a))
    return digest(*parts)


def digest(*tensors: torch.Tensor) -> str:
    """A short hash of exact values."""
    whole = hashlib.sha256()
    for tensor in tensors:
        whole.update(str((tuple(tensor.shape), tensor.dtype)).encode())
        whole.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return whole.hexdigest()[:16]


def told(state, images=None, scores=None) -> dict:
    """What a case is held to: bits, pictures, scores and ancestors."""
    return {
        "bits": digest(*state.bits),
        "images": None if images is None else digest(images),
        "scores": None if scores is None else [round(float(score), 6) for score in scores],
        "ancestors": [[step.scale, list(step.ancestors)] for step in state.lineage],
    }


@cache
def world():
    """The bundled model with the conditioning of one prompt, its reward and the latent pool."""
    from ttsvar_core.extractors.latent_pool import LatentPool
    from ttsvar_core.infinity.text import encode_prompt
    from ttsvar_core.rewards.scenes import SceneReward
    from ttsvar_core.weights import load_bundled

    model, encoder = load_bundled()
    return model, encode_prompt(encoder, PROMPT), SceneReward(), LatentPool()


def searched(plan, extractor=None, state=None, show=None, **memory) -> dict:
    """One run of the bundled model, from its beginning or from a state."""
    from ttsvar_core.search.memory import Sampler
    from ttsvar_core.search.run import run
    from ttsvar_core.state import start

    model, conditioning, reward, pool = world()
    state = state or start(model, conditioning, plan.samples, SEED)
    result = run(state, plan, reward, extractor or pool, Sampler(**memory), show)
    return told(result.state, result.images, result.scores)


def plans() -> Iterator[tuple[str, Callable[[], dict]]]:
    """Every plan by name at N 1 and 2, the settings of the potential selector, and a cut by foreseen sketches."""
    from ttsvar_core.search.plan import PLANS, cut_once, scored_at, with_potential

    scales = len(world()[0].schedule())
    for name, make in PLANS.items():
        for n in (1, 2):
            yield f"{name} {n}", lambda make=make, n=n: searched(make(n, scales))
    everywhere = scored_at(PLANS["tts-var"](1, scales), range(scales - 1))
    for settings in (
        {"potential": "diff"}, {"potential": "max"}, {"potential": "sum", "lam": 2.0}, {"scheme": "systematic"},
        {"scheme": "stratified"}, {"scheme": "residual"}, {"scheme": "top-k"}, {"target_ess": 0.5}, {"ess_threshold": 0.4},
    ):
        key = " ".join(f"{name} {value}" for name, value in settings.items())
        yield f"tts-var 1, {key}", lambda settings=settings: searched(with_potential(everywhere, **settings))
    yield "cut by foreseen sketches", lambda: searched(cut_once(6, 7, 2, foreseen=True))


def memory() -> Iterator[tuple[str, Callable[[], dict]]]:
    """Resumed in mid-run, capped and float8 cache, tiled decode, dropped cache, another schedule of sampling."""
    from ttsvar_core.config import Sampling
    from ttsvar_core.decoding import decode
    from ttsvar_core.search.memory import cache_bytes
    from ttsvar_core.search.plan import tts_var

    model = world()[0]
    schedule, plan = model.schedule(), tts_var(1)
    for scale in (1, 3, 5, 6, 9, 10):
        yield f"resumed after scale {scale}", lambda scale=scale: resumed(plan, scale)
    for samples in (1, 3):
        cap = samples * cache_bytes(model, schedule, len(schedule) - 1)
        yield f"cap of {samples} caches", lambda cap=cap: searched(plan, max_cache_bytes=cap)
    yield "float8 cache", lambda: searched(plan, float8_cache=True)
    yield "capped float8 cache", lambda: searched(
        plan, float8_cache=True, max_cache_bytes=2 * cache_bytes(model, schedule, len(schedule) - 1, float8=True)
    )
    yield "tiles of 48 pixels", lambda: searched(plan, show=partial(decode, tile=48))
    yield "no guidance", lambda: searched(plan, sampling=Sampling(1.0, 1.0, 0.97))
    yield "guidance inside", lambda: searched(plan, sampling=Sampling(2.0, 1.0, 0.97, (-2,)))
    for policy in ("keep", "drop", "float8", "cpu"):
        yield f"cache policy {policy}", lambda policy=policy: stretches(policy)


def resumed(plan, scale: int) -> dict:
    """A run that was saved without its cache after a scale, loaded, and went on."""
    from ttsvar_core.search.memory import Sampler
    from ttsvar_core.search.run import search
    from ttsvar_core.search.save import load_state, save_state
    from ttsvar_core.state import start

    model, conditioning, reward, pool = world()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "state.safetensors"

        def keep(state) -> None:
            if state.last_scale == scale and not plan.at(scale):
                save_state(state.without_cache(), path)

        for step in search(start(model, conditioning, plan.samples, SEED), plan, reward, pool, Sampler(on_scale=keep)):
            if step.state.last_scale == scale:
                save_state(step.state, path)
        state = load_state(path, model, conditioning)
    return searched(plan, state=state)


def stretches(policy: str) -> dict:
    """Four samples in stretches of scales, their cache treated by a policy in between, one selection on the way."""
    from ttsvar_core.decoding import decode
    from ttsvar_core.sampling import sample
    from ttsvar_core.state import start

    model, conditioning, _, _ = world()
    state = sample(start(model, conditioning, 4, SEED), 4, cache_policy=policy)
    state = sample(state.select([3, 0, 0]), 8, cache_policy=policy, group_size=2)
    state = sample(state, 12)
    return told(state, decode(state))


def extractors() -> Iterator[tuple[str, Callable[[], dict]]]:
    """Every extractor that needs no download."""
    from lab.experiment.controls import Chance, TokenizerExtractor
    from ttsvar_core.search.plan import tts_var

    made = [Chance(), *(TokenizerExtractor(world()[0], reducer) for reducer in ("PCA", "PCA-shared", "Pool"))]
    for extractor in made:
        yield f"extractor {extractor.name}", lambda extractor=extractor: searched(tts_var(1), extractor)


def arms() -> Iterator[tuple[str, Callable[[], dict]]]:
    """Plans of an experiment that share their past."""
    yield "experiment ablations", lambda: experiment("ablations")
    yield "experiment beyond", lambda: experiment("beyond")


def experiment(name: str) -> dict:
    """Scores and bits of every arm, for one prompt and seed."""
    from lab.experiment.definitions import build
    from lab.experiment.runner import setting_of
    from lab.experiment.walk import walk
    from lab.experiment.world import WorldFiles

    lab = WorldFiles()()
    finished = walk(lab, lab.encode(PROMPT), SEED, build(name, setting_of(lab.describe()), (1,)).arms)
    return {arm: told(one.state, one.images, one.scores) for arm, one in finished.items()}


def graphs() -> Iterator[tuple[str, Callable[[], dict]]]:
    """The wired example graphs that need nothing outside the pack, in the stand-in host."""
    for path in sorted((ROOT / "workflows").glob("*.json")):
        if "infinity" not in path.stem and "any_model" not in path.stem:
            yield f"graph {path.stem}", lambda name=path.stem: graph(name)


def graph(name: str) -> dict:
    """The pictures of every decoder, and of what runs a whole search."""
    from host_stand_in import load_pack
    from test_nodes_run import execute, prompt_of

    with tempfile.TemporaryDirectory() as folder, load_pack(Path(folder)) as pack, torch.inference_mode():
        prompt = with_values(prompt_of(pack, name), name)
        done = execute(pack, prompt)
    kinds = ("DecodeState", "Generate", "ScoreImages", "StateFromImage")
    shown = {f"{node['class_type']} {key}": done[key][0] for key, node in prompt.items() if node["class_type"][7:] in kinds}
    return {key: digest(one if torch.is_tensor(one) else one.features) for key, one in shown.items()}


def with_values(prompt: dict, name: str) -> dict:
    """A prompt of our own nodes alone, with the values of the host's primitives where they were wired, and a choice made."""
    graph = json.loads((ROOT / "workflows" / f"{name}.json").read_text(encoding="utf-8"))
    values = {str(node["id"]): node["widgets_values"][0] for node in graph["nodes"] if node["type"].startswith("Primitive")}
    for node in prompt.values():
        wired = {name: one[0] for name, one in node["inputs"].items() if isinstance(one, list) and one[0] in values}
        node["inputs"] |= {name: values[key] for name, key in wired.items()}
        node["inputs"] |= {"choice": "0 2"} if node["inputs"].get("choice") == "" else {}
    return prompt


def cases() -> dict[str, Callable[[], dict]]:
    """Every case by its name."""
    return dict((*plans(), *memory(), *extractors(), *arms(), *graphs()))


def record() -> None:
    """Write what every case not recorded yet gives now, beside what it gave where sums round otherwise."""
    torch.set_num_threads(1)
    kept = json.loads(STORE.read_text(encoding="utf-8")) if STORE.exists() else {}
    found = kept.setdefault(arithmetic(), {})
    for name, case in cases().items():
        if name in found:
            continue
        began = time.perf_counter()
        found[name] = case()
        print(f"{name}: {time.perf_counter() - began:.1f} s", flush=True)
    STORE.write_text(json.dumps(kept, indent=1, sort_keys=True) + "\n", encoding="utf-8")


if __name__ == "__main__":
    record()
