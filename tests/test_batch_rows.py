"""Rows of a LATENT: everything that belongs to a sample goes with it."""

from __future__ import annotations

import pytest
import torch
from host_stand_in import PACK, load_pack


@pytest.fixture(scope="module")
def module(tmp_path_factory):
    import importlib

    with load_pack(tmp_path_factory.mktemp("host")):
        yield importlib.import_module(f"{PACK}.nodes.batch_rows")


def latent(count: int = 4) -> dict:
    """A LATENT whose every entry says which sample it belongs to."""
    names = torch.arange(count, dtype=torch.float32)
    rows = {
        "samples": names[:, None, None, None].expand(count, 2, 3, 3), "noise_mask": names[:, None, None].expand(count, 5, 5),
        "batch_index": [10 + row for row in range(count)], "labels": [f"s{row}" for row in range(count)],
    }
    return {**rows, "type": "audio", "downscale_ratio_spacial": 8, "table": torch.zeros(count + 1)}


@pytest.mark.parametrize("rows", [[0], [3, 1], [2, 2, 0], [0, 1, 2, 3]])
def test_everything_of_a_sample_goes_along_in_order(module, rows):
    given = latent()
    chosen = module.select_rows(given, rows)
    assert chosen["samples"][:, 0, 0, 0].tolist() == rows and chosen["noise_mask"][:, 0, 0].tolist() == rows
    assert chosen["labels"] == [f"s{row}" for row in rows] and module.latent_rows(chosen) == len(rows)
    assert (chosen["type"], chosen["downscale_ratio_spacial"]) == ("audio", 8) and chosen["table"] is given["table"]
    assert [number % 4 for number in chosen["batch_index"]] == [(10 + row) % 4 for row in rows]
    assert len(set(chosen["batch_index"])) == len(rows)
    assert given["batch_index"] == [10, 11, 12, 13] and len(given["samples"]) == 4


def test_first_takers_keep_their_noise_and_copies_get_their_own(module):
    assert module.select_rows(latent(), [2, 1, 2, 2])["batch_index"] == [12, 11, 16, 20]
    assert module.select_rows({"samples": torch.zeros(3, 4, 2, 2)}, [2, 0])["batch_index"] == [2, 0]


def test_one_mask_serves_all_and_few_masks_repeat(module):
    given = latent()
    one = module.select_rows({**given, "noise_mask": torch.ones(1, 5, 5)}, [3, 3])
    assert one["noise_mask"].shape == (1, 5, 5)
    two = torch.arange(2.0)[:, None, None].expand(2, 5, 5)
    assert module.select_rows({**given, "noise_mask": two}, [3, 0, 1])["noise_mask"][:, 0, 0].tolist() == [1, 0, 1]


def test_a_batch_of_one_mask_per_one_sample_and_no_mask_at_all(module):
    assert module.select_rows({"samples": torch.ones(1, 4, 2, 2), "noise_mask": None}, [0, 0])["noise_mask"] is None
    assert module.select_rows({"samples": torch.ones(1, 4, 2, 2)}, [0, 0])["samples"].shape[0] == 2


def test_nested_samples_are_taken_part_by_part(module):
    class Nested:
        is_nested = True

        def __init__(self, tensors):
            self.tensors = list(tensors)

        def unbind(self):
            return self.tensors

    names = torch.arange(3.0)
    chosen = module.select_rows({"samples": Nested([names[:, None], names[:, None, None]])}, [2, 0])["samples"]
    assert [part.flatten().tolist() for part in chosen.unbind()] == [[2, 0], [2, 0]]


@pytest.mark.parametrize("rows", [[], [4], [-1], [0, 9]])
def test_rows_that_are_not_there_are_refused(module, rows):
    with pytest.raises(ValueError, match="0 to 3"):
        module.select_rows(latent(), rows)
