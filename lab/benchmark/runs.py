"""Run a plan with a clock at every stage, and report it beside raw generation."""

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from ttsvar_core import costs
from ttsvar_core.decoding import sketch
from ttsvar_core.footprint import token_bytes
from ttsvar_core.looks import extractor_look, reward_look
from ttsvar_core.rng import selection_generator
from ttsvar_core.sampling import sample
from ttsvar_core.search.cluster import cluster
from ttsvar_core.search.memory import Sampler
from ttsvar_core.search.plan import Plan, raw
from ttsvar_core.search.plan_file import from_json, to_json
from ttsvar_core.search.run import Result, Step, run
from ttsvar_core.state import SearchState

from .clock import Stages, copy_bandwidth, machine, matmul_ceiling, peak_memory
from .formulas import shared_cache_tokens, traffic_bytes
from .models import SEED, Subject

LOOKING = ("decode_for_selection", "features", "reward")  # stages that serve the search's eyes, counted apart
OVERHEAD = ("sampling", "selection", "other")  # stages that are no forward pass of a model


class Timed:
    """Something whose one method is timed, under a stage named by the method's arguments."""

    def __init__(self, inner: Any, method: str, stages: Stages, stage: Callable[..., str]) -> None:
        self._inner, self._method, self._stages, self._stage = inner, method, stages, stage

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._inner, name)
        if name != self._method:
            return value
        return lambda *given: self._stages.timed(self._stage(*given))(value)(*given)


@dataclass(frozen=True)
class TimedSampler(Sampler):
    """A sampler whose work beside the transformer's is timed."""

    stages: Stages | None = None

    def together(self, state: SearchState, through: int, candidates: int = 1) -> SearchState:
        return self.stages.timed("sampling")(super().together)(state, through, candidates)

    def in_turns(self, state: SearchState, through: int, candidates: int = 1) -> SearchState:
        return self.stages.timed("sampling")(super().in_turns)(state, through, candidates)


def timed_run(
    subject: Subject, plan: Plan, reward: Any, extractor: Any, **memory: Any
) -> tuple[Result, dict[str, float], dict[str, int]]:
    """The search's result, its seconds by stage, and the pictures it decoded. memory: the `Sampler`'s own settings."""
    stages, decoded = Stages(), {"decode": 0, "decode_for_selection": 0}

    def show(state: SearchState) -> Tensor:
        """As `decoding.sketch`, timed apart where the pictures are not finished."""
        stage = "decode" if state.finished else "decode_for_selection"
        decoded[stage] += state.samples
        return stages.timed(stage)(sketch)(state)

    def acted(step: Step) -> None:
        """Selecting is told by the search."""
        stages.seconds["selection"] += step.seconds.get("select", 0.0)

    transformer = Timed(subject.model.transformer, "forward_scale", stages, lambda features, scale, *more: f"transformer {scale}")
    subject = subject._replace(model=replace(subject.model, transformer=transformer))
    state = stages.timed("text")(subject.begin)(plan.samples)
    reward = Timed(reward, "score", stages, lambda *given: "reward")
    extractor = Timed(extractor, "describe", stages, lambda *given: "features")
    sampler = TimedSampler(stages=stages, **memory)
    result = stages.timed("other")(run)(state, plan, reward, extractor, sampler, show, acted)
    stages.seconds["other"] -= stages.seconds["selection"]  # which no clock but the search's own saw
    return result, stages.seconds, decoded


