// What the pack's own widgets share: elements, pictures, the widgets of a node, and running what follows a node.
import { app } from "../../scripts/app.js";
import { api } from "../../scripts/api.js";

const WORDS = {
  zh: {
    "Continue": "继续", "Release all": "全部取消", "Show": "显示", "Look": "查看", "Run to see what there is to choose from.": "运行后即可在此选择。",
    "Click what shall go on, then press Continue.": "点击要继续的样本，然后按“继续”。",
    "These are others than those you chose from. Choose again.": "这些与你之前选择的不同，请重新选择。",
    "The choice comes by a wire.": "选择由连线传入。",
    "Nothing follows this node yet.": "此节点之后还没有可运行的节点。",
    "click: choose or release, shift-click: a copy": "点击：选择或取消；Shift 点击：再加一份",
    "Sketches": "草图", "Family tree": "谱系", "Scores": "分数", "Maps": "特征图", "Film": "逐尺度",
    "Run to see the search.": "运行后即可查看搜索过程。", "scale": "尺度", "start": "开始",
    "Nothing has been scored yet; put a Reward Scorer before.": "还没有打分；请在前面接上“奖励打分”。",
    "Click a sample: it goes on in": "点击样本：它将继续进入", "went on in": "已写入",
    "What will it cost?": "这要花多少？", "The node is muted.": "该节点已被静音。",
    "Show advanced inputs": "显示高级输入", "Hide advanced inputs": "隐藏高级输入",
  },
};

/** The text in the language of the page, where there is one. */
export function say(text) {
  const locale = app.extensionManager?.setting?.get?.("Comfy.Locale") ?? "en";
  return WORDS[locale.split("-")[0]]?.[text] ?? text;
}

/** An element with properties, attributes ($name) and children. */
export function make(tag, properties = {}, ...children) {
  const drawn = SVG.has(tag) ? document.createElementNS("http://www.w3.org/2000/svg", tag) : document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (SVG.has(tag) && !name.startsWith("on")) drawn.setAttribute(name, value);
    else drawn[name] = value;
  }
  drawn.append(...children.filter((child) => child !== null && child !== undefined));
  return drawn;
}
const SVG = new Set(["svg", "path", "line", "circle", "text", "image", "rect", "g"]);

/** Where the page gets a picture that a node wrote. */
export function pictureUrl(file) {
  return api.apiURL(`/view?${new URLSearchParams(file)}`);
}

/** A node's picture as an element that stays loaded however often the node is drawn; `loaded` learns its shape. */
export function picture(node, file, loaded) {
  const kept = (node.ttsvarPictures ??= new Map());
  const url = pictureUrl(file);
  if (!kept.has(url)) {
    const image = make("img", { src: url, draggable: false, decoding: "sync", onload: () => loaded?.(image.naturalWidth / image.naturalHeight) });
    kept.set(url, image);
  }
  return kept.get(url);
}

/** Our panel as a widget of the node; `draw(data, width, height)` fills it whenever data or size change. */
export function addPanel(node, key, smallest, draw) {
  const body = make("div", { className: "ttsvar-panel" });
  const redraw = () => {
    const at = body.scrollTop, buttons = () => [...body.querySelectorAll("button")];
    const focused = buttons().indexOf(document.activeElement); // whoever chooses by keys goes on from where they are
    body.replaceChildren(); // measured empty, as app mode lets a widget grow with what it holds
    body.style.minHeight = node.ttsvar ? "260px" : "0";
    if (body.clientWidth) body.replaceChildren(...draw(node.ttsvar ?? null, body.clientWidth, body.clientHeight));
    buttons()[focused]?.focus({ preventScroll: true });
    body.scrollTop = at;
  };
  const widget = node.addDOMWidget(`ttsvar_${key}`, "ttsvar", body, {
    serialize: false, hideOnZoom: false, hideInPanel: true, getMinHeight: () => smallest(node.ttsvar ?? null, node.size[0]),
  });
  widget.serialize = false;
  widget.label = say("Look");
  let size = "";
  new ResizeObserver(() => {
    const now = `${body.clientWidth}x${body.clientHeight}`;
    if (now !== size) requestAnimationFrame(() => { redraw(); size = `${body.clientWidth}x${body.clientHeight}`; });
  }).observe(body);
  // Our panel shows what the node's own picture shows
  node.hideOutputImages = true;
  node.onDrawBackground = () => {};
  const show = (output) => {
    if (!output?.[`ttsvar_${key}`]?.[0]) return;
    node.ttsvar = output[`ttsvar_${key}`][0];
    node.ttsvarPictures = null;
    const [width, height] = node.computeSize();
    node.setSize([Math.max(node.size[0], width, 440), Math.max(node.size[1], height)]);
    redraw();
    node.setDirtyCanvas?.(true, true);
  };
  const executed = node.onExecuted;
  node.onExecuted = function (output) {
    executed?.apply(this, arguments);
    show(output);
  };
  const configured = node.onConfigure;
  node.onConfigure = function () {
    configured?.apply(this, arguments);
    setTimeout(() => show(app.nodeOutputs?.[placeOf(this)]), 200); // the page keeps what nodes showed while a tab is away
  };
  return { show, redraw };
}

