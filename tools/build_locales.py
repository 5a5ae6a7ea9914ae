"""Write locales/en/nodeDefs.json from the nodes' own words; the other languages are written by hand beside it.

    python tools/build_locales.py
"""

import json
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def entry(schema) -> dict:
    """What a locale file says of one node."""
    return {
        "display_name": schema.display_name,
        "description": schema.description,
        "inputs": {one.id: {"name": one.display_name or one.id, "tooltip": one.tooltip} for one in schema.inputs},
        "outputs": {str(i): {"name": one.display_name or one.id, "tooltip": one.tooltip} for i, one in enumerate(schema.outputs)},
    }


def main() -> None:
    """Load the pack in the tests' stand-in host and write the file."""
    sys.path.insert(0, str(ROOT / "tests"))
    from host_stand_in import load_pack

    with tempfile.TemporaryDirectory() as folder, load_pack(Path(folder)) as pack:
        told = {node_id: entry(node.define_schema()) for node_id, node in pack.nodes.items()}
    path = ROOT / "locales" / "en" / "nodeDefs.json"
    path.write_text(json.dumps(told, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
