"""``python -m ttsvar_core cost``: what a search costs, before anything runs."""

import argparse
import json
from pathlib import Path
from typing import Any

from .. import names, registry
from ..config import PRESETS, ModelConfig
from ..costs import Look, Search
from ..footprint import decoding_bytes
from ..networks import NETWORKS
from ..scales import PIXEL_BUDGETS
from . import numbers
from .choices import BUNDLED, plan_by_name, schedule_of

SUMMARY = "say what a search costs, before anything runs"
ITEMSIZE = {"float32": 4, "bfloat16": 2, "float16": 2}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model", choices=(BUNDLED, *PRESETS), default=BUNDLED, help="sizes of the model (default: %(default)s)")
    parser.add_argument("--pixels", choices=PIXEL_BUDGETS, help="size of the picture (default: 1M)")
    parser.add_argument("--plan", default="tts-var", help="a plan's name, or a JSON file (default: %(default)s)")
    parser.add_argument("--n", type=numbers.COUNT, help="samples left at the end of a plan by name (default: 1)")
    parser.add_argument(
        "--reward", action="append", metavar="NAME", help=f"{', '.join(registry.REWARDS)}; repeat to blend "
        "(default: scenes, the bundled model's; image-reward with others)",
    )
    parser.add_argument(
        "--extractor", default="latent-pool", metavar="NAME", help=f"{', '.join(registry.EXTRACTORS)} (default: %(default)s)"
    )
    parser.add_argument(
        "--guidance-until", type=numbers.FROM_ZERO, metavar="SCALE", help="the last scale that is guided (default: all)"
    )
    parser.add_argument(
        "--sketches", choices=("small", "whole"), default="small",
        help="decode unfinished samples at the size sampled so far, or whole (default: %(default)s)",
    )
    parser.add_argument("--text-tokens", type=numbers.COUNT, default=32, help="length of the prompt (default: %(default)s)")
    parser.add_argument("--dtype", choices=ITEMSIZE, default="bfloat16", help="of keys and values (default: %(default)s)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there as well")


def main(args: argparse.Namespace) -> int:
    config = _config(args.model)
    schedule = schedule_of(config, {"--pixels": args.pixels})
    plan = plan_by_name(args.plan, args.n, len(schedule))
    rewards = args.reward or ["scenes" if args.model == BUNDLED else "image-reward"]
    reward, extractor = _reward(rewards, args.text_tokens), _known(registry.EXTRACTORS, args.extractor, args.text_tokens)
    size, scales, drawn = ITEMSIZE[args.dtype], len(schedule), config.sampling
    drawn = drawn if args.guidance_until is None else drawn.guided_until(args.guidance_until, scales)
    whole = args.sketches == "whole"
    search = Search(config, plan, schedule, drawn.branches(scales), args.text_tokens, extractor, reward, whole, size)
    found = figures(search, {"rewards": rewards, "extractor": args.extractor, "sketches": args.sketches})
    print(table(found))
    if args.json:
        from ..atomic import write

        write(args.json, json.dumps(found, indent=1) + "\n")
    return 0


def figures(search: Search, names: dict[str, Any]) -> dict[str, Any]:
    """The costs of a search beside those of one picture guided throughout, as plain JSON values: operations and bytes."""
    picture = search.picture
    total, single = search.total, picture.total
    return {
        "model": search.config.name,
        "plan": search.plan.name,
        **names,
        "schedule": str(search.schedule),
        "flops": total.flops,
        "parts": search.parts,
        "raw": {"flops": single.flops, "parts": picture.parts},
        "ratio_to_raw": total.flops / single.flops,
        "ratio_to_raw_transformer": search.parts["transformer"] / picture.parts["transformer"],
        "ratio_to_raw_tokens": total.token_forwards / single.token_forwards,
        "decodes": total.decodes,
        "peak_cache_bytes": max(scale.cache_bytes for scale in search.scales),
        "peak_sampling_bytes": max(scale.cache_bytes + scale.activation_bytes for scale in search.scales),
        "decoding_bytes": decoding_bytes(search.config.tokenizer, search.scales[-1].cells),
        "scales": [scale._asdict() for scale in search.scales],
    }


def table(found: dict[str, Any]) -> str:
    unit, flops = ("TFLOP", 1e12) if found["raw"]["flops"] > 1e12 else ("GFLOP", 1e9)
    memory, size = ("GiB", 2**30) if found["decoding_bytes"] > 2**29 else ("MiB", 2**20)
    parts, raw = ({**figures["parts"], "together": figures["flops"]} for figures in (found, found["raw"]))
    held, needed, decoding = (found[f"{name}_bytes"] / size for name in ("peak_cache", "peak_sampling", "decoding"))
    return "\n".join((
        f"{found['model']}, plan {found['plan']}, reward {' and '.join(found['rewards'])}, extractor {found['extractor']}, "
        f"sketches {found['sketches']}",
        "",
        f"{unit:<14}{'search':>9}{'one picture':>14}",
        *(f"{part:<14}{value / flops:>9.4g}{raw[part] / flops:>14.4g}" for part, value in parts.items()),
        "",
        f"scale samples branches transformer decoded on cells   decode features   reward  keys, values {memory}",
        *(_row(scale, flops, size) for scale in found["scales"]),
        "",
        f"pictures' worth  {found['ratio_to_raw']:.2f} of one picture guided throughout (transformer "
        f"{found['ratio_to_raw_transformer']:.2f}, tokens {found['ratio_to_raw_tokens']:.2f})",
        f"keys and values  {held:.3g} {memory} at most, {needed:.3g} with activations",
        f"a whole decode   {decoding:.3g} {memory}",
    ))


def _row(scale: dict[str, Any], flops: float, size: int) -> str:
    looked = "".join(f"{scale[part] / flops:>9.3g}" for part in ("decode", "features", "reward"))
    cells = "x".join(map(str, scale["cells"])) if scale["pictures"] else ""
    return (
        f"{scale['scale']:<5}{scale['samples']:>8}{scale['branches']:>9}{scale['transformer'] / flops:>12.4g}"
        f"{scale['pictures']:>8}{cells:>9}{looked}{scale['cache_bytes'] / size:>14.3g}"
    )


def _config(name: str) -> ModelConfig:
    if name != BUNDLED:
        return PRESETS[name]
    path = Path(__file__).resolve().parent.parent / "bundled" / f"{names.BUNDLED}.json"
    return ModelConfig.from_json(json.loads(path.read_text(encoding="utf-8")))


def _reward(names: list[str], text_tokens: int) -> Look:
    """All named rewards together. Raises ValueError for an unknown one."""
    looks = [_known(registry.REWARDS, name, text_tokens) for name in names]
    return Look(sum(look.each for look in looks), sum(look.prompt for look in looks))


def _known(entries: dict[str, registry.Entry], name: str, text_tokens: int) -> Look:
    """What a name costs; a file that follows it, as `generate` takes it, does not matter here."""
    entry = registry.find(entries, name.partition("=")[0])
    if entry is None or entry.network not in NETWORKS:
        known = [key for key, entry in entries.items() if entry.network in NETWORKS]
        raise ValueError(f"no figures for {name!r}; write one of {', '.join(known)}")
    return NETWORKS[entry.network](text_tokens)
