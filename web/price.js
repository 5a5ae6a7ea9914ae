// TTS-VAR Generate tells its price before it runs: a copy of it is asked, before whatever waits in the queue, so neither the graph nor
// what it has cached changes.
import { app } from "../../scripts/app.js";
import { api } from "../../scripts/api.js";
import { hide, numbersOf, say } from "./shared.js";
import { show } from "./words.js";

const asked = new Map(); // nodes, by the number of the text that will hold their price
let questions = 0; // so that no answer is taken for that of a later question

async function ask(node) {
  const graph = await app.graphToPrompt();
  const [own] = numbersOf(node, graph.output);
  if (!own) return show(node, say("The node is muted."));
  const copy = `ttsvar_price_${own.replaceAll(":", "_")}_${++questions}`, text = `${copy}_text`;
  const { [own]: { inputs, ...rest } } = graph.output;
  graph.output[copy] = { ...rest, inputs: { ...inputs, only_price: true } };
  graph.output[text] = { class_type: "PreviewAny", inputs: { source: [copy, 3] } };
  asked.set(text, node);
  try {
    await api.queuePrompt(-1, graph, { partialExecutionTargets: [text] });
  } catch (error) {
    asked.delete(text);
    show(node, `${error}`); // a refused graph tells in so many words which input of which node is wrong
  }
}

/** The price of a question has come, or why there is none. */
function answer(text, told) {
  const node = asked.get(text);
  if (node) show(node, told());
  asked.delete(text);
}

api.addEventListener("executed", ({ detail }) => answer(detail.node, () => detail.output.text.join("\n")));
api.addEventListener("execution_error", ({ detail }) => answer(`${detail.node_id}_text`, () => detail.exception_message));

app.registerExtension({
  name: "ttsvar.price",
  nodeCreated(node) {
    if (node.comfyClass !== "TTSVAR_Generate") return;
    hide(node, "only_price");
    node.addWidget("button", say("What will it cost?"), null, () => ask(node), { serialize: false }).serialize = false;
  },
});