def report(subject: Subject, plan: Plan, reward: Any, extractor: Any, **memory: Any) -> dict[str, Any]:
    """Everything the command prints, as plain JSON values. memory: the `Sampler`'s own settings."""
    model, conditioning, schedule = subject
    device, dtype = model.transformer.device, model.transformer.dtype
    ceiling, bandwidth, warm_up = matmul_ceiling(device, dtype), copy_bandwidth(device), _warm_up(subject)
    alone = timed_run(subject, raw(), reward, extractor, **memory)[1]
    result, taken, decoded = timed_run(subject, plan, reward, extractor, **memory)
    config, branches, image = model.config.transformer, model.config.sampling.branches(len(schedule)), result.images[:1]
    looks = extractor_look(extractor, image), reward_look(reward, image, conditioning.prompt)
    search = costs.Search(model.config, plan, schedule, branches, len(conditioning.text), *looks)
    picture, running = replace(search, plan=raw()), [scale.samples for scale in search.scales]
    total, single, by_scale = search.total, picture.total, [scale.transformer for scale in search.scales]
    traffic = traffic_bytes(config, schedule, running, branches[-1], dtype.itemsize)
    each = token_bytes(config, branches[-1], 1 if memory.get("float8_cache") else dtype.itemsize)
    formula = [tokens * each for tokens in shared_cache_tokens(schedule, running, result.state.lineage)]
    seconds, seconds_raw = _by_stage(taken), _by_stage(alone)
    drawing, drawing_raw = (of["total"] - sum(of[stage] for stage in LOOKING) for of in (seconds, seconds_raw))
    floor = sum(max(work / ceiling, moved / bandwidth) for work, moved in zip(by_scale, traffic, strict=True))
    return {
        "machine": machine(device),
        "model": model.name,
        "layers": config.depth,
        "precision": str(dtype).removeprefix("torch."),
        "schedule": str(schedule),
        "plan": to_json(plan),
        "reward": reward.name,
        "extractor": extractor.name,
        "seconds": seconds,
        "seconds_transformer_by_scale": [taken[f"transformer {s}"] for s in range(len(schedule))],
        "seconds_raw": seconds_raw,
        "seconds_warm_up": warm_up,
        "images_decoded": decoded,
        "tokens": total.token_forwards,
        "tokens_raw": single.token_forwards,
        "flops": total.flops,
        "flops_by_part": search.parts,
        "flops_transformer_by_scale": by_scale,
        "ratio_to_raw_flops": search.parts["transformer"] / picture.parts["transformer"],
        "ratio_to_raw_flops_with_looking": total.flops / single.flops,
        "ratio_to_raw_tokens": total.token_forwards / single.token_forwards,
        "ceiling_flops_per_s": ceiling,
        "ceiling_bytes_per_s": bandwidth,
        "achieved_flops_per_s": sum(by_scale) / seconds["transformer"],
        "floor_seconds_transformer": floor,
        "transformer_over_floor": seconds["transformer"] / floor,
        "overhead_share": sum(seconds[stage] for stage in OVERHEAD) / seconds["total"],
        "ratio_to_raw": drawing / drawing_raw,
        "ratio_to_raw_with_looking": seconds["total"] / seconds_raw["total"],
        "peak_cache_bytes": result.report["peak_cache_bytes"],
        "formula_cache_bytes": max(formula),
        "formula_cache_bytes_by_scale": formula,
        "peak_memory_bytes": peak_memory(device),
    }


def _warm_up(subject: Subject) -> float:
    """Pay once for what only the first call costs: imports, threads, kernels, and compiling for one sample and for several; its
    seconds."""
    began = time.perf_counter()
    cluster(torch.randn(4, 8), 2, selection_generator(SEED, 0))
    for samples in (1, 2):
        sample(subject.begin(samples), min(2, len(subject.schedule) - 1))
    return time.perf_counter() - began


def _by_stage(measured: dict[str, float]) -> dict[str, float]:
    """Seconds by stage, the transformer's scales taken together, and the total."""
    stages = ("text", "transformer", "sampling", "decode", *LOOKING, "selection", "other")
    seconds = dict.fromkeys(stages, 0.0)
    for name, value in measured.items():
        seconds[name.split()[0]] += value
    return {**seconds, "total": sum(seconds.values())}


def table(figures: dict[str, Any]) -> str:
    seconds, looked, where = figures["seconds"], figures["images_decoded"], figures["machine"]
    shares = ", ".join(f"{part} {flops / figures['flops']:.1%}" for part, flops in figures["flops_by_part"].items() if flops)
    by_scale = zip(figures["seconds_transformer_by_scale"], figures["flops_transformer_by_scale"], strict=True)
    plan = from_json(figures["plan"])
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
        *(f"{s:<8}{plan.running(s):>8}{took:>10.3f}{work / 1e9:>10.2f}" for s, (took, work) in enumerate(by_scale)),
        "",
        f"token forwards            {figures['tokens']:,} (raw {figures['tokens_raw']:,})",
        f"images decoded            {looked['decode']} finished, {looked['decode_for_selection']} to select by",
        f"floating-point operations {figures['flops']:.3e} ({shares})",
        f"transformer               {figures['achieved_flops_per_s'] / 1e9:,.1f} GFLOP/s of "
        f"{figures['ceiling_flops_per_s'] / 1e9:,.1f} in a matrix product; "
        f"{figures['transformer_over_floor']:.2f}x its counted floor",
        f"warm-up                   {figures['seconds_warm_up']:.1f} s",
        f"search's own overhead     {figures['overhead_share']:.2%}",
        f"against raw generation    {figures['ratio_to_raw_with_looking']:.2f}x in time, "
        f"{figures['ratio_to_raw_flops_with_looking']:.2f}x in operations, all that runs counted",
        f"  what draws alone        {figures['ratio_to_raw']:.2f}x in time, {figures['ratio_to_raw_flops']:.2f}x in operations, "
        f"{figures['ratio_to_raw_tokens']:.2f}x in tokens",
        f"keys and values, peak     {figures['peak_cache_bytes'] / 2**20:,.1f} MiB "
        f"(formula {figures['formula_cache_bytes'] / 2**20:,.1f} MiB)",
        f"memory, peak              {figures['peak_memory_bytes'] / 2**20:,.0f} MiB",
    ]
    return "\n".join(lines)
