"""The net: what the first version drew, is drawn still, bit for bit."""

from __future__ import annotations

import json

import net
import pytest

KEPT = json.loads(net.STORE.read_text(encoding="utf-8"))
NAMES = list(next(iter(KEPT.values())))


@pytest.fixture(scope="module")
def cases():
    return net.cases()


@pytest.fixture(scope="module")
def kept():
    return KEPT.get(net.arithmetic()) or pytest.skip("the pictures were not recorded on a processor and torch that round as here")


def test_every_case_is_recorded(cases):
    assert all(set(recorded) == set(cases) for recorded in KEPT.values())


@pytest.mark.parametrize("name", NAMES)
def test_the_same_pictures(cases, kept, name):
    assert cases[name]() == kept[name]
