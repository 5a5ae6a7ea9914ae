"""The net: what was drawn when a case was recorded, is drawn still, bit for bit."""

from __future__ import annotations

import json

import net
import pytest

KEPT = json.loads(net.STORE.read_text(encoding="utf-8"))
NAMES = sorted({name for recorded in KEPT.values() for name in recorded})


@pytest.fixture(scope="module")
def cases():
    return net.cases()


@pytest.fixture(scope="module")
def kept():
    return KEPT.get(net.arithmetic()) or pytest.skip("the pictures were not recorded on a processor and torch that round as here")


def test_every_case_is_recorded(cases):
    """On one processor at least; others have recorded none that are gone."""
    assert set(cases) == set(NAMES) and any(set(cases) == set(recorded) for recorded in KEPT.values())


@pytest.mark.parametrize("name", NAMES)
def test_the_same_pictures(cases, kept, name):
    if name not in kept:
        pytest.skip("this case was not recorded where sums round as here")
    assert cases[name]() == kept[name]