/** How the page names a node among the outputs it keeps. */
function placeOf(node) {
  return !node.graph || node.graph === rootOf(node) ? `${node.id}` : `${node.graph.id}:${node.id}`;
}

function rootOf(node) {
  return app.rootGraph ?? node.graph?.rootGraph ?? app.graph;
}

/** The number of columns that makes so many cards largest, and their width. */
export function fit(count, width, height, shape, caption) {
  const widthOf = (columns) => {
    const across = (width - 8 * (columns - 1)) / columns;
    const down = (height - 8 * (Math.ceil(count / columns) - 1)) / Math.ceil(count / columns) - caption;
    return Math.min(across, Math.max(down * shape, 80)); // smaller ones nobody can tell apart: then the panel scrolls
  };
  // Of about equally large ones those with the fewest rows, and then with the fewest columns
  const worth = (columns) => Math.round(widthOf(columns) / 8) * 1e4 - Math.ceil(count / columns) * 100 - columns;
  const columns = Array.from({ length: count }, (_, i) => i + 1).reduce((best, next) => (worth(next) > worth(best) ? next : best), 1);
  return { columns, side: Math.floor(widthOf(columns)) };
}

/** A score in as many digits as a card of this width holds. */
export function digits(score, width) {
  return score.toFixed(width < 100 ? 2 : 3);
}

/** Hide a widget that only code writes, in both of the page's renderers. */
export function hide(node, name) {
  const widget = node.widgets?.find((each) => each.name === name);
  if (widget) Object.assign(widget, { ttsvarHidden: true, hidden: true, options: Object.assign(widget.options ?? {}, { hidden: true }) });
}

/** All nodes of the graph and of the subgraphs in it. */
export function allNodes(graph) {
  return (graph?.nodes ?? graph?._nodes ?? []).flatMap((node) => [node, ...(node.subgraph ? allNodes(node.subgraph) : [])]);
}

/** The widgets that hold a value: the node's own, or those of the subgraph's nodes that it is handed out to; none where a wire brings it. */
function holders(node, name) {
  const socket = node.inputs?.find((input) => input.widget?.name === name || input.name === name);
  const link = socket?.link != null ? node.graph?.getLink?.(socket.link) ?? node.graph?.links?.[socket.link] : null;
  const own = node.widgets?.find((widget) => widget.name === name);
  if (!link) return own ? [own] : [];
  if (link.origin_id != -10) return []; // -10: the subgraph's own inputs
  return allNodes(rootOf(node)).filter((outer) => outer.subgraph === node.graph)
    .flatMap((outer) => holders(outer, outer.inputs[link.origin_slot]?.name));
}

/** Whether it is the user who says what a widget holds, and not a wire. */
export function byHand(node, name) {
  return holders(node, name).length > 0;
}

/** The value of a node's widget. */
export function valueOf(node, name) {
  return holders(node, name)[0]?.value ?? "";
}

/** Write a widget as if the user had typed into it. */
export function write(node, name, value) {
  for (const widget of holders(node, name)) {
    widget.value = value;
    widget.callback?.(value);
  }
  node.graph?.change?.();
  node.setDirtyCanvas?.(true, true);
}

/** The node that a number in a prompt names, such as 12, or 5:12 in a subgraph. */
export function nodeAt(number) {
  const path = number.split(":"), last = path.pop();
  const graph = path.reduce((inside, step) => inside?.getNodeById(Number(step))?.subgraph, app.rootGraph ?? app.graph);
  return graph?.getNodeById(Number(last));
}

