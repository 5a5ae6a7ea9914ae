"""Inputs that do not apply are hidden in both of the page's renderers, and keep what they hold."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from served import NEEDS, served  # first, as it knows where the others lie

from editor import browsing, open_editor  # isort: skip

pytestmark = NEEDS
CLEAR = """async () => { const none = { nodes: [], links: [], groups: [], config: {}, extra: {}, last_node_id: 0, last_link_id: 0 };
    await window.app.loadGraphData({ ...none, id: crypto.randomUUID(), version: 0.4 });
    const view = window.app.canvas.ds; view.scale = 1; view.offset[0] = 150; view.offset[1] = 50; }"""
ADD = """type => { const node = window.LiteGraph.createNode(type);
    window.app.graph.add(node); node.pos = [100, 100]; return `${node.id}`; }"""
SET = """([id, name, value]) => { const widget = window.app.graph.getNodeById(id).widgets.find(each => each.name === name);
    widget.value = value; widget.callback?.(value); }"""
HELD = "id => Object.fromEntries(window.app.graph.getNodeById(id).widgets.map(each => [each.name, each.value]))"
ROWS = """id => { const node = window.app.graph.getNodeById(id), drawn = document.querySelector(`[data-node-id="${id}"]`);
    const visible = each => (drawn ? drawn.innerText.split("\\n").includes(each.label ?? each.name) : node.isWidgetVisible(each));
    return node.widgets.filter(visible).map(each => each.name); }"""
VUE = "Comfy.VueNodes.Enabled"


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    with served(tmp_path_factory) as server, browsing() as browser:
        opened = open_editor(browser, server.address, 1600, 1000)
        opened.wait_for_timeout(3000)  # the page may still open its first graph
        yield opened


@pytest.fixture(params=[False, True], ids=["classic", "nodes 2.0"])
def empty(page, request):
    """An empty graph in each of the page's renderers."""
    switch(page, request.param)
    page.evaluate(CLEAR)
    return page


def switch(page, newer: bool):
    page.evaluate("([name, on]) => window.app.extensionManager.setting.set(name, on)", [VUE, newer])
    page.wait_for_function("on => !!window.LiteGraph.vueNodesMode === on", arg=newer)


def add(page, kind: str) -> str:
    return page.evaluate(ADD, f"TTSVAR_{kind}")


def choose(page, node: str, **values):
    for name, value in values.items():
        page.evaluate(SET, [node, name, value])


def shows(page, node: str, *names: str):
    """Wait until these of the inputs that may be hidden, and no others, are shown."""
    may = ["method", "n", "plan", "lambda_", "file", "head_file", "questions", "mean", "precision", "grid", "target_ess", "seen"]
    try:
        page.wait_for_function(
            f"([id, may, names]) => `${{({ROWS})(id).filter(each => may.includes(each))}}` === `${{names}}`",
            arg=[node, may, list(names)], timeout=20_000,
        )
    except Exception:
        pytest.fail(f"shown: {page.evaluate(ROWS, node)}; of those that may be hidden, {names} were expected")


def test_the_whole_search_shows_what_its_method_takes(empty):
    node = add(empty, "Generate")
    shows(empty, node, "method")  # what was measured best takes no number
    choose(empty, node, method="TTS-VAR")
    shows(empty, node, "method", "n")
    choose(empty, node, method="own plan")
    shows(empty, node, "method", "plan")
    choose(empty, node, method="raw")
    shows(empty, node, "method")
    choose(empty, node, method="Beam", n=3)
    choose(empty, node, budget=4)
    shows(empty, node)
    choose(empty, node, budget=0)
    shows(empty, node, "method", "n")
    held = empty.evaluate(HELD, node)
    assert (held["method"], held["n"], held["lambda_"]) == ("Beam", 3, 10) and '"stages"' in held["plan"]


def test_loaders_show_what_a_choice_takes(empty):
    reward, other, extractor = add(empty, "RewardLoader"), add(empty, "RewardLoader"), add(empty, "ExtractorLoader")
    shows(empty, reward)
    choose(empty, reward, reward="Aesthetic v2.5")
    shows(empty, reward, "file", "head_file")
    choose(empty, reward, reward="yes or no (GenEval 2)")
    shows(empty, reward, "file", "questions")
    shows(empty, other)  # of the same type, with a choice of its own
    shows(empty, extractor)
    choose(empty, extractor, extractor="DINOv2 PCA")
    shows(empty, extractor, "file")


def test_advanced_inputs_that_apply_unfold_and_a_new_node_is_no_higher_than_it_must_be(page):
    switch(page, False)
    page.evaluate(CLEAR)
    node, height = add(page, "ExtractorLoader"), "id => window.app.graph.getNodeById(id).size[1]"
    low = page.evaluate(height, node)
    unfold = """id => { const node = window.app.graph.getNodeById(id);
        window.app.collectNodeMenuItems(node).find(each => /advanced inputs/.test(each?.content)).callback(); }"""
    page.evaluate(unfold, node)
    shows(page, node, "grid")
    assert page.evaluate(height, node) > low
    choose(page, node, extractor="DINOv2 Pool")
    shows(page, node, "file", "precision")
    page.evaluate(unfold, node)
    choose(page, node, extractor="latent pool (no model)")
    shows(page, node)
    assert page.evaluate(height, node) == low
    sketches = add(page, "ChooseSketches")
    page.evaluate("id => { window.app.graph.getNodeById(id).showAdvanced = true; }", sketches)
    shows(page, sketches)  # what only clicks write stays hidden


def test_a_saved_choice_a_wire_and_the_other_renderer(page):
    """What a wire brings nobody knows, so what hangs on it is shown."""
    switch(page, False)
    page.evaluate(CLEAR)
    node, source = add(page, "RewardLoader"), add(page, "PromptEncode")
    choose(page, node, reward="Aesthetic v2.5", head_file="auto")
    page.evaluate("async () => window.app.loadGraphData(JSON.parse(JSON.stringify(window.app.graph.serialize())))")
    shows(page, node, "file", "head_file")
    switch(page, True)
    shows(page, node, "file", "head_file")
    choose(page, node, reward="scene verifier (bundled)")
    shows(page, node)
    switch(page, False)
    shows(page, node)
    page.evaluate("""([from, to]) => { const graph = window.app.graph, node = graph.getNodeById(to), type = 'STRING';
        graph.getNodeById(from).addOutput('words', type);
        node.inputs.find(each => each.name === 'reward').type = type;
        graph.getNodeById(from).connect(1, node, node.inputs.findIndex(each => each.name === 'reward')); }""", [source, node])
    shows(page, node, "file", "head_file", "questions")


def test_a_node_with_wires_is_as_high_after_every_load(empty):
    """A wire comes before the values that say whether its row was there all the time."""
    node = add(empty, "Generate")
    choose(empty, node, method="own plan")
    heights = empty.evaluate("""async id => { const heights = [], graph = () => window.app.graph;
        const text = window.LiteGraph.createNode('PrimitiveStringMultiline'), node = graph().getNodeById(id);
        graph().add(text);
        text.connect(0, node, node.inputs.findIndex(each => each.name === 'plan'));
        for (let load = 0; load < 3; load++) {
            heights.push(graph().getNodeById(id).size[1]);
            await window.app.loadGraphData(JSON.parse(JSON.stringify(graph().serialize())));
            await new Promise(then => setTimeout(then, 300)); }
        return heights; }""", node)
    assert len(set(heights)) == 1, heights
