"""What checking one model against its reference gave."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from torch import Tensor


class VerifyResult(NamedTuple):
    """One line of `python -m ttsvar_core verify`.

    name: of the model. measures: what was compared, and the largest absolute difference (or, for bits, the share that is
    equal). ok: whether all are in bounds. note: why it failed where there is nothing to measure.
    """

    name: str
    measures: dict[str, float]
    ok: bool
    note: str = ""

    def line(self) -> str:
        measures = [f"{what} {value:.6f}" if what == "bits" else f"{what} {value:.3g}" for what, value in self.measures.items()]
        return "  ".join([self.name, *measures, "ok" if self.ok else "FAIL", *([self.note] if self.note else [])])


def largest_difference(ours: Tensor, reference: Tensor) -> float:
    """The largest absolute difference; infinite for another shape or for values that are not numbers."""
    if ours.shape != reference.shape:
        return float("inf")
    return float((ours.float() - reference.float()).abs().max().nan_to_num(nan=float("inf")))
