"""Muon for the matrices of the blocks, AdamW for the rest."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from lab.training.common import Run, adamw

COEFFICIENTS = 3.4445, -4.7750, 2.0315  # of the Newton-Schulz iteration, as in torch.optim.Muon


def orthogonal(matrices: Tensor, steps: int = 5) -> Tensor:
    """The orthogonal matrices near `matrices` (N, rows, columns): their singular values moved towards 1."""
    a, b, c = COEFFICIENTS
    tall = matrices.shape[1] > matrices.shape[2]
    x = matrices.transpose(1, 2) if tall else matrices
    x = x / x.norm(dim=(1, 2), keepdim=True).clamp_min(1e-7)
    for _ in range(steps):
        gram = x @ x.transpose(1, 2)
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x.transpose(1, 2) if tall else x


class Float32Muon(torch.optim.Muon):
    """torch.optim.Muon in float32, all matrices of a shape at once: on a processor without bfloat16 products, 15 times faster."""

    @torch.no_grad()
    def step(self, closure: Callable[[], Tensor] | None = None) -> None:
        for group in self.param_groups:
            shapes: dict[torch.Size, list[Tensor]] = {}
            for p in group["params"]:
                if p.grad is not None:
                    shapes.setdefault(p.shape, []).append(p)
            for alike in shapes.values():
                self._step_together(alike, group)

    def _step_together(self, matrices: list[Tensor], group: dict[str, Any]) -> None:
        buffers = [self.state[p].setdefault("momentum_buffer", torch.zeros_like(p)) for p in matrices]
        gradients = [p.grad for p in matrices]
        torch._foreach_lerp_(buffers, gradients, 1 - group["momentum"])
        updates = orthogonal(torch.stack(torch._foreach_lerp(gradients, buffers, group["momentum"])))
        rate = group["lr"] * 0.2 * max(matrices[0].shape) ** 0.5  # "match_rms_adamw"
        torch._foreach_mul_(matrices, 1 - group["lr"] * group["weight_decay"])
        torch._foreach_add_(matrices, list(updates), alpha=-rate)


class MuonRun(Run):
    """A training run whose blocks' matrices are stepped by Muon.

    Muon makes a matrix's step orthogonal, at the root mean square of AdamW's steps, so that one learning rate serves both.
    Source: "Muon is Scalable for LLM Training", arXiv 2502.16982.
    """

    def build_optimisers(self) -> dict[str, torch.optim.Optimizer]:
        """Muon for every matrix in a block, AdamW for embeddings, heads, text and all vectors."""
        blocks = self.modules["transformer"].layers
        matrices = [p for block in blocks for p in block.parameters() if p.ndim == 2]
        theirs = {id(p) for p in matrices}
        rest = [p for p in self.modules.parameters() if id(p) not in theirs]
        muon = Float32Muon(matrices, lr=self.args.rate, weight_decay=0.02, adjust_lr_fn="match_rms_adamw")
        return {"muon": muon, "adamw": adamw(rest, self.args.rate)}
