"""The net: what the first version drew, is drawn still, bit for bit."""

from __future__ import annotations

import json

import net
import pytest

KEPT = json.loads(net.STORE.read_text(encoding="utf-8"))
NAMES = list(KEPT["cases"])


@pytest.fixture(scope="module")
def cases():
    if net.arithmetic() != KEPT["arithmetic"]:
        pytest.skip("this processor or torch rounds sums otherwise than the one the pictures were recorded on")
    return net.cases()


def test_every_case_is_recorded(cases):
    assert set(cases) == set(KEPT["cases"])


@pytest.mark.parametrize("name", NAMES)
def test_the_same_pictures(cases, name):
    assert cases[name]() == KEPT["cases"][name]
