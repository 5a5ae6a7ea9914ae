"""The pack in ComfyUI's page: templates, a graph without red, a node found by search, previews and the picture of a run."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from served import NEEDS, served  # first, as it knows where the others lie

from comfyui_server import ROOT  # isort: skip
from editor import MINUTE, browsing, open_editor, open_graph  # isort: skip

GRAPHS = sorted(path.stem for path in (ROOT / "workflows").glob("*.json"))

pytestmark = NEEDS
BYTES = """async address => Array.from(new Uint8Array(await (await fetch(address)).arrayBuffer())).join(' ')"""


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with served(tmp_path_factory, "--preview-method", "auto") as running:
        yield running


@pytest.fixture(scope="module")
def browser(server):
    with browsing() as opened:
        yield opened


@pytest.fixture(scope="module")
def page(browser, server):
    """A page with the editor ready; opening it is dear, so the tests share one."""
    opened = open_editor(browser, server.address, 1600, 1000)
    yield opened
    opened.close()


def test_the_template_browser_lists_our_graphs_and_opens_one(page):
    page.get_by_text("Templates", exact=True).first.click()
    page.get_by_text("ttsvar", exact=True).first.click()
    for name in GRAPHS:
        page.get_by_text(name, exact=True).first.wait_for()
    page.get_by_text("05_branch_lambda", exact=True).first.click()
    page.wait_for_function("window.app.graph._nodes.filter(node => node.type === 'TTSVAR_PotentialResampler').length === 2")


@pytest.mark.parametrize("name", [name for name in GRAPHS if "infinity" not in name and "any_model" not in name])
def test_a_graph_loads_without_missing_nodes_or_red_inputs(page, name):
    open_graph(page, name)
    missing = "window.app.graph._nodes.filter(n => !window.LiteGraph.registered_node_types[n.type]).map(n => n.type)"
    # MarkdownNote is one of the page's own nodes, so it is registered as well
    assert page.evaluate(missing) == []
    assert page.evaluate("window.app.graph._nodes.filter(n => n.has_errors).map(n => n.type)") == []
    wrong = """window.app.graph._nodes.flatMap(n => (n.widgets ?? [])
        .filter(w => w.type === 'combo' && Array.isArray(w.options.values) && !w.options.values.includes(w.value))
        .map(w => `${n.type}.${w.name} = ${w.value}`))"""
    assert page.evaluate(wrong) == []
    overlapping = """(() => { const boxes = window.app.graph._nodes.map(n => ({n, b: n.getBounding()}));
        return boxes.flatMap((one, i) => boxes.slice(i + 1).filter(two =>
            one.b[0] < two.b[0] + two.b[2] && two.b[0] < one.b[0] + one.b[2] &&
            one.b[1] < two.b[1] + two.b[3] && two.b[1] < one.b[1] + one.b[3]).map(two => [one.n.title, two.n.title])) })()"""
    assert page.evaluate(overlapping) == []


def test_a_node_is_added_by_searching_for_an_alias(page):
    page.evaluate("window.app.graph.clear()")
    page.mouse.dblclick(800, 500)
    page.keyboard.type("contact sheet", delay=20)
    page.get_by_text("Inspect State", exact=True).first.click()  # Enter would take what stands first while the list still fills
    page.wait_for_function("window.app.graph._nodes.length === 1 && window.app.graph._nodes[0].type === 'TTSVAR_InspectState'")


def test_a_run_shows_previews_and_the_picture(page):
    open_graph(page, "01_quick_start")
    page.evaluate("""() => { window.seen = {previews: 0, grown: [], done: false, failed: null};
        const api = window.app.api;
        api.addEventListener('b_preview', () => { window.seen.previews += 1; });
        const drawn = () => document.querySelectorAll('.ttsvar-panel svg image').length;
        api.addEventListener('ttsvar.search', () => { window.seen.grown.push(drawn()); });
        api.addEventListener('execution_success', () => { window.seen.done = true; });
        api.addEventListener('execution_error', event => { window.seen.failed = JSON.stringify(event.detail); }); }""")
    page.get_by_role("button", name="Run", exact=True).first.click()
    page.wait_for_function("window.seen.done || window.seen.failed", timeout=3 * MINUTE)
    seen = page.evaluate("window.seen")
    assert seen["failed"] is None and seen["previews"] >= 2  # as many as half of the time allows
    assert seen["grown"] == [7 + 1]  # while it ran
    picture = "window.app.graph._nodes.find(n => n.type === 'SaveImage').imgs?.[0]?.naturalWidth"
    page.wait_for_function(f"{picture} === 128")
    page.wait_for_function("document.querySelectorAll('.ttsvar-panel svg image').length === 7 + 1")  # all who lived


def run_to_the_end(page):
    page.evaluate("""() => { window.over = false;
        window.app.api.addEventListener('execution_success', () => { window.over = true; }); }""")
    page.get_by_role("button", name="Run", exact=True).first.click()
    page.wait_for_function("window.over", timeout=3 * MINUTE)
    page.wait_for_timeout(2000)  # newer releases of the page take their own words away by now


def test_raw_and_the_answer_lie_on_the_hosts_compare_slider(page):
    """Only the newer renderer draws one."""
    switch = "on => window.app.extensionManager.setting.set('Comfy.VueNodes.Enabled', on)"
    open_graph(page, "01_quick_start")
    page.evaluate(switch, True)
    page.evaluate("""() => { const graph = window.app.graph, node = window.LiteGraph.createNode('ImageCompare');
        graph.add(node); node.pos = [400, 300];
        const searched = graph._nodes.find(n => n.type === 'TTSVAR_Generate');
        searched.connect(4, node, 'image_a'); searched.connect(0, node, 'image_b'); }""")
    run_to_the_end(page)
    pictures = page.get_by_test_id("image-compare-viewport").locator("img")
    assert pictures.count() == 2
    assert len({page.evaluate(BYTES, pictures.nth(i).get_attribute("src")) for i in range(2)}) == 2
    page.evaluate(switch, False)


def test_what_a_node_said_is_still_there_when_the_run_has_ended(page):
    open_graph(page, "03_full_search")
    run_to_the_end(page)
    said = """window.app.graph._nodes.filter(n => n.type === 'TTSVAR_PotentialResampler').map(n => n.widgets
        .filter(w => !w.hidden).some(w => `${w.value} ${w.element?.textContent}`.includes('ess ')))"""
    assert page.evaluate(said) == [True, True]


def test_words_of_nodes_in_a_closed_subgraph_do_not_stray(page):
    open_graph(page, "08_resume_from_disk")
    run_to_the_end(page)
    inside = "window.app.graph._nodes.flatMap(n => n.subgraph?.nodes ?? []).filter(n => n.ttsvarWords).map(n => n.type)"
    assert page.evaluate(inside) == [] and page.get_by_text("best 1 of 4").count() == 0


def test_a_wrong_value_is_shown_at_its_node(page):
    open_graph(page, "02_choose_by_hand")
    page.evaluate("""() => { window.failed = null;
        window.app.api.addEventListener('execution_error', event => { window.failed = event.detail.exception_message; });
        const node = window.app.graph._nodes.find(n => n.type === 'TTSVAR_ChooseSketches');
        node.widgets.find(w => w.name === 'choice').value = '99'; }""")
    page.get_by_role("button", name="Run", exact=True).first.click()
    page.wait_for_function("window.failed", timeout=3 * MINUTE)
    assert "name rows from 0 to 7" in page.evaluate("window.failed")
    assert page.evaluate("window.app.lastExecutionError.node_type") == "TTSVAR_ChooseSketches"
    page.get_by_text("Click the ones you like").first.wait_for()  # the message names the node by its title
