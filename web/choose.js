// Choose Sketches and Choose Batch: a click writes the number into the node's ordinary widget "choice".
import { app } from "../../scripts/app.js";
import { addPanel, byHand, digits, fit, hide, make, picture, runUpTo, runWhatFollows, say, valueOf, write } from "./shared.js";

const NODES = ["TTSVAR_ChooseSketches", "TTSVAR_ChooseBatch"];
const CAPTION = 26; // pixels of a line of words under a picture
const bars = (width) => (width < 550 ? 104 : 74); // pixels of the title and its buttons, below one another where it is narrow, and the note

/** The numbers in a choice such as "2 5 5" or "0-3"; what the node would refuse is left out. */
export function numbersIn(text, count) {
  const found = `${text}`.replace(/[,;#]/g, " ").replace(/\s*-\s*/g, "-").split(/\s+/).flatMap((word) => {
    const [, first, last] = /^(\d+)(?:-(\d+))?$/.exec(word) ?? [];
    return first === undefined ? [] : Array.from({ length: Math.max(0, Math.min(last ?? first, count) - first + 1) }, (_, i) => +first + i);
  });
  return found.filter((number) => number < count);
}

app.registerExtension({
  name: "ttsvar.choose",
  nodeCreated(node) {
    if (!NODES.includes(node.comfyClass)) return;
    const shapes = { value: 1 };
    const smallest = (data, width) => (data ? bars(width) + 2 * (150 + CAPTION * lines(data)) : 130);
    const panel = addPanel(node, "choose", smallest, (data, width, height) => draw(node, data, width, height, shapes, panel));
    hide(node, "seen"); // written by clicks
    const choice = node.widgets?.find((widget) => widget.name === "choice");
    const typed = choice?.callback;
    if (choice)
      choice.callback = function () {
        typed?.apply(this, arguments);
        panel.redraw();
      };
    node.setSize([Math.max(node.size[0], 440), Math.max(node.size[1], 300)]);
  },
});

function lines(data) {
  return data.rows.some((row) => row.label) ? 2 : 1;
}

function draw(node, data, width, height, shapes, panel) {
  const show = make("button", { textContent: say("Show"), title: say("Run to see what there is to choose from."), onclick: () => runUpTo(node) });
  if (!data) return [make("div", { className: "ttsvar-bar" }, make("span", { textContent: say("Run to see what there is to choose from.") }), show)];
  const open = byHand(node, "choice");
  const chosen = open ? numbersIn(valueOf(node, "choice"), data.rows.length) : data.chosen;
  const stale = valueOf(node, "seen") && valueOf(node, "seen") !== data.key;
  const choose = (rows) => {
    if (!open) return;
    write(node, "seen", rows.length ? data.key : "");
    write(node, "choice", rows.join(" "));
    panel.redraw();
  };
  const release = make("button", { textContent: say("Release all"), disabled: !open || !chosen.length, onclick: () => choose([]) });
  const go = make("button", {
    className: "ttsvar-main", textContent: `${say("Continue")}${chosen.length ? ` (${chosen.length})` : ""}`, disabled: !chosen.length || !!stale,
    onclick: async () => { if (!(await runWhatFollows(node))) note.textContent = say("Nothing follows this node yet."); },
  });
  const words = stale ? "These are others than those you chose from. Choose again." : !open ? "The choice comes by a wire." : chosen.length ? "click: choose or release, shift-click: a copy"
    : "Click what shall go on, then press Continue.";
  const note = make("div", { className: "ttsvar-note", textContent: say(words) });
  const caption = CAPTION * lines(data);
  const { columns, side } = fit(data.rows.length, width - 34, height - bars(width) - 14, shapes.value, caption);
  const grid = make("div", { className: "ttsvar-grid" });
  grid.style.gridTemplateColumns = `repeat(${columns}, ${side}px)`;
  grid.append(...data.rows.map((row) => card(node, row, stale ? [] : chosen, choose, shapes, panel, side)));
  return [make("div", { className: "ttsvar-bar" }, make("span", { textContent: data.title }), make("div", { className: "ttsvar-bar" }, show, release, go)), note, grid];
}

function card(node, row, chosen, choose, shapes, panel, side) {
  const times = chosen.filter((number) => number === row.row).length;
  const image = picture(node, row.picture, (shape) => {
    if (Math.abs(shape - shapes.value) > 0.01) { shapes.value = shape; panel.redraw(); }
  });
  const score = row.score === null ? "" : digits(row.score, side);
  const drawn = make("button", {
    className: `ttsvar-card${times ? " ttsvar-chosen" : ""}`, title: [`#${row.row}`, row.origin, row.label, score].filter(Boolean).join(" · "),
    onclick: (event) => choose(event.shiftKey ? [...chosen, row.row] : times ? chosen.filter((number) => number !== row.row) : [...chosen, row.row]),
  }, image, make("div", { className: "ttsvar-words" }, make("b", { textContent: `#${row.row}` }), make("i", { textContent: score || row.origin })),
  row.label ? make("div", { className: "ttsvar-words" }, make("i", { textContent: row.label })) : null,
  times ? make("b", { className: "ttsvar-count", textContent: times > 1 ? `×${times}` : "✓" }) : null);
  drawn.style.setProperty("--family", row.colour);
  drawn.style.setProperty("--shape", shapes.value);
  return drawn;
}
