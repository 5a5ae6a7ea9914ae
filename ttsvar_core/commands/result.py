"""What checking one model against its reference gave."""

from typing import NamedTuple


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
