"""Where memory ends: smaller cards, tried by allowing only so much of this one, and memory that really runs out."""

import warnings
from typing import Any

import torch

from lab.benchmark.cards import CARDS, GIGA, RESERVED, need
from lab.benchmark.models import Subject
from ttsvar_core.extractors.latent_pool import LatentPool
from ttsvar_core.quantize import store_blocks_in_float8
from ttsvar_core.rewards.scenes import SceneReward
from ttsvar_core.search.plan import Plan, best_of_n, tts_var
from ttsvar_core.search.run import Result, run

from .place import Place
from .runner import Notes

SAME_BITS = 0.999  # groups draw the same but for probabilities within rounding; in float32 none of 150,528 bits differed


def cards(place: Place, notes: Notes) -> None:
    """TTS-VAR with N = 1 on 8, 12, 16 and 24 GB, as the table in docs/memory.md counts it: what looks needs no network here."""
    given = place.model("2b", torch.bfloat16)
    for weights in ("bfloat16", "float8 blocks"):
        if weights == "float8 blocks":
            store_blocks_in_float8(given.model)
        for card in place.some(CARDS):
            notes.attempt(f"{card} GB, {weights}", _fits, place, given, card * GIGA - RESERVED)
    notes.attempt("counted for bfloat16", lambda: {"peak_gb": need("2b", "1M", 1).peak / GIGA})


def _fits(place: Place, given: Subject, allowed: float) -> dict[str, Any]:
    with place.limited(allowed) as size, warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        result, most = place.watched(_searched, given, tts_var(1, len(given.schedule)))
    told = [str(one.message) for one in said]
    return {"allowed_gb": size / GIGA, **most, "seconds": result.report["seconds"], "warnings": len(told), "_warnings": told}


def _searched(given: Subject, plan: Plan) -> Result:
    return run(given.begin(plan.samples), plan, SceneReward(), LatentPool())


def out_of_memory(place: Place, notes: Notes) -> None:
    """Eight samples where there is room for about half of what they take: the same bits, in smaller groups."""
    given, plan = place.model("125m", torch.float32, "0.25M"), best_of_n(8)
    held = torch.cuda.memory_allocated() if place.card else 0

    def squeezed() -> dict[str, Any]:
        free, most = place.watched(_searched, given, plan)
        with place.limited((held + most["reserved_gb"] * GIGA) / 2):
            tight, less = place.watched(_searched, given, plan)
        free_bits, tight_bits = (torch.cat([bits.flatten() for bits in result.state.bits]) for result in (free, tight))
        same = float((free_bits == tight_bits).float().mean())
        enough = less["ran_out"] > 0 or not place.card
        return {"ok": same >= SAME_BITS and enough, "same_bits": same, "free_gb": most["peak_gb"], **less}

    notes.attempt("memory that ran out", squeezed)
