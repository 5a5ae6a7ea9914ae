"""``python -m lab.benchmark``: seconds by stage, operations, cache and memory of one search, as a table and as JSON."""

import argparse
import json
from pathlib import Path

import torch

from ttsvar_core.compiled import compile_blocks
from ttsvar_core.config import PRESETS
from ttsvar_core.names import DTYPES
from ttsvar_core.scales import PIXEL_BUDGETS
from ttsvar_core.search.plan import PLANS

from .models import extractor_of, reward_of, subject
from .runs import report, table


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m lab.benchmark", description=__doc__)
    parser.add_argument("--model", choices=["bundled", *PRESETS], default="bundled")
    parser.add_argument("--depth", type=int, help="layers, where fewer than the model's keep its proportions")
    parser.add_argument("--small-tokenizer", action="store_true", help="decode in no time, to time the transformer alone")
    parser.add_argument("--pixels", choices=PIXEL_BUDGETS, default="0.25M", help="the bundled model has one size only")
    parser.add_argument("--plan", choices=sorted(PLANS), default="tts-var")
    parser.add_argument("--n", type=int, default=1)
    parser.add_argument("--reward", choices=["scenes", "image-reward"], default="scenes")
    parser.add_argument("--extractor", choices=["latent-pool", "dinov2"], default="latent-pool")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--precision", choices=DTYPES, default="float32")
    parser.add_argument("--compile", action="store_true", help="compile the transformer's blocks, during the warm-up")
    parser.add_argument("--threads", type=int, help="processor threads (default: PyTorch's choice)")
    parser.add_argument("--json", type=Path, help="file for the figures")
    chosen = parser.parse_args(arguments)
    if chosen.threads:
        torch.set_num_threads(chosen.threads)
    torch.manual_seed(0)
    device, dtype = torch.device(chosen.device), getattr(torch, chosen.precision)
    given = subject(chosen.model, device, dtype, chosen.pixels, chosen.depth, chosen.small_tokenizer)
    if chosen.compile:
        compile_blocks(given.model)
    plan = PLANS[chosen.plan](chosen.n, len(given.schedule))
    reward, extractor = reward_of(chosen.reward, device, dtype), extractor_of(chosen.extractor, device, dtype)
    figures = {"command": vars(chosen) | {"json": None}, **report(given, plan, reward, extractor)}
    print(table(figures))
    if chosen.json:
        chosen.json.parent.mkdir(parents=True, exist_ok=True)
        chosen.json.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
