"""The tables of docs/evidence.md are those of the stored results, and the results are of the model in the box."""

import re
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "lab" / "tools"))
import build_evidence as evidence  # noqa: E402

PAGE = evidence.PAGE.read_text(encoding="utf-8")


def test_every_table_is_the_stored_results():
    assert len(evidence.MARK.findall(PAGE)) >= 7
    assert evidence.fill(PAGE) == PAGE


def test_a_changed_table_is_noticed():
    first = evidence.MARK.search(PAGE)
    digit = re.search(r"0\.\d\d", first[0])
    wrong = first[0].replace(digit[0], "0.00", 1)
    assert evidence.fill(PAGE.replace(first[0], wrong)) == PAGE != PAGE.replace(first[0], wrong)


@pytest.mark.parametrize("name", evidence.stored())
def test_the_results_are_of_the_bundled_model(name):
    from ttsvar_core.weights import load_bundled

    world = evidence.read_results(name)["world"]
    assert (world["model"], world["fingerprint"]) == (load_bundled()[0].name, load_bundled()[0].fingerprint)
    assert f"`{world['fingerprint'][:8]}`" in PAGE
    results = evidence.read_results(name)
    prompts = len({one["prompt"] for one in results["units"]})
    told = re.search(rf"^python -m lab\.experiment ([\w-]+) .*--prompts (\d+) .*--out output/{name}$", PAGE, re.MULTILINE)
    assert told[1] in (results["experiment"], "advise") and int(told[2]) == prompts
