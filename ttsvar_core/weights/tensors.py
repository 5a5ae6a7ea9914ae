"""The tensors in a published file of a reward or extractor, by name, and errors that say where to get it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from ..reading import MissingFile, UnusableFile, read_json
from ..registry import WeightFile
from .files import read_checkpoint
from .names import plain_name

WRAPPERS = ("state_dict", "model", "module")
"""Keys under which training code keeps the tensors: open_clip and HPS use the first."""
NESTING = 3
"""How deep such keys may lie in each other; a file may also hold itself."""


class Tensors(dict):
    """Tensors by name from a published file; whatever is wrong with them is an UnusableFile that says where to get it."""

    def __init__(self, tensors: Mapping[str, Tensor], source: str, file: WeightFile):
        super().__init__(tensors)
        self.source, self.file = source, file

    def __missing__(self, name: str) -> Tensor:
        raise self.refusal(f"does not hold a complete {self.file.title}: tensor {name} is missing")

    def refusal(self, what: str) -> UnusableFile:
        return UnusableFile(f"{self.source} {what}. {self.file.advice}")

    def alike(self, tensors: Mapping[str, Tensor]) -> Tensors:
        """Other tensors, of the same file."""
        return Tensors(tensors, self.source, self.file)

    def under(self, prefix: str) -> Tensors:
        """Those whose names start with `prefix`, without it."""
        return self.alike({name.removeprefix(prefix): tensor for name, tensor in self.items() if name.startswith(prefix)})

    def require(self, *names: str) -> None:
        """Raises UnusableFile if one of `names`, by which a layout is recognised, is not there."""
        if missing := [name for name in names if name not in self]:
            found = ", ".join(list(self)[:3]) or "nothing"
            raise self.refusal(f"is not {self.file.title}: it has no tensor {missing[0]} (it begins with {found})")


def read_tensors(path: str | Path, published: WeightFile) -> Tensors:
    """All tensors of a weight file by name, memory-mapped where the format allows; never unpickles objects.

    path: a .safetensors file, a torch file holding a state dict (also one wrapped under `state_dict`, `model` or
    `module`), or a folder in the Hugging Face or open_clip layout, sharded or not.
    Raises MissingFile or UnusableFile, naming the file, the folder and the page it is published on.
    """
    path = Path(path)
    if not path.exists():
        raise MissingFile(f"{path} does not exist. {published.advice}")
    try:
        content = read_checkpoint(path).content
    except UnusableFile as error:
        raise UnusableFile(f"{path} cannot be read as tensors: {error} {published.advice}") from error
    for _ in range(NESTING):
        content = next((content[key] for key in WRAPPERS if isinstance(content.get(key), Mapping)), content)
    tensors = {plain_name(str(name)): tensor for name, tensor in content.items() if isinstance(tensor, Tensor)}
    if not tensors:
        raise UnusableFile(f"{path} holds no tensors. {published.advice}")
    return Tensors(tensors, str(path), published)


def read_config(path: str | Path) -> dict:
    """The configuration published with the weights, or {}: config.json in a folder, `<stem>.json` beside a file."""
    path = Path(path)
    candidates = [path / "config.json", path / "open_clip_config.json"] if path.is_dir() else [path.with_suffix(".json")]
    for candidate in candidates:
        if candidate.exists():
            return read_json(candidate)
    return {}
