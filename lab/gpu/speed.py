"""Where the seconds and the memory of a search go on a card: 2B at 1M pixels, random weights, ImageReward and DINOv2 beside it."""

import copy
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile

from lab.benchmark.clock import copy_bandwidth, machine, matmul_ceiling
from lab.benchmark.models import Subject
from lab.benchmark.runs import report
from ttsvar_core.bsq.bits import cell_grid
from ttsvar_core.decoding import decode, decoder_in
from ttsvar_core.quantize import store_blocks_in_float8
from ttsvar_core.sampling import sample
from ttsvar_core.search.plan import PLANS

from .place import Place
from .runner import Notes

PLANS_RUN = (("raw", 1), ("best-of-n", 2), ("tts-var", 2), ("tts-var", 1))
SHOWN = {  # of a benchmark's report, under what name
    "ratio_to_raw_with_looking": "times_raw", "ratio_to_raw_flops_with_looking": "times_raw_counted",
    "transformer_over_floor": "over_floor", "overhead_share": "overhead",
}
TOP = 12  # kernels that are named


def device(place: Place, notes: Notes) -> None:
    """What it is, and what it reaches at best in each precision."""
    notes.attempt("machine", machine, place.device)
    for dtype in (torch.float32, torch.bfloat16, torch.float16) if place.card else (torch.float32,):
        notes.attempt(f"products in {dtype}", lambda dtype=dtype: {"flops_per_s": matmul_ceiling(place.device, dtype)})
    notes.attempt("copies", lambda: {"bytes_per_s": copy_bandwidth(place.device)})


def search(place: Place, notes: Notes) -> None:
    """Every plan in bfloat16: seconds by stage, share of the peak, memory."""
    given, eyes = place.model("2b", torch.bfloat16), place.eyes(torch.bfloat16)
    for name, n in place.some(PLANS_RUN):
        notes.attempt(f"{name} {n}", _measured, place, given, eyes, name, n)


def options(place: Place, notes: Notes) -> None:
    """TTS-VAR with one byte per number: keys and values, then the blocks' weights as well."""
    given, eyes = place.model("2b", torch.bfloat16), place.eyes(torch.bfloat16)
    if not place.rehearse:
        notes.attempt("float8 cache", _measured, place, given, eyes, "tts-var", 1, float8_cache=True)
    store_blocks_in_float8(given.model)
    if not place.rehearse:
        notes.attempt("float8 weights", _measured, place, given, eyes, "tts-var", 1)
    notes.attempt("float8 weights and cache", _measured, place, given, eyes, "tts-var", 1, float8_cache=True)


def _measured(place: Place, given: Subject, eyes: tuple, name: str, n: int, **memory: Any) -> dict[str, Any]:
    figures, most = place.watched(report, given, PLANS[name](n, len(given.schedule)), *eyes, **memory)
    seconds = figures["seconds"]
    return {
        "seconds": seconds["total"], "raw_seconds": figures["seconds_raw"]["total"],
        **{stage: value for stage, value in seconds.items() if stage != "total" and value > 0},
        "share_of_peak": figures["achieved_flops_per_s"] / figures["ceiling_flops_per_s"],
        **{short: figures[name] for name, short in SHOWN.items()},
        "cache_over_formula": figures["peak_cache_bytes"] / figures["formula_cache_bytes"], **most, "_report": figures,
    }


def kernels(place: Place, notes: Notes) -> None:
    """What a raw picture and its decoding launch, and which kernels take the time."""
    given = place.model("2b", torch.bfloat16)
    state, last = given.begin(1), len(given.schedule) - 1
    finished = sample(state, last)  # warms up, too
    decode(finished)
    notes.attempt("raw picture", profiled, place, lambda: sample(state, last))
    notes.attempt("decode", profiled, place, lambda: decode(finished))


def decoding(place: Place, notes: Notes) -> None:
    """Precisions and layouts of the decoder on a whole picture, and whether eight sketches gain by being decoded together."""
    model, _, schedule = place.model("2b", torch.bfloat16)
    sizes, cells = model.config.tokenizer, cell_grid(schedule.final, model.patchify)
    sketches = torch.randn(8, sizes.codebook_dim, *model.config.sketch_cells(schedule, 0), device=place.device)
    whole = torch.randn(1, sizes.codebook_dim, *cells, device=place.device)
    for dtype in place.some((torch.float32, torch.float16, torch.bfloat16)):
        decode_in = decoder_in(model, place.device, dtype)
        notes.attempt(f"whole, {dtype}", _timed, place, decode_in, whole.split(1))
        notes.attempt(f"8 sketches one by one, {dtype}", _timed, place, decode_in, sketches.split(1))
        notes.attempt(f"8 sketches together, {dtype}", _timed, place, decode_in, [sketches])
        lasting = copy.deepcopy(model.tokenizer).to(dtype=dtype, memory_format=torch.channels_last)
        notes.attempt(f"whole, {dtype}, channels last", _timed, place, lasting.decode, whole.split(1))


def _timed(place: Place, work: Callable[[Tensor], Tensor], parts: Sequence[Tensor]) -> dict[str, Any]:
    def once() -> None:
        for part in parts:
            work(part)

    with torch.inference_mode():
        once()
        seconds, most = place.watched(place.seconds, once)
    return {"seconds": seconds, **most}


def profiled(place: Place, work: Any) -> dict[str, Any]:
    """Launches of a piece of work, seconds its kernels ran, and the longest of them."""
    kinds = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if place.card else [])]
    with profile(activities=kinds) as seen:
        work()
        if place.card:
            torch.cuda.synchronize()
    events = list(seen.key_averages())
    clock = "self_device_time_total" if place.card else "self_cpu_time_total"
    ran = [event for event in events if (event.device_type == DeviceType.CUDA) == place.card]
    longest = sorted(ran, key=lambda event: -getattr(event, clock))[:TOP]
    return {
        "launches": sum(event.count for event in events if "LaunchKernel" in event.key),
        "kernel_seconds": sum(getattr(event, clock) for event in ran) / 1e6,
        "_kernels": [[event.key[:120], event.count, getattr(event, clock) / 1e6] for event in longest],
    }
