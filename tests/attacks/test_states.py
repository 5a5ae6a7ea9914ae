"""Saved states and plans that are broken, crafted or lie: one line that names file and remedy, or what is right."""

import json
import os
import random
import struct

import pytest
import torch
from harness import Kind, attack, corruptions, spoil
from tiny_models import make_conditioning, make_tiny_model

from lab.experiment.prompts import read_prompts
from ttsvar_core.decoding import decode
from ttsvar_core.reading import UnusableFile
from ttsvar_core.sampling import sample
from ttsvar_core.search.plan import Plan, tts_var
from ttsvar_core.search.plan_file import load_plan, save_plan
from ttsvar_core.search.save import describe_file, load_state, save_state
from ttsvar_core.search.saved import MAX_FEATURE_BYTES, read_saved
from ttsvar_core.state import start
from ttsvar_core.weights.write import CHECKSUM, NO_CHECKSUM, write_safetensors

MODEL, CONDITIONING = make_tiny_model(), make_conditioning()
REFUSALS = (ValueError, OSError)


def grown(cache=False):
    state = sample(start(MODEL, CONDITIONING, 4, 5), 1).with_scores(torch.tensor([0.1, 0.2, 0.3, 0.4]))
    return sample(state.select([3, 1, 1]), 3)


def write_state(folder, cache=False):
    save_state(grown(), folder / "a.state.safetensors", with_cache=cache)
    return folder / "a.state.safetensors"


def goes_on(state):
    """Whether everything about a loaded state fits together: it is sampled to its end and shown."""
    state = state if state.finished else sample(state, len(state.schedule) - 1)
    return torch.isfinite(decode(state)).all() and len(state.steps) == len(state.bits) and len(state.scores) == state.samples


def loaded(path):
    return load_state(path, MODEL, CONDITIONING)


def parts(path):
    """Header and data of a safetensors file."""
    data = path.read_bytes()
    size = struct.unpack("<Q", data[:8])[0]
    return json.loads(data[8 : 8 + size]), data[8 + size :]


def put_together(path, header, data):
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)


def without_checksum(path):
    """The file as early versions wrote it."""
    header, data = parts(path)
    del header["__metadata__"][CHECKSUM]
    put_together(path, header, data)
    return path


STATE = Kind("state", write_state, loaded, goes_on)
KEPT = Kind("state with keys and values", lambda folder: without_checksum(write_state(folder, cache=True)), loaded, goes_on)
EARLY = Kind("early state", lambda folder: without_checksum(write_state(folder)), loaded, goes_on)


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    """Bytes of a good file of every kind."""
    folder = tmp_path_factory.mktemp("good")
    return {kind.name: kind.write(folder).read_bytes() for kind in (STATE, KEPT, EARLY, PLAN)}


def ways(kind):
    example = b"\0" * 8 + b"{" if kind is not PLAN else b"{}"
    return [pytest.param(kind, name, id=f"{kind.name}, {name}") for name in corruptions(example)]


def runs(plan):
    try:
        plan.check(13)
    except ValueError as error:
        return "\n" not in str(error)
    return isinstance(plan, Plan)


def write_plan(folder):
    save_plan(tts_var(1, 5), folder / "plan.json")
    return folder / "plan.json"


PLAN = Kind("plan", write_plan, load_plan, runs)


@pytest.mark.parametrize(("kind", "way"), [*ways(STATE), *ways(KEPT), *ways(EARLY), *ways(PLAN)])
def test_spoiled(kind, way, good, tmp_path):
    path = tmp_path / "spoiled.file"
    path.write_bytes(spoil(good[kind.name], way))
    answer = attack(kind, path, REFUSALS)
    if kind is STATE:
        assert answer.error is not None or path.read_bytes() == good[kind.name]


def test_good_files_of_every_kind_load(good, tmp_path):
    for kind in (STATE, KEPT, EARLY, PLAN):
        (tmp_path / "good").write_bytes(good[kind.name])
        assert kind.right(kind.open(tmp_path / "good"))


def test_every_changed_byte_is_refused(good, tmp_path):
    """Of a state with a checksum: anywhere, whatever the byte meant."""
    path, whole, draw = tmp_path / "a", good["state"], random.Random(0)
    for place in range(len(whole)):
        changed = bytearray(whole)
        changed[place] ^= draw.randrange(1, 256)
        path.write_bytes(changed)
        with pytest.raises((ValueError, LookupError, TypeError, AttributeError, RecursionError)):
            read_saved(path).check_bytes()


