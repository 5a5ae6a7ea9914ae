"""How much memory and time loading a full-size model takes.

Writes files with the names and shapes of a published model (random values), loads each in a process of its own and prints the
peak of its resident memory beside the size of the weights:

    python lab/benchmark/load_memory.py --model infinity_2b --folder /some/large/disk

Needs about 10 GB of disk and 10 GB of memory for infinity_2b. The files are removed afterwards.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
LISTS = ROOT / "tests" / "golden" / "checkpoints"
TOKENIZERS = {"infinity_2b": "vae_d32", "infinity_layer12_125m": "vae_d32", "infinity_8b": "vae_d14_patchify"}
LAYOUTS = ("pth", "safetensors", "training")
DTYPES = ("float32", "bfloat16")

WRITE = """
import json, sys, torch
from safetensors.torch import save_file
listing, path, layout = sys.argv[1:]
tensors = {}
for name, (shape, kind) in json.load(open(listing))["tensors"].items():
    dtype = getattr(torch, kind)
    tensors[name] = torch.empty(shape).normal_(std=0.02) if dtype.is_floating_point else torch.zeros(shape, dtype=dtype)
if layout == "safetensors":
    save_file(tensors, path)
elif layout == "training":
    moments = {n: {"exp_avg": t + 1, "exp_avg_sq": t + 2} for n, t in tensors.items()}
    torch.save({"trainer": {"gpt_fsdp": tensors, "gpt_fsdp_opt": moments}}, path)
else:
    torch.save({"vae": tensors} if layout == "vae" else tensors, path)
"""

LOAD = """
import json, resource, sys, time, torch
from ttsvar_core.weights import load_model
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
start = time.perf_counter()
model = load_model(sys.argv[1], sys.argv[2], dtype=getattr(torch, sys.argv[3]))
seconds = time.perf_counter() - start
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print(json.dumps({"before_gb": before * 1024 / 1e9, "peak_gb": peak * 1024 / 1e9, "seconds": seconds}))
"""


def python(code: str, *arguments: str) -> str:
    """Run code in a fresh interpreter and return what it printed."""
    command = [sys.executable, "-c", code, *arguments]
    return subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True).stdout


def bytes_of(listing: Path) -> int:
    """Bytes of all weights in a list of names and shapes, in float32."""
    total = 0
    for shape, _ in json.loads(listing.read_text())["tensors"].values():
        count = 4
        for side in shape:
            count *= side
        total += count
    return total


def measure(model: str, layouts: list[str], folder: Path) -> Iterator[dict]:
    """One row per layout and precision: sizes in GB, peak as a multiple of the weights' size, seconds."""
    listings = LISTS / f"{model}.transformer.json", LISTS / f"{TOKENIZERS[model]}.json"
    weights = sum(bytes_of(listing) for listing in listings) / 1e9
    tokenizer = folder / "infinity_vae_d32reg.pth"
    python(WRITE, str(listings[1]), str(tokenizer), "vae")
    for layout in layouts:
        file = folder / f"{model}.{'safetensors' if layout == 'safetensors' else 'pth'}"
        python(WRITE, str(listings[0]), str(file), layout)
        for dtype in DTYPES:
            row = json.loads(python(LOAD, str(file), str(tokenizer), dtype))
            size = file.stat().st_size / 1e9
            yield {"layout": layout, "dtype": dtype, "file_gb": size, "weights_gb": weights, **row,
                   "peak_over_weights": row["peak_gb"] / weights}
        file.unlink()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", choices=sorted(TOKENIZERS), default="infinity_2b")
    parser.add_argument("--layouts", nargs="+", choices=LAYOUTS, default=["pth", "safetensors"])
    parser.add_argument("--folder", type=Path, help="where to write the files (default: the system's temporary folder)")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=args.folder) as folder:
        for row in measure(args.model, args.layouts, Path(folder)):
            print("  ".join(f"{k} {v:.2f}" if isinstance(v, float) else v for k, v in row.items()), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
