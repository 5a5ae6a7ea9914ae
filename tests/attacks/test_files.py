"""Every kind of model file, spoiled in every way: a line that helps, or what is right, in seconds and in bounded memory."""

import os
import warnings

import pytest
from attacks.harness import attack, corruptions, open_it, spoil
from attacks.kinds import KINDS

from ttsvar_core.reading import UnusableFile


@pytest.fixture(scope="module", params=KINDS, ids=lambda kind: kind.name)
def kind(request):
    return request.param


@pytest.fixture(scope="module")
def good(kind, tmp_path_factory):
    """A good file of this kind, opened once, so that imports and caches count against no attack."""
    path = kind.write(tmp_path_factory.mktemp("attack"))
    assert open_it(kind, path).error is None
    return path


def cases(data):
    """Name and seed of every corruption; the random ones several times."""
    return [(name, seed) for name in corruptions(data) for seed in range(3 if "flipped" in name else 1)]


def test_every_corruption(kind, good):
    data, failures = good.read_bytes(), []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name, seed in cases(data):
            good.write_bytes(spoil(data, name, seed))
            try:
                attack(kind, good, (UnusableFile,), (good.parent.name, good.stem))
            except (AssertionError, Exception) as failure:
                failures.append(f"{name}, seed {seed}: {failure}")
    good.write_bytes(data)
    assert not failures, "\n".join([f"{len(failures)} of {len(cases(data))}:", *failures])


def test_a_pipe_is_refused(kind, good):
    data = good.read_bytes()
    good.unlink()
    os.mkfifo(good)
    try:
        answer = attack(kind, good, (UnusableFile,), (good.parent.name,))
    finally:
        good.unlink()
        good.write_bytes(data)
    assert "not a regular file" in str(answer.error)


def test_there_are_many(tmp_path):
    count = 0
    for kind in KINDS:
        (folder := tmp_path / kind.name).mkdir()
        count += len(cases(kind.write(folder).read_bytes()))
    assert count >= 400
