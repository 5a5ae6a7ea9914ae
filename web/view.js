// Search View: what Inspect State tells, in one picture with tabs.
import { app } from "../../scripts/app.js";
import { api } from "../../scripts/api.js";
import { addPanel, byHand, digits, fit, make, nodeAt, picture, pictureUrl, runWhatFollows, say, write } from "./shared.js";

const TABS = { sketches: "Sketches", "family tree": "Family tree", scores: "Scores", maps: "Maps", film: "Film" };
const SELECTORS = { TTSVAR_ChooseSketches: "choice", TTSVAR_SelectByHand: "numbers", TTSVAR_ClusterSelector: "", TTSVAR_PotentialResampler: "", TTSVAR_SelectBest: "" };
const BARS = 92; // pixels of the tabs above and the two lines of words below
const ROW = 30, DENSE = 26, SMALL = 32; // pixels of a row of the family tree, where there are few and where there are many; what is too small a picture
const HEADS = 34, LABEL = 36; // pixels of the words above its columns, and of those beside a picture
const GREY = "#6b707c";

app.registerExtension({
  name: "ttsvar.view",
  nodeCreated(node) {
    if (node.comfyClass !== "TTSVAR_InspectState") return;
    const view = { tab: null, scale: null, shape: 1 };
    const panel = addPanel(node, "view", (data) => (data ? BARS + Math.min(330, Math.max(240, rowsOf(data) * ROW + HEADS + 8)) : 60), (data, width, height) => {
      view.node = node;
      view.redraw = panel.redraw;
      // Pictures of the other tabs are fetched at once, so that they are there when wanted
      if (data && data !== view.data) [...data.before, ...data.film.frames, data.maps].flat().filter(Boolean).forEach((file) => imageOf(view, file));
      view.data = data;
      return data ? draw(view, data, width, height) : [make("div", { textContent: say("Run to see the search.") })];
    });
    const show = node.widgets?.find((widget) => widget.name === "show");
    const typed = show?.callback;
    if (show)
      show.callback = function () {
        typed?.apply(this, arguments);
        view.tab = show.value;
        panel.redraw();
      };
    node.setSize([Math.max(node.size[0], 440), Math.max(node.size[1], 420)]);
    node.ttsvarGrow = (data) => panel.show({ ttsvar_view: [data] });
  },
});
// While the search runs, its nodes tell the views after them of every selection
api.addEventListener("ttsvar.search", ({ detail }) => detail.views.forEach((number) => nodeAt(number)?.ttsvarGrow?.(detail.data)));

function rowsOf(data) {
  return Math.max(...data.generations.map((each) => each.founders.length));
}

function draw(view, data, width, height) {
  const tab = view.tab ?? data.show;
  const words = make("div", { className: "ttsvar-note" });
  const plain = () => words.replaceChildren(make("div", { textContent: data.title }), make("div", { textContent: data.prompt }));
  words.style.minHeight = "2.7em";
  plain();
  view.tell = (lines) => (lines ? words.replaceChildren(...lines.map((line) => (line.nodeType ? line : make("div", { textContent: line })))) : plain());
  const bar = make("div", { className: "ttsvar-bar" }, ...Object.entries(TABS).map(([name, title]) => make("button", {
    textContent: say(title), className: name === tab ? "ttsvar-on" : "", onclick: () => { view.tab = name; view.redraw(); },
  })));
  const room = [width - 14, Math.max(200, height - BARS)];
  const body = { sketches, "family tree": tree, scores, maps, film }[tab](view, data, ...room);
  return [bar, ...body, words];
}

/** Light up a family: whatever belongs to another fades. Everything drawn carries its founder. */
function light(view, event, founder) {
  for (const drawn of event.currentTarget.closest(".ttsvar-panel").querySelectorAll("[data-founder]"))
    drawn.classList.toggle("ttsvar-dim", founder !== null && drawn.dataset.founder !== `${founder}`);
}

/** Hovering tells about a sample, a click offers to branch from it. */
function about(view, data, generation, row, drawn) {
  const now = data.generations[generation];
  const founder = now.founders[row];
  drawn.dataset.founder = founder;
  drawn.style.cursor = handOf(view, data, generation) ? "pointer" : "default";
  drawn.onmouseenter = (event) => { light(view, event, founder); if (!view.asked) view.tell(lines(data, generation, row)); };
  drawn.onmouseleave = (event) => { light(view, event, null); if (!view.asked) view.tell(null); };
  drawn.onclick = () => branch(view, data, generation, row);
  return drawn;
}

