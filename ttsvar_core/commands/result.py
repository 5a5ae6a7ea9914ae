"""What checking one model against its reference gave."""

from typing import NamedTuple


class VerifyResult(NamedTuple):
    """One line of `python -m ttsvar_core verify`.

    name: of the model. measures: what was compared, and the largest absolute difference. ok: whether all are in bounds.
    """

    name: str
    measures: dict[str, float]
    ok: bool
