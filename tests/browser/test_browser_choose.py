"""Choosing and looking in ComfyUI's page: clicks, continue, only what follows runs; in a subgraph, twice queued, after a reload,
in app mode, and without the pack's JavaScript."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from served import NEEDS, served  # first, as it knows where the others lie

from choose_graph import choose_graph, number  # isort: skip
from comfyui_server import downstream, to_prompt  # isort: skip
from editor import MINUTE, browsing, open_editor, open_graph  # isort: skip

pytestmark = NEEDS
LISTEN = """() => { if (window.heard) { window.heard.length = 0; return; }
    window.heard = [];
    for (const name of ['execution_start', 'execution_cached', 'executing', 'executed', 'execution_success', 'execution_error'])
        window.app.api.addEventListener(name, event => window.heard.push([name, event.detail])); }"""
CENTRE = """number => { const view = window.app.canvas.ds, node = window.app.canvas.graph.getNodeById(number);
    view.scale = 1; view.offset[0] = 500 - node.pos[0]; view.offset[1] = 200 - node.pos[1];
    window.app.canvas.setDirty(true, true); }"""


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with served(tmp_path_factory) as running:
        yield running


@pytest.fixture(scope="module")
def graph(server, tmp_path_factory):
    return choose_graph(server.catalogue, tmp_path_factory.mktemp("graph"))


@pytest.fixture(scope="module")
def prompt(server, graph):
    return to_prompt(graph, server.catalogue)


@pytest.fixture(scope="module")
def browser(server):
    with browsing() as opened:
        yield opened


@pytest.fixture(scope="module")
def page(browser, server):
    """A page with the editor ready; opening it is dear, so the tests share one."""
    opened = open_editor(browser, server.address, 1920, 1080)
    yield opened
    opened.close()


@pytest.fixture(params=[False, True], ids=["classic", "nodes 2.0"])
def shown(page, graph, prompt, request):
    """The graph, open in each of the page's two renderers, its choice in the middle."""
    page.evaluate("on => window.app.extensionManager.setting.set('Comfy.VueNodes.Enabled', on)", request.param)
    open_at_choice(page, graph, prompt)
    return page


def open_at_choice(page, graph, prompt):
    page.evaluate("graph => window.app.loadGraphData(graph)", graph)
    page.evaluate(CENTRE, int(number(prompt, "ChooseSketches")))
    page.locator(".ttsvar-panel:visible").first.wait_for()
    page.evaluate(LISTEN)


def ended(page, runs: int = 1) -> list:
    """What the host said until so many prompts had ended well."""
    page.wait_for_function(
        "runs => window.heard.filter(([name]) => ['execution_success', 'execution_error'].includes(name)).length >= runs",
        arg=runs, timeout=3 * MINUTE,
    )
    heard = page.evaluate("window.heard")
    assert not [detail for name, detail in heard if name == "execution_error"]
    page.evaluate("window.heard.length = 0")
    return heard


def ran(heard: list) -> set[str]:
    return {detail for name, detail in heard if name == "executing" and detail}


def saved(heard: list, save: str) -> list[int]:
    """How many pictures each run saved."""
    told = [detail["output"] for name, detail in heard if name == "executed" and f"{detail['node']}" == save]
    return [len(output["images"]) for output in told if output]  # none where a node was blocked


def widget(page, kind: str, name: str):
    return page.evaluate(
        "([kind, name]) => window.app.canvas.graph.nodes.find(n => n.type === kind).widgets.find(w => w.name === name).value",
        [kind, name],
    )


def press(page, name: str):
    page.locator(".ttsvar-panel:visible").get_by_role("button", name=name).first.click()


def click_two(page):
    cards = page.locator(".ttsvar-panel:visible .ttsvar-card")
    cards.nth(1).click()
    cards.nth(2).click()


def test_show_click_two_continue_and_only_what_follows_runs(shown, prompt):
    press(shown, "Show")
    first = ran(ended(shown))
    assert number(prompt, "SaveImage") not in first  # shown alone: nothing after it was asked for
    shown.locator(".ttsvar-card:visible").nth(3).wait_for()
    click_two(shown)
    assert widget(shown, "TTSVAR_ChooseSketches", "choice") == "1 2"
    press(shown, "Continue")
    heard = ended(shown)
    assert ran(heard) <= downstream(prompt, number(prompt, "ChooseSketches"))
    assert saved(heard, number(prompt, "SaveImage")) == [2]


