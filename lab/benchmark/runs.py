"""Run a plan with a clock at every stage, and report it beside raw generation."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor

from ttsvar_core import costs, sampling
from ttsvar_core.image_model import ImageModel
from ttsvar_core.infinity.text import Conditioning
from ttsvar_core.scales import ScaleSchedule
from ttsvar_core.search import run as search
from ttsvar_core.search.cluster import cluster
from ttsvar_core.search.plan import Plan, raw
from ttsvar_core.state import start

from .clock import Stages, copy_bandwidth, machine, matmul_ceiling, peak_memory

SEED = 1
LOOKING = ("decode_for_selection", "features", "reward")  # stages that serve the search's eyes, counted apart
OVERHEAD = ("sampling", "selection", "other")  # stages that are no forward pass of a model


@dataclass
class Watch:
    """What an instrumented run left behind: seconds by stage, the largest cache, images decoded."""

    stages: Stages
    last_scale: int
    scale: int = -1
    peak_cache_bytes: int = 0
    decoded: dict[str, int] = field(default_factory=lambda: {"decode": 0, "decode_for_selection": 0})

    def forward_scale(self, function: Any) -> Any:
        """``Infinity.forward_scale``, timed by scale; notes the keys and values that exist when it returns."""

        def inner(features: Tensor, scale: int, schedule: ScaleSchedule, text: Any, past: Any, step: Any) -> Any:
            self.scale = scale
            timed = self.stages.timed(f"transformer {scale}", function)
            logits, chunk = timed(features, scale, schedule, text, past, step)
            held = past.nbytes + sum(t.numel() * t.element_size() for t in (*chunk.keys, *chunk.values))
            self.peak_cache_bytes = max(self.peak_cache_bytes, held)
            return logits, chunk

        return inner

    def decode(self, function: Any) -> Any:
        """``Tokenizer.decode``, timed apart where the picture is not finished."""

        def inner(features: Tensor) -> Tensor:
            stage = "decode" if self.scale == self.last_scale else "decode_for_selection"
            self.decoded[stage] += len(features)
            return self.stages.timed(stage, function)(features)

        return inner


@dataclass
class Timed:
    """A reward or an extractor whose one method is timed."""

    inner: Any
    method: str
    stage: str
    stages: Stages

    def __getattr__(self, name: str) -> Any:
        value = getattr(self.inner, name)
        return self.stages.timed(self.stage, value) if name == self.method else value


@contextmanager
def instrumented(model: ImageModel, watch: Watch) -> Iterator[None]:
    """Put a clock at every stage of the search while the context lasts."""
    timed = watch.stages.timed
    with ExitStack() as stack:

        def put(owner: Any, name: str, value: Any) -> None:
            stack.enter_context(patch.object(owner, name, value))

        put(model.transformer, "forward_scale", watch.forward_scale(model.transformer.forward_scale))
        put(model.transformer, "project_text", timed("text", model.transformer.project_text))
        put(model.tokenizer, "decode", watch.decode(model.tokenizer.decode))
        for name in ("uniforms", "draw_bits", "fuse"):
            put(sampling, name, timed("sampling", getattr(sampling, name)))
        for name in ("cluster_select", "potential_select", "best"):
            put(search, name, timed("selection", getattr(search, name)))
        yield


def timed_run(
    model: ImageModel, conditioning: Conditioning, schedule: ScaleSchedule, plan: Plan, reward: Any, extractor: Any
) -> tuple[Any, Watch]:
    """The search's result and what was measured on the way."""
    stages = Stages(model.transformer.device)
    watch = Watch(stages, len(schedule) - 1)
    reward = Timed(reward, "score", "reward", stages)
    extractor = Timed(extractor, "describe", "features", stages)
    with instrumented(model, watch):
        result = stages.timed("other", search.run)(
            model, conditioning, plan, SEED, reward, extractor, schedule=schedule
        )
    return result, watch