def nested(key, *path):
    """A function that sets about[key][path...] to a value."""

    def change(about, value):
        for step in (key, *path)[:-1]:
            about = about[step]
        about[(key, *path)[-1]] = value

    return change


WRONG = {
    nested("samples"): (10**6, 10**30, 0, -1, 4, 2, 1.5, "3", None, [3], True),
    nested("grids"): ([], [[1, 1]], [[1, 1], [10**6, 10**6]], [[1, 1], [2, 2], [3, 3], [4, 4], [2**19] * 2], 5, None, [[1]], "1x1"),
    nested("rope_grid"): ([0, 0], [6], [6, 6, 6], None, ["a", 6], [2**60, 1]),
    nested("seed"): (-1, 2**64, 0.5, None, "1"),
    nested("next_scale"): (-1, 6, 5, 3, 0, None, 10**9),
    nested("prompt"): ("another", None, 5, ["a tiny prompt"], "\ud800"),
    nested("negative_prompt"): ("x", 5, {}),
    nested("model"): (None, 3),
    nested("model_fingerprint"): ("tiny-1", None, [], 7),
    nested("text_sketch"): (None, [], [1.0], "abc", [1e999] * 17, [None] * 17, {"a": 1}, 5),
    nested("steps"): ([], None, [[1, 1, 1, [0]]] * 3, [[1, 0, 1, [0]]] * 4, [[1, 1, 1, [5]]] * 4, [[1, 1, 1]] * 4, [5] * 4, {}),
    nested("steps", 0): (["3", 1, 1, [0]], [[3, 3], 1, 1, [0]], [1e999, 1, 1, [0]], [True, 1, 1, [0]], [3, 1, 1, [-(10**30)]]),
    nested("lineage"): (None, [5], [{}], 7),
    nested("lineage", 0, "ancestors"): ([3, 1], [4, 1, 1], [-1, 1, 1], [10**9] * 3, None, ["a"] * 3),
    nested("lineage", 0, "scores"): ([], [0.1], [1e999] * 4, ["a"] * 4, 5),
    nested("lineage", 0, "scale"): (7, -2, None, 10**9),
    nested("lineage", 0, "ess"): ("all", None, 1e999),
    nested("lineage", 0, "reason"): (None, 5, "\udfff"),
    nested("lineage", 0, "more"): (1,),
}


@pytest.mark.parametrize(
    ("change", "value"), [pytest.param(change, value, id=repr(value)[:40]) for change, values in WRONG.items() for value in values]
)
def test_a_state_that_says_what_it_is_not(change, value, tmp_path):
    """The rest of the file stays as it was, as for a file crafted to load: without a checksum."""
    path = without_checksum(write_state(tmp_path))
    header, data = parts(path)
    about = json.loads(header["__metadata__"]["state"])
    change(about, value)
    header["__metadata__"]["state"] = json.dumps(about)
    put_together(path, header, data)
    assert attack(STATE, path, REFUSALS).error is not None


@pytest.mark.parametrize("entry", ["model", "prompt", "text_sketch", "grids", "samples", "seed", "next_scale", "steps", "lineage"])
def test_a_state_without_an_entry(entry, tmp_path):
    path = without_checksum(write_state(tmp_path))
    header, data = parts(path)
    about = json.loads(header["__metadata__"]["state"])
    del about[entry]
    header["__metadata__"]["state"] = json.dumps(about)
    put_together(path, header, data)
    error = attack(STATE, path, REFUSALS).error
    assert isinstance(error, UnusableFile) and f"no entry '{entry}'" in str(error)
    with pytest.raises(UnusableFile, match="no entry"):
        describe_file(path)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("rows.00", torch.tensor([0, 1, 9])), ("rows.00", torch.tensor([0, -1, 1])), ("rows.00", torch.zeros(2, dtype=torch.int64)),
        ("rows.00", None), ("keys.01.000", None), ("values.02.001", torch.zeros(1)),
        ("keys.00.000", torch.zeros(3, 4, 2, 1, 32)), ("keys.00.000", torch.full((2, 2, 2, 1, 32), torch.nan)),
        ("keys.00.001", torch.zeros(2, 4, 2, 1, 32, dtype=torch.int32)), ("scores", torch.zeros(3, 4)),
        ("scores", torch.full((3, 5), torch.inf)), ("bits.03", None),
        ("bits.03", torch.zeros(3, dtype=torch.uint8)), ("scores", None), ("log_weights", torch.zeros(3)),
        ("log_weights", torch.zeros(4, dtype=torch.float64)), ("log_weights", torch.full((3,), torch.nan, dtype=torch.float64)),
    ],
)
def test_a_state_with_other_tensors(name, value, tmp_path):
    from safetensors.torch import load_file

    path = write_state(tmp_path, cache=True)
    metadata = parts(path)[0]["__metadata__"]
    tensors = load_file(path)
    tensors = {key: tensor for key, tensor in tensors.items() if key != name} | ({} if value is None else {name: value})
    write_safetensors(path, tensors, metadata | {CHECKSUM: NO_CHECKSUM})
    assert isinstance(attack(STATE, path, REFUSALS).error, UnusableFile)


