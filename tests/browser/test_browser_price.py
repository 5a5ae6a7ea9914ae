"""TTS-VAR Generate tells its price before it runs, and neither the graph nor what is cached of it changes."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from served import NEEDS, served  # first, as it knows where the others lie

from editor import MINUTE, browsing, open_editor, open_graph  # isort: skip

pytestmark = NEEDS
PRICE = (
    r"up to 4 attempts, each \d+ → \d+ samples: the work of \d\.\d pictures, (under|about) .+, \d+ MiB beside the weights; "
    "one picture more to compare"
)
GENERATE = "window.app.graph._nodes.find(n => n.type === 'TTSVAR_Generate')"
WATCH = """() => { window.ran = []; window.over = 0;
    window.app.api.addEventListener('executing', ({ detail }) => { if (detail) window.ran.push(`${detail.node ?? detail}`); });
    window.app.api.addEventListener('execution_success', () => { window.over += 1; }); }"""


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with served(tmp_path_factory) as running:
        yield running


@pytest.fixture
def page(server):
    with browsing() as browser:
        opened = open_editor(browser, server.address, 1600, 1000)
        yield opened


def ask(page, over: int) -> str:
    """Press the button, wait for the end of so many runs, and read what the node says."""
    page.evaluate(f"{GENERATE}.widgets.find(w => w.type === 'button').callback()")
    page.wait_for_function(f"window.over === {over}", timeout=3 * MINUTE)
    page.wait_for_function(f"{GENERATE}.ttsvarWords?.element.textContent.includes('pictures')")
    return page.evaluate(f"{GENERATE}.ttsvarWords.element.textContent")


def test_the_price_is_told_before_a_run_and_costs_no_picture(page):
    open_graph(page, "01_quick_start")
    page.evaluate(WATCH)
    before = page.evaluate("JSON.stringify(window.app.graph.serialize().nodes.map(n => n.widgets_values))")
    sent = []
    page.on("request", lambda each: sent.append(each.post_data_json) if each.url.endswith("/prompt") and each.post_data else None)
    assert re.fullmatch(PRICE, " ".join(ask(page, 1).split()))
    own = page.evaluate(f"`${{{GENERATE}.id}}`")
    ran = page.evaluate("window.ran")
    assert [each.get("front") for each in sent] == [True]  # whoever asks need not wait for all that is queued
    assert any(each.startswith(f"ttsvar_price_{own}_") for each in ran) and own not in ran
    assert page.evaluate("JSON.stringify(window.app.graph.serialize().nodes.map(n => n.widgets_values))") == before


def test_asking_after_a_run_leaves_what_is_cached(page):
    open_graph(page, "01_quick_start")
    page.evaluate(WATCH)
    run = page.get_by_role("button", name="Run", exact=True).first
    run.click()
    page.wait_for_function("window.over === 1", timeout=3 * MINUTE)
    ask(page, 2)
    page.evaluate("window.ran = []")
    run.click()
    page.wait_for_function("window.over === 3", timeout=3 * MINUTE)
    assert page.evaluate(f"`${{{GENERATE}.id}}`") not in page.evaluate("window.ran")


def test_words_of_a_run_that_has_just_ended_do_not_take_the_place_of_the_price(page):
    open_graph(page, "01_quick_start")
    page.evaluate(WATCH)
    page.evaluate(f"{GENERATE}.widgets.find(w => w.name === 'seed').value = 77")  # or nothing would run
    page.get_by_role("button", name="Run", exact=True).first.click()
    page.wait_for_function("window.ran.length")
    ask(page, 2)
    page.wait_for_timeout(1500)
    assert "beside the weights" in page.evaluate(f"{GENERATE}.ttsvarWords.element.textContent")


def test_two_questions_behind_one_another_end_with_the_second_answer(page):
    open_graph(page, "01_quick_start")
    page.evaluate(WATCH)
    page.evaluate(f"""async () => {{ for (const [method, n] of [['raw', 1], ['TTS-VAR', 4]]) {{
        const held = {{ method, n, budget: 0, attempts: 1 }};
        {GENERATE}.widgets.forEach(widget => {{ if (widget.name in held) widget.value = held[widget.name]; }});
        {GENERATE}.widgets.find(w => w.type === 'button').callback();
        await new Promise(then => setTimeout(then, 100)); }} }}""")
    page.wait_for_function("window.over === 2", timeout=3 * MINUTE)
    page.wait_for_function(f"{GENERATE}.ttsvarWords?.element.textContent.startsWith('32 → 24')", timeout=MINUTE)


def test_prompts_in_a_list_have_a_price_each(page):
    open_graph(page, "01_quick_start")
    page.evaluate(WATCH)
    page.evaluate(f"""() => {{ const {{ graph }} = window.app, node = {GENERATE}, make = type => window.LiteGraph.createNode(type);
        const list = make('CreateList'), texts = [make('PrimitiveString'), make('PrimitiveString')];
        for (const each of [list, ...texts]) graph.add(each);
        for (const text of texts) text.widgets[0].value = 'a photo of a red circle';
        for (const [place, text] of texts.entries()) text.connect(0, list, place);
        list.connect(0, node, node.inputs.findIndex(each => each.name === 'prompt')); }}""")
    told = ask(page, 1).split("\n")
    assert sum("beside the weights" in line for line in told) == len(told) == 2


def test_a_graph_that_is_refused_says_on_the_node_what_is_missing(page):
    open_graph(page, "01_quick_start")
    page.evaluate(f"""() => {{ const node = {GENERATE}, loader = window.LiteGraph.createNode('TTSVAR_RewardLoader');
        window.app.graph.add(loader);
        loader.widgets.find(w => w.name === 'reward').value = 'ImageReward';
        loader.connect(0, node, node.inputs.findIndex(each => each.name === 'reward'));
        node.widgets.find(w => w.type === 'button').callback(); }}""")
    page.wait_for_function(f"{GENERATE}.ttsvarWords?.element.textContent.includes('get ImageReward.pt from')", timeout=MINUTE)


def test_a_price_that_cannot_be_told_says_why_on_the_node(page):
    open_graph(page, "01_quick_start")
    page.evaluate(f"""() => {{ const held = {{ method: 'own plan', plan: '{{', budget: 0, attempts: 1 }};
        {GENERATE}.widgets.forEach(widget => {{ if (widget.name in held) widget.value = held[widget.name]; }});
        {GENERATE}.widgets.find(w => w.type === 'button').callback(); }}""")
    page.wait_for_function(f"{GENERATE}.ttsvarWords?.element.textContent.includes('The plan is not JSON')", timeout=MINUTE)