def report(
    model: ImageModel, conditioning: Conditioning, schedule: ScaleSchedule, plan: Plan, reward: Any, extractor: Any
) -> dict[str, Any]:
    """Everything the command prints, as plain JSON values."""
    device, dtype = model.transformer.device, model.transformer.dtype
    ceiling, bandwidth = matmul_ceiling(device, dtype), copy_bandwidth(device)
    warm_up = _warm_up(model, conditioning, schedule)
    baseline = raw(len(schedule))
    _, alone = timed_run(model, conditioning, schedule, baseline, reward, extractor)
    result, watch = timed_run(model, conditioning, schedule, plan, reward, extractor)
    tokens_of_text = len(result.state.conditioning.text)
    running = [plan.running(scale) for scale in range(len(schedule))]
    branches = model.config.sampling.branches(len(schedule))
    config, size = model.config.transformer, dtype.itemsize
    image = result.images[:1]
    looks = costs.extractor_look(extractor, image), costs.reward_look(reward, image, conditioning.prompt)
    search, alone_search = (
        costs.Search(model.config, one, schedule, branches, tokens_of_text, *looks) for one in (plan, baseline)
    )
    by_scale, flops = [one.transformer for one in search.scales], search.parts
    traffic = costs.traffic_bytes(config, schedule, running, branches[-1], size)
    each = costs.token_bytes(config, branches[-1], size)
    formula = [tokens * each for tokens in costs.shared_cache_tokens(schedule, running, result.state.lineage)]
    seconds = _by_stage(watch.stages.seconds)
    floor = sum(max(work / ceiling, moved / bandwidth) for work, moved in zip(by_scale, traffic, strict=True))
    return {
        "machine": machine(device),
        "model": model.name,
        "layers": config.depth,
        "precision": str(dtype).removeprefix("torch."),
        "schedule": str(schedule),
        "plan": plan.to_json(),
        "reward": reward.name,
        "extractor": extractor.name,
        "tokens": sum(n * t for n, t in zip(running, schedule.tokens, strict=True)),
        "tokens_raw": sum(schedule.tokens),
        "seconds": seconds,
        "seconds_transformer_by_scale": [watch.stages.seconds[f"transformer {s}"] for s in range(len(schedule))],
        "seconds_raw": _by_stage(alone.stages.seconds),
        "seconds_warm_up": warm_up,
        "images_decoded": watch.decoded,
        "flops": sum(flops.values()),
        "flops_by_part": flops,
        "flops_transformer_by_scale": by_scale,
        "ceiling_flops_per_s": ceiling,
        "ceiling_bytes_per_s": bandwidth,
        "achieved_flops_per_s": sum(by_scale) / seconds["transformer"],
        "floor_seconds_transformer": floor,
        "transformer_over_floor": seconds["transformer"] / floor,
        "overhead_share": sum(seconds[stage] for stage in OVERHEAD) / seconds["total"],
        "ratio_to_raw": _generation(seconds) / _generation(_by_stage(alone.stages.seconds)),
        "ratio_to_raw_with_looking": seconds["total"] / _by_stage(alone.stages.seconds)["total"],
        "ratio_to_raw_flops": flops["transformer"] / alone_search.parts["transformer"],
        "ratio_to_raw_flops_with_looking": search.total.flops / alone_search.total.flops,
        "ratio_to_raw_tokens": sum(n * t for n, t in zip(running, schedule.tokens, strict=True)) / sum(schedule.tokens),
        "peak_cache_bytes": watch.peak_cache_bytes,
        "formula_cache_bytes": max(formula),
        "formula_cache_bytes_by_scale": formula,
        "peak_memory_bytes": peak_memory(device),
    }


def _warm_up(model: ImageModel, conditioning: Conditioning, schedule: ScaleSchedule) -> float:
    """Pay once for what only the first call costs: imports, threads, kernels, and compiling for one sample and for several.

    Returns its seconds.
    """
    began = time.perf_counter()
    cluster(torch.randn(4, 8), 2, SEED, 0)
    for samples in (1, 2):
        sampling.sample(start(model, conditioning, samples, SEED, schedule), min(2, len(schedule) - 1))
    return time.perf_counter() - began


def _by_stage(measured: dict[str, float]) -> dict[str, float]:
    """Seconds by stage, the transformer's scales taken together, and the total."""
    stages = ("text", "transformer", "sampling", "decode", *LOOKING, "selection", "other")
    seconds = dict.fromkeys(stages, 0.0)
    for name, value in measured.items():
        seconds[name.split()[0]] += value
    return {**seconds, "total": sum(seconds.values())}


def _generation(seconds: dict[str, float]) -> float:
    """Seconds that go into the picture itself, those of looking at unfinished ones apart."""
    return seconds["total"] - sum(seconds[stage] for stage in LOOKING)


def table(figures: dict[str, Any]) -> str:
    """The report as lines for people."""
    seconds, looked = figures["seconds"], figures["images_decoded"]
    where = figures["machine"]
    lines = [
        f"{figures['model']}, {figures['layers']} layers, {figures['precision']}, plan {figures['plan']['name']}, "
        f"reward {figures['reward']}, extractor {figures['extractor']}",
        f"{where['device']}, {where['threads']} threads, {where['system']}, torch {where['torch']}",
        "",
        f"{'stage':<24}{'seconds':>10}{'share':>8}{'raw':>10}",
    ]
    for stage, value in seconds.items():
        lines.append(f"{stage:<24}{value:>10.3f}{value / seconds['total']:>8.1%}{figures['seconds_raw'][stage]:>10.3f}")
    lines += [
        "",
        f"{'scale':<8}{'samples':>8}{'seconds':>10}{'GFLOP':>10}",
        *_scale_lines(figures),
        "",
        f"token forwards            {figures['tokens']:,} (raw {figures['tokens_raw']:,})",
        f"images decoded            {looked['decode']} finished, {looked['decode_for_selection']} to select by",
        f"floating-point operations {figures['flops']:.3e}",
        f"transformer               {figures['achieved_flops_per_s'] / 1e9:,.1f} GFLOP/s of "
        f"{figures['ceiling_flops_per_s'] / 1e9:,.1f} in a matrix product; "
        f"{figures['transformer_over_floor']:.2f}x its counted floor",
        f"warm-up                   {figures['seconds_warm_up']:.1f} s",
        f"search's own overhead     {figures['overhead_share']:.2%}",
        f"against raw generation    {figures['ratio_to_raw']:.2f}x (tokens {figures['ratio_to_raw_tokens']:.2f}x, "
        f"operations {figures['ratio_to_raw_flops']:.2f}x; with looking {figures['ratio_to_raw_with_looking']:.2f}x)",
        f"keys and values, peak     {figures['peak_cache_bytes'] / 2**20:,.1f} MiB "
        f"(formula {figures['formula_cache_bytes'] / 2**20:,.1f} MiB)",
        f"memory, peak              {figures['peak_memory_bytes'] / 2**20:,.0f} MiB",
    ]
    return "\n".join(lines)


def _scale_lines(figures: dict[str, Any]) -> Sequence[str]:
    survivors = [figures["plan"]["samples"], *figures["plan"]["survivors"]]
    rows = zip(figures["seconds_transformer_by_scale"], figures["flops_transformer_by_scale"], strict=True)
    return [f"{s:<8}{survivors[s]:>8}{t:>10.3f}{f / 1e9:>10.2f}" for s, (t, f) in enumerate(rows)]