def test_a_few_bytes_that_claim_a_million_samples_or_a_giant_picture_allocate_nothing(tmp_path):
    """A file that lies in nothing but its numbers: no scale is sampled, so there is nothing it would have to hold."""
    save_state(start(MODEL, CONDITIONING, 1, 0), path := tmp_path / "a")
    header, _ = parts(path)
    for changes in ({"samples": 2**20}, {"grids": [[1, 1], [2**13, 2**13]]}):
        about = json.loads(header["__metadata__"]["state"]) | changes
        scores = torch.zeros(about["samples"], len(about["grids"]))
        write_safetensors(path, {"scores": scores}, header["__metadata__"] | {CHECKSUM: NO_CHECKSUM, "state": json.dumps(about)})
        error = attack(STATE, path, REFUSALS).error
        assert f"at most {MAX_FEATURE_BYTES / 2**20:.0f} are loaded" in str(error)
    path.unlink()


@pytest.mark.skipif(os.name != "posix", reason="named pipes")
@pytest.mark.parametrize("reader", [loaded, describe_file, load_plan, read_prompts])
@pytest.mark.parametrize("what", ["pipe", "folder", "device", "nothing"])
def test_only_regular_files_are_opened(reader, what, tmp_path):
    path = tmp_path / "a"
    if what == "pipe":
        os.mkfifo(path)
    elif what == "folder":
        path.mkdir()
    elif what == "device":
        path.symlink_to("/dev/zero")
    error = attack(Kind(what, lambda folder: folder, reader, bool), path, REFUSALS).error
    assert "no file" in str(error) if what == "nothing" else "not a regular file" in str(error)


@pytest.mark.parametrize(
    "text",
    [
        "5", "null", "true", '"raw"', "[]", '{"samples": null}', '{"samples": 1e999}', '{"samples": NaN}', '{"samples": {}}',
        '{"samples": 1000000000}', '{"samples": 1, "stages": 5}', '{"samples": 1, "stages": [5]}', '{"samples": 1, "stages": "ab"}',
        '{"samples": 1, "stages": {"kind": "cluster"}}', '{"samples": 1, "stages": [{"kind": []}]}',
        '{"samples": 1, "stages": [{"kind": "score", "scale": null}]}',
        '{"samples": 1, "stages": [{"kind": "score", "scale": [0]}]}',
        '{"samples": 1, "stages": [{"kind": "resample", "scale": 0, "keep": 1, "lambda": []}]}', '{"samples": ' + "1" * 5000 + "}",
        '{"survivors": null}', '{"survivors": [1e999]}',
        '{"survivors": [NaN]}',
        '{"survivors": ["1", {}]}', '{"survivors": [1000000000]}', '{"survivors": [1], "samples": 1e30}', '{"survivors": {"a": 1}}',
        '{"survivors": [1], "selectors": 5}', '{"survivors": [1], "selectors": {"0": 5}}',
        '{"survivors": [1], "selectors": {"x": {}}}',
        '{"survivors": [1], "selectors": {"0": {"kind": []}}}',
        '{"survivors": [1], "selectors": {"0": {"kind": "potential", "lambda": []}}}',
        '{"survivors": [1], "score_at": 5}', '{"survivors": [1], "score_at": [null]}', '{"survivors": [1], "score_at": [[0]]}',
        '{"survivors": [' + "1" * 5000 + "]}", "survivors: 1", "",
    ],
)
def test_a_plan_that_is_none(text, tmp_path):
    (tmp_path / "plan.json").write_text(text)
    assert isinstance(attack(PLAN, tmp_path / "plan.json", REFUSALS).error, UnusableFile)


@pytest.mark.parametrize("content", [b"\xff\xfe", b'{"prompt": 5', b'["a"]', b"[" * 200_000, b"", b" \n"])
def test_a_list_of_prompts_that_is_none(content, tmp_path):
    (tmp_path / "p.jsonl").write_bytes(content)
    kind = Kind("prompts", lambda folder: folder, read_prompts, bool)
    assert isinstance(attack(kind, tmp_path / "p.jsonl", REFUSALS).error, UnusableFile)