function lines(data, generation, row) {
  const now = data.generations[generation], next = data.generations[generation + 1];
  const score = next ? now.scores[row] : data.rows[row].score;
  const from = now.parents.length ? `was #${now.parents[row]}` : "";
  const copies = next ? next.parents.filter((parent) => parent === row).length : 0;
  const fate = next ? `scale ${next.since - 1}: ${copies ? `kept${copies > 1 ? ` ×${copies}` : ""}` : "not kept"} · ${next.reason}` : data.prompt;
  const worst = next ? null : data.answers.reduce((least, each) => (least && least.answers[row] <= each.answers[row] ? least : each), null);
  const weak = worst ? [`${worst.answers[row].toFixed(2)}: ${worst.question}`] : [];
  return [[`#${row}`, from, score === null || score === undefined ? "" : `score ${score.toFixed(3)}`, `family ${now.founders[row]}`].filter(Boolean).join(" · "), fate, ...weak];
}

function branch(view, data, generation, row) {
  const target = handOf(view, data, generation);
  if (!target) return;
  const name = target.title ?? target.type;
  const go = make("button", { className: "ttsvar-main", textContent: `${say("Continue")}: #${row} → ${name}`, onclick: async () => {
    view.asked = false;
    if (target.comfyClass === "TTSVAR_ChooseSketches") write(target, "seen", "");
    write(target, SELECTORS[target.comfyClass], `${row}`);
    await runWhatFollows(target);
  } });
  const no = make("button", { textContent: "×", onclick: () => { view.asked = false; view.tell(null); } });
  view.asked = true;
  view.tell([make("div", { className: "ttsvar-bar" }, make("span", { textContent: lines(data, generation, row)[0] }), go, no)]);
}

/** The node by whose hand a sample can go on; none while the search still runs. */
function handOf(view, data, generation) {
  return data.growing ? null : handsOf(view.node, data.generations.length - 1)[generation];
}

/** For every generation the node by whose hand one of its samples can go on: the selectors before this node, and one beside it. */
function handsOf(node, selections) {
  const handOn = (found) => (SELECTORS[found?.comfyClass] && byHand(found, SELECTORS[found.comfyClass]) ? found : null);
  const source = (from) => {
    const socket = from.inputs?.find((input) => input.name === "state") ?? from.inputs?.[0];
    const link = socket?.link == null ? null : from.graph.getLink?.(socket.link) ?? from.graph.links[socket.link];
    return link ? { node: from.graph.getNodeById(link.origin_id), slot: link.origin_slot } : null;
  };
  const here = source(node), before = [];
  for (let at = here; at?.node; at = source(at.node)) if (at.node.comfyClass in SELECTORS) before.unshift(at.node);
  const beside = (here?.node?.getOutputNodes?.(here.slot) ?? []).map(handOn);
  return [...(before.length === selections ? before.map(handOn) : Array(selections).fill(null)), beside.find(Boolean) ?? null];
}

function imageOf(view, file) {
  return picture(view.node, file, (shape) => {
    if (Math.abs(shape - view.shape) > 0.01) { view.shape = shape; view.redraw(); }
  });
}

function gridOf(view, files, width, height, captions, wrap) {
  const { columns, side } = fit(files.length, width - 20, height - 14, view.shape, 26);
  const grid = make("div", { className: "ttsvar-grid" });
  grid.style.gridTemplateColumns = `repeat(${columns}, ${side}px)`;
  grid.append(...files.map((file, place) => {
    const image = imageOf(view, file);
    const [number, colour, right] = captions(place, side);
    const card = make("button", { className: "ttsvar-card" }, image, make("div", { className: "ttsvar-words" }, make("b", { textContent: `#${number}` }), make("i", { textContent: right })));
    card.style.setProperty("--family", colour);
    card.style.setProperty("--shape", view.shape);
    return wrap(card, number);
  }));
  return grid;
}

function sketches(view, data, width, height, pictures = data.pictures) {
  const last = data.generations.length - 1;
  const caption = (row, side) => [row, data.rows[row].colour, data.rows[row].score === null ? data.rows[row].origin : digits(data.rows[row].score, side)];
  return [gridOf(view, pictures, width, height, caption, (card, row) => {
    if (data.rows[row].best) card.classList.add("ttsvar-chosen");
    return about(view, data, last, row, card);
  })];
}

