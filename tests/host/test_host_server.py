"""The pack in a real ComfyUI: start, catalogue, every graph, caching, errors, interrupt, memory."""

from __future__ import annotations

import copy
import io
import json
import re
import subprocess
import time

import pytest
from comfyui_server import ROOT, Refused, Server, cached, downstream, numbers
from PIL import Image

GRAPHS = sorted(path.stem for path in (ROOT / "workflows").glob("*.json"))
CACHE_MODES = ("--cache-classic", "--cache-lru 10", "--cache-none")
LIBRARY = """
import sys, torch
sys.path.insert(0, {root!r})
from ttsvar_core.weights import load_bundled
from ttsvar_core.infinity.text import encode_prompt
from ttsvar_core.rewards.scenes import SceneReward
from ttsvar_core.search.plan import tts_var
from ttsvar_core.search.run import run
from ttsvar_core.extractors.latent_pool import LatentPool
from ttsvar_core.search.save import save_state
from ttsvar_core.state import start
model, encoder = load_bundled()
plan = tts_var(1)
result = run(start(model, encode_prompt(encoder, {prompt!r}), plan.samples, {seed}), plan, SceneReward(), LatentPool())
torch.save(result.images, {out!r} + ".images")
save_state(result.state, {out!r} + ".state")
"""


def quiet(prompt: dict) -> dict:
    """A copy of a graph without previews and drawings, for speed."""
    prompt = {number: node for number, node in copy.deepcopy(prompt).items() if node["class_type"] != "TTSVAR_InspectState"}
    for node in prompt.values():
        if "preview" in node["inputs"]:
            node["inputs"]["preview"] = "off"
    return prompt


def with_seed(prompt: dict, seed: int) -> dict:
    prompt = copy.deepcopy(prompt)
    for number in numbers(prompt, "TTSVAR_StartState"):
        prompt[number]["inputs"]["seed"] = seed
    return prompt


def saving_the_state(prompt: dict, name: str) -> dict:
    """A graph that also writes the state before Select Best to disk."""
    prompt = copy.deepcopy(prompt)
    scored = prompt[numbers(prompt, "TTSVAR_SelectBest")[0]]["inputs"]["state"]
    prompt["900"] = {
        "class_type": "TTSVAR_SaveState", "inputs": {"state": scored, "filename_prefix": name, "with_cache": False}
    }
    return prompt


def newest(server: Server, pattern: str) -> dict:
    """What the newest state file holds; its metadata may be written in any order."""
    return content(max((server.base / "output").glob(pattern), key=lambda path: path.stat().st_mtime_ns))


def content(path) -> dict:
    from safetensors import safe_open

    with safe_open(path, "np") as file:
        return {**file.metadata(), **{name: file.get_tensor(name).tobytes() for name in file.keys()}}  # noqa: SIM118


def pixels(picture: bytes) -> tuple:
    with Image.open(io.BytesIO(picture)) as opened:
        return opened.size, opened.convert("RGB").tobytes()


def answer(server: Server, done: dict, prompt: dict) -> tuple:
    return pixels(server.pictures(done)[numbers(prompt, "SaveImage")[0]][0])


def test_the_pack_starts_fast_and_says_nothing(server):
    log = re.sub(r"\x1b\[[0-9;]*m", "", server.log.read_text(errors="replace"))
    seconds = re.search(r"([\d.]+) seconds: .*custom_nodes/ttsvar", log)
    assert seconds and float(seconds[1]) < 1.0
    ours = [line for line in log.splitlines() if "ttsvar" in line.lower() and "seconds:" not in line]
    assert not [line for line in ours if "extra search path" not in line], ours


def test_the_catalogue_the_templates_the_words_and_the_help(server):
    ours = {name for name in server.catalogue if name.startswith("TTSVAR_")}
    assert len(ours) == 27 and all(server.catalogue[name]["search_aliases"] for name in ours)
    assert set(json.loads(server.get("/workflow_templates"))["ttsvar"]) == set(GRAPHS)
    for name in GRAPHS:
        assert json.loads(server.get(f"/api/workflow_templates/ttsvar/{name}.json"))["nodes"]
    words = json.loads(server.get("/i18n"))
    assert ours <= set(words["zh"]["nodeDefs"]) and ours <= set(words["en"]["nodeDefs"])
    for name in ours:
        for language in ("", "/zh"):
            assert server.get(f"/extensions/ttsvar/docs/{name}{language}.md").decode().startswith("# ")


@pytest.mark.parametrize("name", [name for name in GRAPHS if name != "13_any_model"])  # which test_any_model.py runs, made small
def test_every_graph_runs_to_pictures(server, name):
    prompt = chosen(server.prompt_of(name))
    shown = server.pictures(server.run(prompt))
    showing = ("SaveImage", "PreviewImage", "TTSVAR_InspectState", "TTSVAR_ChooseSketches", "TTSVAR_ChooseBatch")
    assert set(shown) == {number for number, node in prompt.items() if node["class_type"] in showing}
    for pictures in shown.values():
        for picture in pictures:
            size, content = pixels(picture)
            assert min(size) >= 64 and len(set(content)) > 8, f"{name}: a blank picture of {size}"