/** The node's numbers in a prompt: one, or one for every use of the subgraph it lies in. */
export function numbersOf(node, prompt) {
  return Object.keys(prompt).filter((number) => nodeAt(number) === node);
}

/** Run what follows the node and nothing else; false where nothing does. */
export async function runWhatFollows(node) {
  const prompt = (await app.graphToPrompt()).output;
  const own = numbersOf(node, prompt);
  const found = new Set(own);
  for (let size = 0; size !== found.size; ) {
    size = found.size;
    for (const [number, { inputs }] of Object.entries(prompt))
      if (Object.values(inputs).some((value) => Array.isArray(value) && found.has(value[0]))) found.add(number);
  }
  const following = [...found].filter((number) => !own.includes(number));
  if (following.length) await app.queuePrompt(0, 1, following); // the host runs those among them that show or save something
  return following.length > 0;
}

/** Run the node and what it needs. */
export async function runUpTo(node) {
  await app.queuePrompt(0, 1, numbersOf(node, (await app.graphToPrompt()).output));
}

document.head.append(make("style", { textContent: `
.ttsvar-panel { box-sizing: border-box; width: 100%; height: 100%; min-height: 0; overflow: auto; display: flex; flex-direction: column;
  gap: 6px; padding: 6px; font: 13px/1.35 system-ui, sans-serif; color: var(--fg-color, #ddd); border-radius: 6px;
  background: var(--comfy-input-bg, #1c1e22); user-select: none; }
.ttsvar-bar { display: flex; flex-wrap: wrap; gap: 6px; align-items: center; flex: none; }
.ttsvar-bar > span { flex: 1 1 240px; min-width: 0; }
.ttsvar-said { box-sizing: border-box; width: 100%; overflow: auto; padding: 4px 10px; font: 12px/1.35 system-ui, sans-serif; white-space: pre-line;
  color: var(--fg-color, #ddd); user-select: text; }
.ttsvar-note { flex: none; opacity: .8; min-height: 1.35em; }
.ttsvar-panel button { font: inherit; color: inherit; cursor: pointer; border: 1px solid var(--border-color, #4e525c); border-radius: 5px;
  background: var(--comfy-menu-bg, #2b2e35); padding: 3px 10px; }
.ttsvar-panel button:disabled { opacity: .45; cursor: default; }
.ttsvar-panel button.ttsvar-main:not(:disabled) { background: #2f6fde; border-color: #2f6fde; color: #fff; }
.ttsvar-panel button.ttsvar-on { border-color: #ffcb47; color: #ffcb47; }
.ttsvar-grid { display: grid; gap: 8px; flex: 1 0 auto; justify-content: center; align-content: start; padding: 3px; }
.ttsvar-panel button.ttsvar-card { position: relative; display: block; padding: 0; overflow: hidden; text-align: left; border-width: 0;
  border-left: 4px solid var(--family); outline: 2px solid transparent; }
.ttsvar-card img, .ttsvar-frame img { display: block; width: 100%; aspect-ratio: var(--shape); object-fit: contain; image-rendering: pixelated;
  background: #000; }
.ttsvar-panel button.ttsvar-chosen, .ttsvar-panel button:focus-visible { outline-color: #ffcb47; }
.ttsvar-dim { opacity: .3; }
.ttsvar-card b.ttsvar-count { position: absolute; top: 4px; right: 4px; padding: 0 7px; border-radius: 9px; background: #ffcb47; color: #17181b; }
.ttsvar-words { display: flex; gap: 6px; justify-content: space-between; padding: 2px 6px; white-space: nowrap; overflow: hidden; }
.ttsvar-answers { flex: none; font-size: 12px; border-spacing: 8px 2px; text-align: left; }
.ttsvar-words i { font-style: normal; opacity: .75; overflow: hidden; text-overflow: ellipsis; }
.ttsvar-selection { padding: 1px 6px; font-size: 12px; opacity: .85; }
.ttsvar-panel svg text { fill: currentColor; font-size: 12px; paint-order: stroke; stroke: var(--comfy-input-bg, #1c1e22); stroke-width: 3px; }
.ttsvar-panel svg image { image-rendering: pixelated; }
` }));