function maps(view, data, width, height) {
  return sketches(view, data, width, height, data.maps);
}

function film(view, data, width, height) {
  const { rows, frames } = data.film;
  if (!frames.length) return [make("div", { textContent: data.title })];
  const at = Math.min(view.scale ?? frames.length - 1, frames.length - 1);
  const caption = (place) => [rows[place], data.rows[rows[place]].colour, ""];
  const last = data.generations.length - 1;
  const grid = gridOf(view, frames[at], width, height - 30, caption, (card, row) => about(view, data, last, row, card));
  const label = make("span", { textContent: `${say("scale")} ${at}` });
  const slider = make("input", { type: "range", min: 0, max: frames.length - 1, value: at, oninput: () => {
    view.scale = +slider.value;
    label.textContent = `${say("scale")} ${view.scale}`;
    grid.querySelectorAll("img").forEach((image, place) => image.replaceWith(imageOf(view, frames[view.scale][place])));
  } });
  slider.style.flex = "1 1 120px";
  label.style.flex = "0 0 64px";
  return [make("div", { className: "ttsvar-bar" }, label, slider), grid];
}

function tree(view, data, width, height) {
  const generations = data.generations;
  const most = rowsOf(data);
  const tall = Math.max(height - 8, (most > 10 ? DENSE : ROW) * most + HEADS);
  const column = width / generations.length;
  // Many that would be too small stand in two rows side by side, by turns
  const sideOf = (lanes) => {
    const down = (lanes * (tall - HEADS) * (most + 1)) / (most * (most + lanes)) - 4, across = (column - (lanes > 1 ? 60 : 10)) / lanes - LABEL;
    return Math.max(18, Math.min(down, across, 160));
  };
  const lanes = sideOf(1) < SMALL && sideOf(2) > 1.6 * sideOf(1) ? 2 : 1; // lines are clearer from one row
  const side = sideOf(lanes);
  const crowded = (generation) => generations[generation].founders.length * (side + 4) > tall - HEADS + 1;
  const y = (generation, row) => {
    const count = generations[generation].founders.length, edge = crowded(generation) ? Math.max(0, side + 4 - (tall - HEADS) / count) / 2 : 0;
    return HEADS + edge + (tall - HEADS - 2 * edge) * ((row + 0.5) / count);
  };
  const left = (generation) => column * generation + 4;
  const x = (generation, row) => left(generation) + (crowded(generation) ? (row % lanes) * (side + LABEL) : 0);
  const svg = make("svg", { width, height: tall, viewBox: `0 0 ${width} ${tall}`, style: "flex: none" });
  generations.forEach((now, generation) => {
    const next = generations[generation + 1];
    svg.append(make("text", { x: left(generation), y: 12 }, `${say("scale")} ${(next?.since ?? data.done) - 1}`),
      make("text", { x: left(generation), y: 27 }, next ? `${now.founders.length} → ${next.founders.length}` : `${now.founders.length}`));
    now.parents.forEach((parent, row) => {
      const [fromX, fromY, toX, toY] = [x(generation - 1, parent) + side, y(generation - 1, parent), x(generation, row), y(generation, row)];
      const line = make("path", { d: `M${fromX} ${fromY} C${(fromX + toX) / 2} ${fromY} ${(fromX + toX) / 2} ${toY} ${toX} ${toY}`, fill: "none",
        stroke: now.lives[row] ? now.colours[row] : GREY, "stroke-width": now.lives[row] ? 3 : 1.5 });
      line.dataset.founder = now.founders[row];
      svg.append(line);
    });
  });
  generations.forEach((now, generation) => now.founders.forEach((_, row) => svg.append(leaf(view, data, generation, row, x(generation, row), y(generation, row), side, column))));
  return [svg];
}

