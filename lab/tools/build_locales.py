"""Write what is said of the nodes more than once from where it is said first: locales/en/nodeDefs.json from the nodes' own words,
and title, description, picture, inputs and outputs of every help page in web/docs from its language's nodeDefs.json.

    python lab/tools/build_locales.py

Written by hand are the other languages' nodeDefs.json and the middle of each help page, which stays as it is.
"""

import json
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
HEADINGS = {"en": ("Inputs", "Outputs"), "zh": ("输入", "输出")}


def entry(schema) -> dict:
    """What a locale file says of one node."""
    return {
        "display_name": schema.display_name,
        "description": schema.description,
        "inputs": {one.id: {"name": one.display_name or one.id, "tooltip": one.tooltip} for one in schema.inputs},
        "outputs": {str(i): {"name": one.display_name or one.id, "tooltip": one.tooltip} for i, one in enumerate(schema.outputs)},
    }


def page(node_id: str, language: str) -> Path:
    """Where ComfyUI looks for a help page: a language's own first, then the one without a language."""
    folder = ROOT / "web" / "docs"
    return folder / f"{node_id}.md" if language == "en" else folder / node_id / f"{language}.md"


def told(node_id: str, words: dict, middle: str, language: str) -> str:
    """A help page: what a locale file says of a node and its picture (see `help_pictures`), around the middle."""
    inputs, outputs = HEADINGS[language]
    parts = [f"# {words['display_name']}", words["description"], f"![{words['display_name']}](pictures/{node_id}.webp)", middle]
    for heading, those in ((inputs, words["inputs"]), (outputs, words["outputs"])):
        parts += [f"## {heading}", "\n".join(f"- **{one['name']}**: {one['tooltip']}" for one in those.values())]
    return "\n\n".join(parts) + "\n"


def middle_of(text: str) -> str:
    """What a help page says between its picture and its inputs."""
    return text.split("\n\n", 3)[3].split("\n\n## ")[0].strip()


def main() -> None:
    """Load the pack in the tests' stand-in host and write the files."""
    sys.path.insert(0, str(ROOT / "tests"))
    from host_stand_in import load_pack

    with tempfile.TemporaryDirectory() as folder, load_pack(Path(folder)) as pack:
        english = {node_id: entry(node.define_schema()) for node_id, node in pack.nodes.items()}
    file = ROOT / "locales" / "en" / "nodeDefs.json"
    file.write_text(json.dumps(english, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    for language in HEADINGS:
        words = json.loads((ROOT / "locales" / language / "nodeDefs.json").read_text(encoding="utf-8"))
        for node_id in english:
            path = page(node_id, language)
            middle = middle_of(path.read_text(encoding="utf-8"))
            path.write_text(told(node_id, words[node_id], middle, language), encoding="utf-8")


if __name__ == "__main__":
    main()
