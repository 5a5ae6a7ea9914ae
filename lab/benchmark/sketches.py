"""``python -m lab.benchmark.sketches``: does a reward rank samples the same when it is shown them at the size sampled so far?

Samples every prompt with the bundled model, scores the sketches of some scales whole and small, and prints per scale the rank
correlation of the two within a prompt (Spearman's rho, mean over prompts) and how often both have the same best sample.
"""

from __future__ import annotations

import argparse
from dataclasses import replace

import torch

from ttsvar_core.decoding import decode, sketch
from ttsvar_core.infinity.text import encode_prompt
from ttsvar_core.rewards.scenes import SceneReward
from ttsvar_core.sampling import sample
from ttsvar_core.scenes.grammar import benchmark_prompts
from ttsvar_core.state import start
from ttsvar_core.weights import load_bundled


def rank_agreement(whole: torch.Tensor, small: torch.Tensor) -> tuple[float, bool]:
    """Spearman's rho of two score vectors (P,), and whether they agree on a best sample. A constant vector has rho 0."""
    from scipy.stats import rankdata

    ranks = torch.stack([torch.from_numpy(rankdata(scores.numpy())) for scores in (whole, small)])
    rho = 0.0 if float(ranks.std(dim=1).min()) == 0 else float(torch.corrcoef(ranks)[0, 1])
    return rho, bool(whole[small.argmax()] == whole.max())


def measure(prompts: int, samples: int, smallest_side: int, scales: tuple[int, ...]) -> dict[int, tuple[float, float]]:
    """Per scale the mean rho and the share of prompts with the same best sample."""
    model, encoder = load_bundled()
    tokenizer = replace(model.config.tokenizer, smallest_side=smallest_side)
    model = replace(model, config=replace(model.config, tokenizer=tokenizer))
    reward = SceneReward()
    found: dict[int, list[tuple[float, bool]]] = {scale: [] for scale in scales}
    for seed, prompt in enumerate(benchmark_prompts("test", prompts, 0)):
        state = start(model, encode_prompt(encoder, prompt.text), samples, seed)
        for scale in scales:
            state = sample(state, scale)
            whole, small = (reward.score(show(state), prompt.text) for show in (decode, sketch))
            found[scale].append(rank_agreement(whole, small))
    return {
        scale: tuple(sum(float(pair[i]) for pair in pairs) / len(pairs) for i in (0, 1)) for scale, pairs in found.items()
    }


def main() -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(prog="python -m lab.benchmark.sketches", description=__doc__)
    parser.add_argument("--prompts", type=int, default=40)
    parser.add_argument("--samples", type=int, default=8)
    parser.add_argument("--smallest-side", type=int, default=32, help="pixels, of the smallest sketches that are decoded")
    parser.add_argument("--scales", type=int, nargs="+", default=[6, 9, 12])
    args = parser.parse_args()
    print("scale  rank correlation  same best sample")
    for scale, (rho, same) in measure(args.prompts, args.samples, args.smallest_side, tuple(args.scales)).items():
        print(f"{scale:5}  {rho:16.2f}  {same:16.0%}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