function leaf(view, data, generation, row, x, y, side, column) {
  const now = data.generations[generation];
  const pictures = generation + 1 < data.generations.length ? data.before[generation] : data.pictures;
  const score = generation + 1 < data.generations.length ? now.scores[row] : data.rows[row].score;
  const living = now.lives[row];
  const group = make("g", { opacity: living ? 1 : 0.5 });
  group.append(pictures?.[row] ? make("image", { href: pictureUrl(pictures[row]), x, y: y - side / 2, width: side, height: side })
    : make("circle", { cx: x + side / 2, cy: y, r: 6, fill: now.colours[row] }));
  group.append(make("rect", { x, y: y - side / 2, width: side, height: side, fill: "transparent", stroke: living ? now.colours[row] : GREY, "stroke-width": living ? 2 : 1 }));
  const words = [`#${row}`];
  if (score !== null && score !== undefined && column - side > 40 && side > 25) words.push(score.toFixed(2));
  // The line to the next generation leaves at half the height: words stand above and below it
  words.forEach((word, line) => group.append(make("text", { x: x + side + 5, y: y + (line ? 14 : -5) }, word)));
  return about(view, data, generation, row, group);
}

function scores(view, data, width, height) {
  const fallen = data.generations.slice(0, -1).flatMap((now, generation) => now.scores.map((score, row) => ({ score, row, generation, scale: data.generations[generation + 1].since - 1 })))
    .filter(({ score, row, generation }) => score !== null && !data.generations[generation + 1].parents.includes(row));
  const known = [...fallen.map(({ score }) => score), ...data.scores.flat().filter((score) => score !== null)];
  const list = selections(data);
  if (!known.length) return [make("div", { textContent: say("Nothing has been scored yet; put a Reward Scorer before.") }), list];
  const low = Math.min(...known), span = Math.max(...known) - low || 1;
  const tall = Math.max(150, height - 36 * (data.generations.length - 1) - 12);
  const x = (scale) => 46 + ((width - 60) * (scale + 0.5)) / data.scales;
  const y = (score) => tall - 24 - ((tall - 40) * (score - low)) / span;
  const svg = make("svg", { width, height: tall, viewBox: `0 0 ${width} ${tall}`, style: "flex: none" });
  for (const part of [0, 0.25, 0.5, 0.75, 1]) {
    const at = y(low + part * span);
    svg.append(make("line", { x1: 46, x2: width - 8, y1: at, y2: at, stroke: GREY, "stroke-width": 0.4 }), make("text", { x: 2, y: at + 4 }, (low + part * span).toFixed(2)));
  }
  for (let scale = 0; scale < data.scales; scale++) svg.append(make("text", { x: x(scale), y: tall - 6, "text-anchor": "middle" }, `${scale}`));
  for (const { score, row, generation, scale } of fallen)
    svg.append(about(view, data, generation, row, make("circle", { cx: x(scale), cy: y(score), r: 5, fill: "transparent", stroke: GREY, "stroke-width": 1.5 })));
  const last = data.generations.length - 1;
  data.scores.forEach((values, row) => {
    const points = values.map((score, scale) => (score === null ? null : [x(scale), y(score)])).filter(Boolean);
    const line = make("path", { d: points.map(([left, top], i) => `${i ? "L" : "M"}${left} ${top}`).join(""), fill: "none", stroke: data.rows[row].colour, "stroke-width": 2 });
    line.dataset.founder = data.generations[last].founders[row];
    svg.append(line, ...points.map(([cx, cy]) => about(view, data, last, row, make("circle", { cx, cy, r: 5, fill: data.rows[row].colour }))));
  });
  return [svg, answers(data), list].filter(Boolean);
}

/** Every question asked of the finished samples with their answers, so that it is seen why a picture lost. */
function answers(data) {
  const cell = (tag, text) => make(tag, { textContent: text });
  const head = make("tr", {}, ...data.rows.map((_, row) => cell("th", `#${row}`)), cell("th", ""));
  const lines = data.answers.map(({ question, answers }) => make("tr", {}, ...answers.map((answer) => cell("td", answer.toFixed(2))), cell("td", question)));
  return data.answers.length ? make("table", { className: "ttsvar-answers" }, head, ...lines) : null;
}

/** A few words on every selection: scale, effective sample size, reason. */
function selections(data) {
  return make("div", {}, ...data.generations.slice(1).map((after, place) => {
    const count = data.generations[place].founders.length;
    const words = `${say("scale")} ${after.since - 1}: ${count} → ${after.founders.length}, ess ${after.ess.toFixed(1)} · ${after.reason.replace(/, ess [^,]*/, "")}`;
    return make("div", { className: "ttsvar-selection", textContent: words });
  }));
}
