"""Raw, Best-of-2 and TTS-VAR with the bundled model on held-out prompts: `python -m lab.training.headline --out FILE`.

One seed per prompt, the same for every way of searching; the graded score searches, the verdict counts. Rows already in FILE
are kept. The whole curve over N is `python -m lab.experiment n-curve`.
"""

from __future__ import annotations

import argparse
import json
import sys
from concurrent.futures import ProcessPoolExecutor
from functools import lru_cache
from multiprocessing import get_context
from pathlib import Path

import numpy

PAIRS = (("raw", "best-of-2"), ("raw", "tts-var-1"), ("best-of-2", "tts-var-2"), ("raw", "tts-var-2"))


@lru_cache(maxsize=1)
def world():
    """Model, text encoder, reward, extractor."""
    import torch

    from ttsvar_core.extractors.latent_pool import LatentPool
    from ttsvar_core.rewards.scenes import SceneReward
    from ttsvar_core.weights import load_bundled

    torch.set_num_threads(1)
    return (*load_bundled(), SceneReward(), LatentPool())


def measure(text: str, seed: int) -> dict:
    """Verdicts (1 or 0) and grades of every way of searching for one prompt; raw is the first of Best-of-2's pictures."""
    from ttsvar_core.infinity.text import encode_prompt
    from ttsvar_core.rewards.scenes import judge_images
    from ttsvar_core.scenes.grammar import parse_prompt
    from ttsvar_core.search.plan import best_of_n, tts_var
    from ttsvar_core.search.run import run
    from ttsvar_core.state import start

    model, encoder, reward, extractor = world()
    conditioning, prompt = encode_prompt(encoder, text), parse_prompt(text)
    row = {"prompt": text, "category": prompt.category, "seed": seed}
    for name, plan in (("best-of-2", best_of_n(2)), ("tts-var-1", tts_var(1)), ("tts-var-2", tts_var(2))):
        result = run(start(model, conditioning, plan.samples, seed), plan, reward, extractor)
        judged = judge_images(result.images, prompt)
        row[name] = [int(judged[result.best].correct), judged[result.best].score]
        if name == "best-of-2":
            row["raw"] = [int(judged[0].correct), judged[0].score]
    return row


def interval(values: numpy.ndarray, draws: int = 10_000) -> list[float]:
    """Mean and bootstrap 95% interval over prompts."""
    picks = numpy.random.default_rng(0).integers(len(values), size=(draws, len(values)))
    low, high = numpy.quantile(values[picks].mean(1), (0.025, 0.975))
    return [round(float(v), 4) for v in (values.mean(), low, high)]


def summary(rows: list[dict]) -> dict:
    """Accuracy and grade of each way, and the paired differences."""
    told = {"prompts": len(rows)}
    for index, what in enumerate(("verdict", "grade")):
        values = {name: numpy.array([row[name][index] for row in rows], float) for name in
                  ("raw", "best-of-2", "tts-var-1", "tts-var-2")}
        told[what] = {name: interval(rows) for name, rows in values.items()}
        told[f"{what} gained"] = {f"{new} over {old}": interval(values[new] - values[old]) for old, new in PAIRS}
    return told


def main(argv: list[str] | None = None) -> int:
    """Measure what is missing, then print the summary as json."""
    parser = argparse.ArgumentParser(prog="python -m lab.training.headline", description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="jsonl, one row per prompt")
    parser.add_argument("--prompts", type=int, default=300)
    parser.add_argument("--workers", type=int, default=2)
    args = parser.parse_args(argv)
    from lab.experiment.prompts import scene_prompts

    prompts = scene_prompts(args.prompts)
    known = [json.loads(line) for line in args.out.read_text().splitlines()] if args.out.exists() else []
    done = {row["prompt"] for row in known}
    left = [prompt for prompt in prompts if prompt.text not in done]
    with ProcessPoolExecutor(args.workers, mp_context=get_context("spawn")) as pool, open(args.out, "a") as file:
        for row in pool.map(measure, [p.text for p in left], [p.seed(0) for p in left]):
            known.append(row)
            file.write(json.dumps(row) + "\n")
            file.flush()
    wanted = {prompt.text for prompt in prompts}
    sys.stdout.write(json.dumps(summary([row for row in known if row["prompt"] in wanted]), indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
