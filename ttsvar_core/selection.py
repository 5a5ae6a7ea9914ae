"""What a selector decides: which samples go on, and with what evidence."""

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

_LISTED = 5  # wrong rows that a message names


class Selection(NamedTuple):
    """The outcome of one selection; `SearchState.select` carries it out.

    ancestors: (K,) int64, for each survivor the row it had before the selection (rows may repeat).
    log_weights: (P,) float64, unnormalised log-weights of the P samples it was drawn from (zeros: all equal).
    ess: effective sample size of those weights, between 1 and P.
    reason: the decision in words, for reports and nodes.
    resampled: whether the weights were spent on it: survivors of a resampling start anew, all others keep their weights.
    """

    ancestors: Tensor
    log_weights: Tensor
    ess: float
    reason: str
    resampled: bool = False

    def __repr__(self) -> str:
        return f"Selection({len(self.log_weights)} -> {self.ancestors.tolist()}, ess {self.ess:.2f}, {self.reason})"


def unweighted(ancestors, samples: int, reason: str) -> Selection:
    """The selection of `ancestors` among `samples` equally weighted samples."""
    rows = torch.as_tensor(np.asarray(ancestors), dtype=torch.int64)
    return Selection(rows, torch.zeros(samples, dtype=torch.float64), float(samples), reason)


def choose(ancestors, samples: int) -> Selection:
    """A selection made by somebody else, for example a person looking at a contact sheet.

    ancestors: rows to keep, in this order; a row may be named more than once.
    Raises ValueError for an empty choice or a row that does not exist.
    """
    rows = [int(row) for row in ancestors]
    check_rows(rows, samples)
    return unweighted(rows, samples, "chosen by hand")


def branching(samples: int, candidates: int) -> Selection:
    """Every sample `candidates` times: all of them once, then all once more. Copy c of row i is row c * samples + i, so the first
    `samples` rows stay what they are."""
    rows = np.tile(np.arange(samples), candidates)
    return unweighted(rows, samples, f"{candidates} candidates of each from one forward pass")


def check_rows(rows: list[int], samples: int) -> None:
    """Raise ValueError for no rows, or for some that `samples` samples do not have."""
    wrong = [row for row in rows if not 0 <= row < samples]
    if not rows or wrong:
        more = f" and {len(wrong) - _LISTED} more" if len(wrong) > _LISTED else ""
        came = f"rows {wrong[:_LISTED]}{more}" if wrong else "no rows"
        raise ValueError(f"cannot select {came}: there are {samples} samples, name rows from 0 to {samples - 1}")


def check_keep(keep: int, samples: int) -> None:
    """Raise ValueError unless `keep` of `samples` samples can go on: a search never grows."""
    if keep < 1:
        raise ValueError(f"cannot keep {keep} samples; keep at least 1")
    if keep > samples:
        there = "1 sample is" if samples == 1 else f"{samples} samples are"
        raise ValueError(f"keep is {keep}, but only {there} there; keep at most {samples}")


def as_log_weights(log_weights) -> np.ndarray:
    """(P,) float64 array of log-weights, checked: -inf (weight zero) is legal, NaN and +inf are not.

    Raises ValueError naming the first sample that is wrong, and when no sample has a positive weight.
    """
    values = np.asarray(torch.as_tensor(log_weights, dtype=torch.float64))
    if values.ndim != 1 or values.size == 0:
        raise ValueError(f"log-weights must be one number per sample, got an array of shape {values.shape}")
    wrong = np.isnan(values) | (values == np.inf)
    if wrong.any():
        sample = int(np.argmax(wrong))
        raise ValueError(f"log-weight of sample {sample} is {values[sample]}; expected a number or -inf (weight zero)")
    if np.isneginf(values).all():
        raise ValueError(f"all {values.size} log-weights are -inf: no sample has a positive weight to be drawn with")
    return values


def normalised_weights(log_weights) -> np.ndarray:
    """(P,) float64 weights that sum to one; shifting by the largest log-weight keeps any range of weights finite."""
    values = as_log_weights(log_weights)
    weights = np.exp(values - values.max())
    return weights / weights.sum()


def effective_sample_size(log_weights) -> float:
    """(sum w)^2 / sum w^2 of (P,) log-weights, between 1 and P (Kong, Liu and Wong 1994)."""
    values = as_log_weights(log_weights)
    weights = np.exp(values - values.max())
    return float(weights.sum() ** 2 / np.square(weights).sum())
