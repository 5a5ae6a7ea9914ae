// What a node said in a run stays on it: newer releases of the page take the words away when the run ends.
import { app } from "../../scripts/app.js";
import { api } from "../../scripts/api.js";
import { make, nodeAt } from "./shared.js";

const said = new Map(); // by node, in this run

/** Put words on a node, or take them away. */
export function show(node, text) {
  said.delete(node); // older words
  if (!text && !node.ttsvarWords) return;
  node.ttsvarWords ??= node.addDOMWidget("ttsvar_words", "ttsvar", make("div", { className: "ttsvar-said" }), {
    serialize: false, hideOnZoom: false, hideInPanel: true, getMinHeight: () => 52,
  });
  const widget = node.ttsvarWords;
  widget.serialize = false;
  widget.element.textContent = text;
  Object.assign(widget, { hidden: !text }).options.hidden = !text;
  node.setDirtyCanvas?.(true, true);
}

api.addEventListener("progress_text", ({ detail }) => {
  const node = nodeAt(`${detail.nodeId}`);
  if (!node?.comfyClass?.startsWith("TTSVAR_")) return;
  show(node, ""); // the page shows them while it runs
  said.set(node, detail.text);
});

const shown = (node, text) => node.widgets?.some((widget) => widget.value === text);

const stay = () => {
  for (const [node, text] of said) if (node.graph === app.canvas.graph && !shown(node, text)) show(node, text); // not in closed subgraphs
  said.clear();
};
for (const end of ["execution_success", "execution_error", "execution_interrupted"]) api.addEventListener(end, () => setTimeout(stay, 500));