def test_click_releases_and_shift_click_copies(shown):
    press(shown, "Show")
    ended(shown)
    click_two(shown)
    cards = shown.locator(".ttsvar-panel:visible .ttsvar-card")
    cards.nth(2).click(modifiers=["Shift"])
    assert widget(shown, "TTSVAR_ChooseSketches", "choice") == "1 2 2"
    cards.nth(1).click()
    assert widget(shown, "TTSVAR_ChooseSketches", "choice") == "2 2"
    press(shown, "Release all")
    assert [widget(shown, "TTSVAR_ChooseSketches", name) for name in ("choice", "seen")] == ["", ""]
    assert shown.locator(".ttsvar-main:visible").first.is_disabled()


def test_choosing_by_keys_goes_on_from_the_card_in_focus(shown):
    press(shown, "Show")
    ended(shown)
    shown.locator(".ttsvar-panel:visible .ttsvar-card").nth(1).focus()
    for key in ("Enter", "Tab", "Space", "Shift+Enter"):
        shown.keyboard.press(key)
    assert widget(shown, "TTSVAR_ChooseSketches", "choice") == "1 2 2"


def test_where_a_wire_brings_the_choice_the_node_shows_it_and_no_click_pretends_another(shown):
    press(shown, "Show")
    ended(shown)
    shown.evaluate("""() => { const { graph } = window.app, text = window.LiteGraph.createNode('PrimitiveString');
        const node = graph.nodes.find(n => n.type === 'TTSVAR_ChooseSketches');
        graph.add(text);
        text.widgets[0].value = '0';
        text.connect(0, node, node.inputs.findIndex(each => each.name === 'choice')); }""")
    press(shown, "Show")
    ended(shown)
    click_two(shown)
    assert widget(shown, "TTSVAR_ChooseSketches", "seen") == ""
    assert [one.split()[0] for one in shown.locator(".ttsvar-chosen:visible").all_inner_texts()] == ["#0"]


def test_the_whole_graph_stops_at_an_empty_choice_without_an_error(shown, prompt):
    shown.get_by_role("button", name="Run", exact=True).first.click()
    heard = ended(shown)
    assert saved(heard, number(prompt, "SaveImage")) == []
    shown.locator(".ttsvar-card:visible").nth(3).wait_for()


def test_two_choices_queued_behind_one_another(shown, prompt):
    press(shown, "Show")
    ended(shown)
    click_two(shown)
    press(shown, "Continue")
    shown.locator(".ttsvar-panel:visible .ttsvar-card").nth(0).click()
    press(shown, "Continue")
    assert sorted(saved(ended(shown, 2), number(prompt, "SaveImage"))) == [2, 3]


def test_the_choice_is_still_there_after_a_reload(page, graph, prompt):
    open_at_choice(page, graph, prompt)
    press(page, "Show")
    ended(page)
    click_two(page)
    page.wait_for_timeout(3000)  # the page keeps a draft of the graph after a while
    page.reload()
    page.wait_for_function("!!window.app?.graph?.nodes?.length && !!window.LiteGraph?.registered_node_types.TTSVAR_Generate")
    page.evaluate(LISTEN)
    page.evaluate(CENTRE, int(number(prompt, "ChooseSketches")))
    assert widget(page, "TTSVAR_ChooseSketches", "choice") == "1 2"
    press(page, "Show")
    assert ran(ended(page)) <= {number(prompt, "ChooseSketches")}  # the sketches are remembered by the host
    assert page.locator(".ttsvar-chosen:visible").count() == 2
    press(page, "Continue")
    assert saved(ended(page), number(prompt, "SaveImage")) == [2]


def test_choosing_inside_a_subgraph(shown, prompt):
    page = shown
    page.evaluate(
        """async number => { const { graph, canvas } = window.app, inner = graph.getNodeById(number);
            const { node, subgraph } = graph.convertToSubgraph(new Set([inner]));
            await new Promise(then => setTimeout(then, 500));  // a user sees the folded node first; the page draws it
            canvas.openSubgraph ? canvas.openSubgraph(subgraph, node) : canvas.setGraph(subgraph); }""",
        int(number(prompt, "ChooseSketches")),
    )
    inside = page.evaluate("window.app.canvas.graph.nodes.find(n => n.type === 'TTSVAR_ChooseSketches').id")
    page.evaluate(CENTRE, inside)
    press(page, "Show")
    ended(page)
    click_two(page)
    press(page, "Continue")
    heard = ended(page)
    assert saved(heard, number(prompt, "SaveImage")) == [2]
    assert {one.split(":")[-1] for one in ran(heard)} <= {f"{inside}"} | downstream(prompt, number(prompt, "ChooseSketches"))


