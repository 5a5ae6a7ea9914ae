"""Reading weight files that users bring: where they are published, which formats are read, what errors say."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from torch import Tensor

from ..weights.errors import CheckpointError
from ..weights.files import read_checkpoint
from ..weights.names import plain_name
from ..weights.reading import read_json

WRAPPERS = ("state_dict", "model", "module")
"""Keys under which training code keeps the tensors: open_clip and HPS use the first."""
NESTING = 3
"""How deep such keys may lie in each other; a file may also hold itself."""


class Published(NamedTuple):
    """A model as its authors publish it; `folder` is where this pack's users keep such files."""

    title: str
    file: str
    page: str
    folder: str = "models/reward_models"

    @property
    def advice(self) -> str:
        """The sentence every error about this file ends with."""
        return f"{self.title}: get {self.file} from {self.page} and put it into {self.folder}."


class MissingWeights(CheckpointError, FileNotFoundError):
    """No such file."""


class WrongWeights(CheckpointError):
    """The file is there but does not hold the model that was asked for."""


class Required(dict):
    """Tensors by name, of which each that is asked for must be there: a missing one is a WrongWeights error."""

    def __init__(self, tensors: Mapping[str, Tensor], source: str, published: Published):
        super().__init__(tensors)
        self._source, self._published = source, published

    def __missing__(self, name: str) -> Tensor:
        title, advice = self._published.title, self._published.advice
        raise WrongWeights(f"{self._source} does not hold a complete {title}: tensor {name} is missing. {advice}")


def read_tensors(path: str | Path, published: Published) -> dict[str, Tensor]:
    """All tensors of a weight file by name, memory-mapped where the format allows; never unpickles objects.

    path: a .safetensors file, a torch file holding a state dict (also one wrapped under `state_dict`, `model` or
    `module`), or a folder in the Hugging Face or open_clip layout, sharded or not.
    Raises MissingWeights or WrongWeights, naming the file, the folder and the page it is published on.
    """
    path = Path(path)
    if not path.exists():
        raise MissingWeights(f"{path} does not exist. {published.advice}")
    try:
        content = read_checkpoint(path).content
    except CheckpointError as error:
        raise WrongWeights(f"{path} cannot be read as tensors: {error} {published.advice}") from error
    for _ in range(NESTING):
        content = content.get(_wrapper(content), content)
    tensors = {plain_name(str(name)): tensor for name, tensor in content.items() if isinstance(tensor, Tensor)}
    if not tensors:
        raise WrongWeights(f"{path} holds no tensors. {published.advice}")
    return tensors


def read_config(path: str | Path) -> dict:
    """The configuration published with the weights, or {}: config.json in a folder, `<stem>.json` beside a file."""
    path = Path(path)
    candidates = [path / "config.json", path / "open_clip_config.json"] if path.is_dir() else [path.with_suffix(".json")]
    for candidate in candidates:
        if candidate.exists():
            return read_json(candidate)
    return {}


def with_prefix(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The tensors whose names start with `prefix`, without it."""
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}


def require(tensors: Mapping[str, Tensor], names: tuple[str, ...], source: str, published: Published) -> None:
    """Raises WrongWeights if one of `names`, by which a layout is recognised, is not among `tensors`."""
    missing = [name for name in names if name not in tensors]
    if missing:
        found = ", ".join(list(tensors)[:3]) or "nothing"
        raise WrongWeights(
            f"{source} is not {published.title}: it has no tensor {missing[0]} (it begins with {found}). {published.advice}"
        )


def _wrapper(content: Mapping) -> str | None:
    return next((key for key in WRAPPERS if isinstance(content.get(key), Mapping)), None)
