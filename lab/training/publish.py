"""Copy a trained model folder into the package: `python -m lab.training.publish --model DIR --guidance 3 --tau 1x7+0.5x6`."""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from pathlib import Path

import torch
from safetensors.torch import load_file

from lab.training.evaluate import per_scale
from lab.training.tokenizer import NAME
from ttsvar_core.weights.write import write_safetensors

LIMIT_BYTES = 30_000_000
BUNDLED = Path(__file__).resolve().parents[2] / "ttsvar_core" / "bundled"


def halve(source: Path, target: Path) -> int:
    """Write a safetensors file in half precision; returns its bytes."""
    tensors = {name: tensor.to(torch.float16).contiguous() for name, tensor in load_file(str(source)).items()}
    write_safetensors(target, tensors)
    return target.stat().st_size


def main(argv: list[str] | None = None) -> int:
    """Write the four parts under the package's names; 1 if they are too large together."""
    parser = argparse.ArgumentParser(prog="python -m lab.training.publish", description=__doc__)
    parser.add_argument("--model", type=Path, required=True, help="folder the transformer training wrote")
    parser.add_argument("--to", type=Path, default=BUNDLED)
    parser.add_argument("--guidance", type=per_scale, required=True, help="one number, or per scale as 1x7+0.5x6")
    parser.add_argument("--tau", type=per_scale, required=True)
    parser.add_argument("--top-p", type=per_scale, default=1.0)
    args = parser.parse_args(argv)
    args.to.mkdir(parents=True, exist_ok=True)
    text = args.to / f"{NAME}.t5"
    text.mkdir(exist_ok=True)
    weights = (f"{NAME}.transformer.safetensors", f"{NAME}.vae.safetensors", f"{NAME}.t5/model.safetensors")
    total = sum(halve(args.model / name, args.to / name) for name in weights)
    for name in ("config.json", "tokenizer.json"):
        shutil.copyfile(args.model / f"{NAME}.t5" / name, text / name)
    words = json.loads((args.model / f"{NAME}.t5" / "tokenizer_config.json").read_text(encoding="utf-8"))
    words |= {"tokenizer_class": "PreTrainedTokenizerFast"}  # the name transformers 4 knows; 5 writes one of its own
    words.pop("backend", None)
    (text / "tokenizer_config.json").write_text(json.dumps(words, indent=2) + "\n", encoding="utf-8")
    described = json.loads((args.model / f"{NAME}.json").read_text(encoding="utf-8"))
    described |= {"cfg": args.guidance, "tau": args.tau, "top_p": args.top_p}
    (args.to / f"{NAME}.json").write_text(json.dumps(described) + "\n", encoding="utf-8")
    sys.stdout.write(f"{total / 1e6:.1f} MB in {args.to}\n")
    return int(total > LIMIT_BYTES)


if __name__ == "__main__":
    sys.exit(main())