def test_a_second_run_is_fully_cached_and_a_changed_lambda_runs_only_what_follows(server):
    prompt = with_seed(server.prompt_of("03_full_search"), 21)
    server.run(prompt)
    again = server.run(prompt)
    assert cached(again) == set(prompt)
    last = numbers(prompt, "TTSVAR_PotentialResampler")[-1]
    prompt[last]["inputs"]["lambda_"] = 3.5
    assert cached(server.run(prompt)) == set(prompt) - downstream(prompt, last)


def test_a_state_loaded_by_wire_stays_cached_though_a_newer_one_is_on_disk(server):
    prompt = with_seed(quiet(server.prompt_of("08_resume_from_disk")), 9)
    server.run(prompt)
    saved = max((server.base / "output").glob("ttsvar/resume_*"), key=lambda path: path.stat().st_mtime_ns)
    (saved.parent / "newer.state.safetensors").write_bytes(saved.read_bytes())
    assert cached(server.run(prompt)) == set(prompt)


def test_graph_one_node_and_library_agree_to_the_last_bit(server, tmp_path):
    prompt = saving_the_state(quiet(with_seed(server.prompt_of("03_full_search"), 4)), "parity/wired")
    wired = answer(server, server.run(prompt), prompt)
    words = prompt[numbers(prompt, "TTSVAR_PromptEncode")[0]]["inputs"]["text"]
    one = quiet(server.prompt_of("01_quick_start"))
    generate = numbers(one, "TTSVAR_Generate")[0]
    one[generate]["inputs"] |= {"seed": 4, "method": "TTS-VAR", "n": 1, "budget": 0, "attempts": 1, "prompt": words}
    one["900"] = {
        "class_type": "TTSVAR_SaveState",
        "inputs": {"state": [generate, 2], "filename_prefix": "parity/one", "with_cache": False},
    }
    assert answer(server, server.run(one), one) == wired
    code = LIBRARY.format(root=str(ROOT), prompt=words, seed=4, out=str(tmp_path / "library"))
    subprocess.run([str(server.python), "-c", code], check=True, env={"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"})
    library = content(tmp_path / "library.state")
    assert newest(server, "parity/wired_*") == library
    assert newest(server, "parity/one_*") == library


@pytest.fixture(scope="module")
def expected(server):
    """Picture and saved state of one graph with two lambdas, under the default cache mode."""
    return run_twice(server, "default")


def run_twice(server: Server, name: str) -> list[tuple]:
    """Run a graph, run it again, and run it with another lambda; the picture and the state that each run ends with."""
    prompt = quiet(with_seed(server.prompt_of("03_full_search"), 4))
    last, found = numbers(prompt, "TTSVAR_PotentialResampler")[-1], []
    for place, lam in enumerate((10.0, 10.0, 0.5)):
        prompt[last]["inputs"]["lambda_"] = lam
        file = f"modes/{name}{place}"  # a name of its own, so that saving is never cached
        saving = saving_the_state(prompt, file)
        found.append((answer(server, server.run(saving), saving), newest(server, f"{file}_*")))
    return found


@pytest.mark.parametrize("mode", CACHE_MODES)
def test_every_cache_mode_gives_the_same_picture(expected, mode, tmp_path):
    assert expected[0] == expected[1]
    other = Server(tmp_path, *mode.split())
    try:
        assert run_twice(other, "other") == expected
    finally:
        other.stop()


def test_an_interrupt_leaves_the_server_and_the_next_run_sound(server):
    prompt = with_seed(server.prompt_of("03_full_search"), 77)
    prompt[numbers(prompt, "TTSVAR_StartState")[0]]["inputs"]["samples"] = 64
    for kind in ("TTSVAR_ClusterSelector", "TTSVAR_PotentialResampler"):
        for node in numbers(prompt, kind):
            prompt[node]["inputs"]["keep"] = 64  # nothing is dropped, so that the run takes seconds on any machine
    number = server.queue(prompt)
    time.sleep(1.0)
    interrupt(server)
    stopped = server.wait(number)
    assert [name for name, _ in stopped["status"]["messages"]][-1] == "execution_interrupted", stopped["status"]
    prompt = with_seed(server.prompt_of("03_full_search"), 78)
    after = answer(server, server.run(prompt), prompt)
    fresh = quiet(prompt)
    fresh[numbers(fresh, "TTSVAR_InfinityLoader")[0]]["inputs"]["precision"] = "float32"  # nothing of it is cached
    assert answer(server, server.run(fresh), fresh) == after


def interrupt(server: Server) -> None:
    import urllib.request

    urllib.request.urlopen(urllib.request.Request(f"{server.address}/interrupt", data=b"", method="POST"), timeout=30).read()


