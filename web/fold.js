// Inputs that do not apply to what is chosen are hidden, and on the classic canvas the advanced ones are folded away, as the newer
// renderer does it by itself. Widgets keep their values and are saved as ever; only their rows go.
import { app } from "../../scripts/app.js";
import { allNodes, say } from "./shared.js";

const rules = {}; // of a node type: the inputs that apply only while others have certain values, as nodes/types.py tells it

const classic = () => !window.LiteGraph?.vueNodesMode;
const find = (node, name) => node.widgets?.find((widget) => widget.name === name);
const wired = (node, name) => node.inputs?.some((input) => (input.widget?.name ?? input.name) === name && input.link != null);

/** Whether an input has a say. Nobody knows here what a wire brings. */
function applies(node, { name, ttsvarHidden }) {
  const met = ([other, values]) => wired(node, other) || !find(node, other) || values.includes(find(node, other).value);
  return !ttsvarHidden && (wired(node, name) || Object.entries(rules[node.comfyClass]?.[name] ?? {}).every(met));
}

const advanced = (node) => (node.widgets ?? []).filter((widget) => widget.options?.advanced && applies(node, widget));

function fold(node) {
  for (const widget of node.widgets ?? []) {
    const folded = !!widget.options?.advanced, out = !applies(node, widget);
    if (folded) widget.advanced = !classic(); // so that a node of the newer renderer is measured without its folded rows
    if (widget.name in (rules[node.comfyClass] ?? {})) widget.options.hidden = out; // what the newer renderer looks at
    else if (!folded) continue;
    widget.hidden = out || (folded && classic() && !node.showAdvanced);
  }
}

/** Fold, and let the node be as much higher or lower as its rows become. */
function refold(node, change) {
  const before = node.computeSize()[1];
  change?.();
  fold(node);
  const [width, height] = node.computeSize();
  node.setSize([Math.max(width, node.size[0]), node.size[1] + height - before]);
  node.setDirtyCanvas?.(true, true);
}

/** Call ours, with what it was given, after what a node or widget does by itself. */
function after(owner, name, then) {
  const own = owner[name];
  owner[name] = function () {
    const answer = own?.apply(this, arguments);
    then(...arguments);
    return answer;
  };
}

app.registerExtension({
  name: "ttsvar.fold",
  setup() {
    const ours = () => allNodes(app.rootGraph ?? app.graph).filter((node) => node.comfyClass?.startsWith("TTSVAR_"));
    app.ui?.settings?.addEventListener?.("Comfy.VueNodes.Enabled.change", () => setTimeout(() => ours().forEach(fold)));
  },
  beforeRegisterNodeDef(_, data) {
    if (!data.name.startsWith("TTSVAR_")) return;
    const inputs = Object.entries({ ...data.input?.required, ...data.input?.optional });
    rules[data.name] = Object.fromEntries(inputs.map(([name, spec]) => [name, spec[1]?.ttsvar_only]).filter(([, rule]) => rule));
  },
  nodeCreated(node) {
    if (!node.comfyClass?.startsWith("TTSVAR_")) return;
    const others = new Set(Object.values(rules[node.comfyClass] ?? {}).flatMap(Object.keys));
    node.widgets?.filter((widget) => others.has(widget.name)).forEach((widget) => after(widget, "callback", () => refold(node)));
    after(node, "onConfigure", ({ size }) => {
      fold(node);
      if (size) node.setSize([size[0], size[1]]); // its wires came before its values, and were no reason to grow
    });
    if (others.size) after(node, "onConnectionsChange", () => refold(node));
    refold(node);
  },
  getNodeMenuItems(node) {
    if (!node.comfyClass?.startsWith("TTSVAR_") || !classic() || !advanced(node).length) return [];
    const content = say(node.showAdvanced ? "Hide advanced inputs" : "Show advanced inputs");
    return [{ content, callback: () => refold(node, () => { node.showAdvanced = !node.showAdvanced; }) }];
  },
});
