"""``python -m lab.benchmark.look_shrink``: does a reward rank samples the same when it is shown them smaller?

Samples every prompt with the bundled model, scores the sketches of some scales whole and shrunk, and prints per scale the rank
correlation of the two within a prompt (Spearman's rho, mean over prompts) and how often both have the same best sample.
"""

from __future__ import annotations

import argparse

import torch

from ttsvar_core.decoding import decode
from ttsvar_core.infinity.text import encode_prompt
from ttsvar_core.rewards.scenes import SceneReward
from ttsvar_core.sampling import sample
from ttsvar_core.scenes.grammar import benchmark_prompts
from ttsvar_core.state import start
from ttsvar_core.weights import load_bundled


def rank_agreement(whole: torch.Tensor, shrunk: torch.Tensor) -> tuple[float, bool]:
    """Spearman's rho of two score vectors (P,), and whether they agree on a best sample. A constant vector has rho 0."""
    from scipy.stats import rankdata

    ranks = torch.stack([torch.from_numpy(rankdata(scores.numpy())) for scores in (whole, shrunk)])
    rho = 0.0 if float(ranks.std(dim=1).min()) == 0 else float(torch.corrcoef(ranks)[0, 1])
    return rho, bool(whole[shrunk.argmax()] == whole.max())


def measure(prompts: int, samples: int, shrink: int, scales: tuple[int, ...]) -> dict[int, tuple[float, float]]:
    """Per scale the mean rho and the share of prompts with the same best sample."""
    model, encoder = load_bundled()
    reward = SceneReward()
    found: dict[int, list[tuple[float, bool]]] = {scale: [] for scale in scales}
    for seed, prompt in enumerate(benchmark_prompts("test", prompts, 0)):
        state = start(model, encode_prompt(encoder, prompt.text), samples, seed)
        for scale in scales:
            state = sample(state, scale)
            whole, shrunk = (reward.score(decode(state, shrink=by), prompt.text) for by in (1, shrink))
            found[scale].append(rank_agreement(whole, shrunk))
    return {
        scale: tuple(sum(float(pair[i]) for pair in pairs) / len(pairs) for i in (0, 1)) for scale, pairs in found.items()
    }


def main() -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(prog="python -m lab.benchmark.look_shrink", description=__doc__)
    parser.add_argument("--prompts", type=int, default=40)
    parser.add_argument("--samples", type=int, default=8)
    parser.add_argument("--shrink", type=int, default=2)
    parser.add_argument("--scales", type=int, nargs="+", default=[6, 9, 12])
    args = parser.parse_args()
    print("scale  rank correlation  same best sample")
    for scale, (rho, same) in measure(args.prompts, args.samples, args.shrink, tuple(args.scales)).items():
        print(f"{scale:5}  {rho:16.2f}  {same:16.0%}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
