// Colours for the pack's wires, and advanced inputs folded away on the classic canvas as the newer renderer does it by itself.
import { app } from "../../scripts/app.js";

// Beside the host's own: a model, a text encoder, a conditioning and a latent look as people know them.
const COLOURS = {
  TTSVAR_MODEL: "#B39DDB",
  TTSVAR_TEXT_ENCODER: "#FFD500",
  TTSVAR_CONDITIONING: "#FFA931",
  TTSVAR_STATE: "#FF9CF9",
  TTSVAR_EXTRACTOR: "#6EE7B7",
  TTSVAR_REWARD: "#FF6E6E",
};

function paint() {
  Object.assign(app.canvas.default_connection_color_byType, COLOURS);
  Object.assign(app.canvas.constructor.link_type_colors, COLOURS);
  for (const [type, colour] of Object.entries(COLOURS)) {
    document.documentElement.style.setProperty(`--color-datatype-${type}`, colour);
  }
}

const advanced = (node) => (node.widgets ?? []).filter((widget) => widget.options?.advanced);

// Widgets keep their values and are saved as ever; only their rows go.
function fold(node) {
  if (window.LiteGraph?.vueNodesMode) return;
  for (const widget of advanced(node)) widget.hidden = !node.showAdvanced;
}

function toggle(node) {
  node.showAdvanced = !node.showAdvanced;
  fold(node);
  const [width, height] = node.computeSize();
  node.setSize([Math.max(width, node.size[0]), Math.max(height, node.showAdvanced ? node.size[1] : 0)]);
  node.setDirtyCanvas(true, true);
}

const ours = (node) => node.comfyClass?.startsWith("TTSVAR_");

app.registerExtension({
  name: "ttsvar.colours",
  setup: paint,
  nodeCreated(node) {
    if (ours(node)) fold(node);
  },
  loadedGraphNode(node) {
    if (ours(node)) fold(node);
  },
  afterConfigureGraph: paint,
  getNodeMenuItems(node) {
    if (!ours(node) || window.LiteGraph?.vueNodesMode || !advanced(node).length) return [];
    const content = node.showAdvanced ? "Hide advanced inputs" : "Show advanced inputs";
    return [{ content, callback: () => toggle(node) }];
  },
});