def test_widget_values_out_of_bounds_are_refused_at_the_node(server):
    prompt = server.prompt_of("03_full_search")
    sampler = numbers(prompt, "TTSVAR_ScaleStepSampler")[0]
    prompt[sampler]["inputs"]["through_scale"] = 99
    with pytest.raises(Refused) as refused:
        server.queue(prompt)
    told = refused.value.answer["node_errors"]
    assert set(told) == {sampler} and told[sampler]["errors"][0]["extra_info"]["input_name"] == "through_scale"


@pytest.mark.parametrize(("type", "inputs", "words"), [
    ("TTSVAR_ChooseSketches", {"choice": "77"}, "name rows from 0 to 7"),
    ("TTSVAR_ChooseSketches", {"choice": "the best"}, "name samples by number"),
    ("TTSVAR_ScaleStepSampler", {"through_scale": 14}, "12 is the last"),
    ("TTSVAR_ChooseSketches", {"choice": "0-30000000"}, "name rows from 0 to 7"),
    ("TTSVAR_SelectBest", {"keep": 5}, "keep at most"),
    ("TTSVAR_PromptEncode", {"text": "a castle"}, "castle"),
])
def test_what_only_the_run_can_know_is_the_nodes_error(server, type, inputs, words):
    prompt = quiet(chosen(server.prompt_of("02_choose_by_hand")))
    number = numbers(prompt, type)[-1]
    prompt[number]["inputs"] |= inputs
    done = server.wait(server.queue(prompt))
    name, error = done["status"]["messages"][-1]
    assert name == "execution_error" and words in error["exception_message"], error["exception_message"]
    assert error["node_id"] == number and error["exception_type"] in ("ValueError", "FileNotFoundError")


def test_a_missing_file_is_told_before_anything_runs(server):
    prompt = chosen(server.prompt_of("02_choose_by_hand"))
    loader = numbers(prompt, "TTSVAR_RewardLoader")[0]
    prompt[loader]["inputs"]["reward"] = "HPS v2.1"
    with pytest.raises(Refused) as refused:
        server.queue(prompt)
    assert "HPS_v2.1_compressed.pt" in str(refused.value.answer["node_errors"][loader])


def test_what_the_reward_cannot_judge_is_refused_before_anything_is_sampled(server):
    prompt = quiet(with_seed(server.prompt_of("03_full_search"), 5))
    encoder = numbers(prompt, "TTSVAR_PromptEncode")[0]
    prompt[encoder]["inputs"]["text"] = "a castle"
    done = server.wait(server.queue(prompt))
    _, error = done["status"]["messages"][-1]
    assert error["node_id"] == encoder and error["exception_type"] == "ValueError"
    assert not {prompt[number]["class_type"] for number in error["executed"]} & {"TTSVAR_StartState", "TTSVAR_ScaleStepSampler"}
    raw = quiet(server.prompt_of("01_quick_start"))
    raw[numbers(raw, "TTSVAR_Generate")[0]]["inputs"] |= {"prompt": "a castle", "method": "raw", "budget": 0}
    server.run(raw)


@pytest.mark.parametrize("length", [2_000, 22_400])
def test_a_long_prompt_is_drawn_at_once(server, length):
    prompt = server.prompt_of("02_choose_by_hand")
    encoder = numbers(prompt, "TTSVAR_PromptEncode")[0]
    prompt[encoder]["inputs"] = {
        name: value for name, value in prompt[encoder]["inputs"].items() if name != "reward"
    } | {"text": ("一座 castle – café " * 2_000)[:length]}
    sheet = numbers(prompt, "TTSVAR_ChooseSketches")[0]
    begun = time.monotonic()
    done = server.wait(server.queue(only_what_leads_to(prompt, sheet)))
    assert done["status"]["status_str"] == "success" and time.monotonic() - begun < 60
    assert done["outputs"][sheet]["images"]


def chosen(prompt: dict) -> dict:
    """A graph with a choice made, where it waits for one."""
    for number in numbers(prompt, "TTSVAR_ChooseSketches"):
        prompt[number]["inputs"]["choice"] = "0 2"
    return prompt


def only_what_leads_to(prompt: dict, number: str) -> dict:
    """A graph cut to one node and what it needs."""
    needed, todo = set(), [number]
    while todo:
        needed.add(todo.pop())
        todo = [value[0] for one in needed for value in prompt[one]["inputs"].values() if isinstance(value, list)]
        todo = [one for one in todo if one not in needed]
    return {one: prompt[one] for one in needed}


def test_memory_is_flat_over_twenty_runs(server):
    prompt = quiet(server.prompt_of("03_full_search"))
    resident = []
    for seed in range(20):
        server.run(with_seed(prompt, 1000 + seed))
        resident.append(server.resident())
    assert max(resident[3:]) <= 1.05 * resident[2], resident


def test_the_log_has_no_warning_of_ours(server):
    """Runs last in this file: all graphs and errors above are in the log."""
    log = re.sub(r"\x1b\[[0-9;]*m", "", server.log.read_text(errors="replace"))
    for line in log.splitlines():
        if re.search(r"\bwarn", line, re.IGNORECASE):
            assert "ttsvar" not in line.lower(), line