def test_choosing_in_app_mode(page, server):
    prompt = server.prompt_of("02_choose_by_hand")
    follows = downstream(prompt, number(prompt, "ChooseSketches"))
    open_graph(page, "02_choose_by_hand")
    page.evaluate(LISTEN)
    page.evaluate("window.app.extensionManager.command.execute('Comfy.ToggleLinear')")
    page.get_by_role("button", name="Run").last.click()  # its name may hold the icon's, too
    begun = ended(page)
    assert ran(begun) and saved(begun, number(prompt, "SaveImage")) == []
    page.locator(".ttsvar-panel:visible .ttsvar-card").nth(7).wait_for()
    click_two(page)
    press(page, "Continue")
    heard = ended(page)
    assert saved(heard, number(prompt, "SaveImage")) == [1] and ran(heard) <= follows
    page.wait_for_function("""[...document.querySelectorAll("img[src*='choose_by_hand']")]
        .some(one => one.checkVisibility() && one.naturalWidth && one.clientWidth > 400)""")  # once it has come from the server
    page.evaluate("window.app.extensionManager.command.execute('Comfy.ToggleLinear')")
    page.locator("canvas:visible").first.wait_for()


def test_the_view_has_tabs_tells_on_hover_and_branches_on_click(shown, prompt):
    press(shown, "Show")
    ended(shown)
    click_two(shown)
    press(shown, "Continue")
    ended(shown)
    shown.evaluate(CENTRE, int(number(prompt, "InspectState")))
    panel = shown.locator(".ttsvar-panel:visible", has=shown.get_by_role("button", name="Family tree"))
    for tab in ("Sketches", "Family tree", "Scores", "Maps", "Film", "Family tree"):
        panel.get_by_role("button", name=tab).click()
        sizes = panel.evaluate(
            "body => [...body.querySelectorAll('*')].filter(e => e.childElementCount === 0 && e.textContent.trim())"
            ".map(e => parseFloat(getComputedStyle(e).fontSize))"
        )
        assert len(sizes) > 6 and min(sizes) >= 12
    assert panel.locator("svg image").count() == 4 + 2  # the dead as well
    dead = panel.locator("svg g").nth(3)
    dead.hover()
    assert "not kept" in panel.inner_text() and panel.locator(".ttsvar-dim").count() > 0
    dead.click()
    panel.get_by_role("button", name="Continue: #3").click()
    heard = ended(shown)
    assert saved(heard, number(prompt, "SaveImage")) == [1] and widget(shown, "TTSVAR_ChooseSketches", "choice") == "3"
    assert ran(heard) <= downstream(prompt, number(prompt, "ChooseSketches"))


class WithoutOurs:
    """A browser whose pages get none of the pack's JavaScript."""

    def __init__(self, browser) -> None:
        self.browser = browser

    def new_page(self, **options):
        page = self.browser.new_page(**options)
        page.route("**/extensions/ttsvar/**", lambda route: route.abort())
        return page


def test_without_our_javascript_the_choice_is_typed_and_one_sheet_is_shown(browser, server, graph, prompt):
    page = open_editor(WithoutOurs(browser), server.address, 1920, 1080)
    page.evaluate("graph => window.app.loadGraphData(graph)", graph)
    page.evaluate(LISTEN)
    page.evaluate(CENTRE, int(number(prompt, "ChooseSketches")))
    page.evaluate("""() => { const node = window.app.graph.nodes.find(n => n.type === 'TTSVAR_ChooseSketches');
        node.widgets.find(w => w.name === 'choice').value = '0 3'; }""")
    page.get_by_role("button", name="Run", exact=True).first.click()
    assert saved(ended(page), number(prompt, "SaveImage")) == [2]
    sheets = "window.app.graph.nodes.find(n => n.type === '{}').imgs?.length === 1"
    page.wait_for_function(sheets.format("TTSVAR_ChooseSketches"))
    page.evaluate(CENTRE, int(number(prompt, "InspectState")))
    page.wait_for_function(sheets.format("TTSVAR_InspectState"))
    page.close()
