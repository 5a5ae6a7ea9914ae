// Colours for the pack's wires.
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

app.registerExtension({ name: "ttsvar.colours", setup: paint, afterConfigureGraph: paint });
