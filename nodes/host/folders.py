"""Where the host keeps files: models by folder and name, saved states, pictures for the page."""

from __future__ import annotations

import os
import re
import uuid
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import folder_paths

from ...ttsvar_core import names
from ...ttsvar_core.registry import MODEL_FILES, WeightFile

if TYPE_CHECKING:
    from PIL import Image

BUNDLED = f"{names.BUNDLED} (bundled)"
OWN_FOLDERS = ("infinity", "reward_models")
STATE_SUFFIX = ".state.safetensors"
_EXTENSIONS = {".safetensors", ".sft", ".pth", ".pt", ".bin", ".ckpt"}


def register_folders() -> None:
    """Tell ComfyUI of models/infinity and models/reward_models; paths from extra_model_paths.yaml stay in front."""
    for name in OWN_FOLDERS:
        folder_paths.add_model_folder_path(name, os.path.join(folder_paths.models_dir, name))
        paths, extensions = folder_paths.folder_names_and_paths[name]
        folder_paths.folder_names_and_paths[name] = (paths, set(extensions) | _EXTENSIONS)


def bundled(name: str) -> str:
    """Path of a file that comes with the pack."""
    return str(Path(__file__).resolve().parents[2] / "ttsvar_core" / "bundled" / name)


def choices(folder: str) -> list[str]:
    """Names a loader offers: model files of a ComfyUI folder, and its sub-folders in the Hugging Face layout."""
    return sorted({*folder_paths.get_filename_list(folder), *_model_folders(folder)})


def find(folder: str, name: str) -> str:
    """Full path of a name from ``choices``. Raises FileNotFoundError that says where to put what."""
    name = os.path.relpath(os.path.join("/", name), "/")  # as ComfyUI does: no path leads out of the folder
    path = folder_paths.get_full_path(folder, name)
    candidates = [path] if path else []
    candidates += [os.path.join(root, name) for root in folder_paths.get_folder_paths(folder)]
    found = next((candidate for candidate in candidates if os.path.exists(candidate)), None)
    if found is None:
        where = " or ".join(folder_paths.get_folder_paths(folder))
        published = next((file for file in MODEL_FILES if file.folder == folder), None)
        source = f" It is published at {published.page} (for example {published.what})." if published else ""
        raise FileNotFoundError(f"There is no {name!r} in {where}. Put it there and refresh the browser page (R).{source}")
    return found


def whole(path: str) -> str:
    """The folder of a file that is one of several it holds, "model-00001-of-00002.safetensors"; any other path as it is."""
    return os.path.dirname(path) if re.search(r"-\d{5}-of-\d{5}\.", os.path.basename(path)) else path


def find_first(file: WeightFile) -> str:
    """Path of a published file under the first of its usual names. Raises FileNotFoundError naming it and its page."""
    roots = folder_paths.get_folder_paths(file.folder)
    for name in file.names:
        for root in roots:
            if os.path.exists(os.path.join(root, name)):
                return os.path.join(root, name)
    raise FileNotFoundError(
        f"{file.title} needs its weights: get {file.what} from {file.page} and put it into {roots[0]}, or choose a file by name."
    )


def _model_folders(folder: str) -> Iterator[str]:
    """Folders in the Hugging Face layout: with a configuration, or with an index of shards."""
    for root in folder_paths.get_folder_paths(folder):
        for place, _, files in os.walk(root, followlinks=True):  # as ComfyUI lists files: folders may be links
            if any(name == "config.json" or name.endswith(".index.json") for name in files):
                yield Path(place).relative_to(root).as_posix()


def saved_states() -> list[str]:
    """Names of the states in the input and output folders, as ComfyUI writes such names."""
    inputs, outputs = _states_in(folder_paths.get_input_directory()), _states_in(folder_paths.get_output_directory())
    return [*(f"{name} [output]" for name in outputs), *inputs]


def saved_state(name: str) -> str:
    """Path of a saved state by its name, or of the newest one for an empty name.

    Raises FileNotFoundError if there is none, ValueError for a path outside ComfyUI's input, output and temp folders.
    """
    if not name:
        root = folder_paths.get_output_directory()
        found = [os.path.join(root, name) for name in _states_in(root)]
        if not found:
            raise FileNotFoundError(f"There is no saved state in {root}. Run Save State first.")
        return max(found, key=os.path.getmtime)
    path = os.path.realpath(name if os.path.isabs(name) else folder_paths.get_annotated_filepath(name))
    folders = folder_paths.get_input_directory(), folder_paths.get_output_directory(), folder_paths.get_temp_directory()
    if not any(Path(path).is_relative_to(os.path.realpath(folder)) for folder in folders):
        raise ValueError(f"{path} lies outside ComfyUI's input and output folders; move the state there.")
    if not os.path.exists(path):
        raise FileNotFoundError(f"There is no saved state at {path}. Choose another, or run Save State first.")
    return path


def _states_in(root: str) -> list[str]:
    return sorted(path.relative_to(root).as_posix() for path in Path(root).glob(f"**/*{STATE_SUFFIX}"))


def fresh_output_path(prefix: str, suffix: str) -> str:
    """A path in the output folder that is not taken: the prefix (sub-folders allowed), a running number, the suffix.

    The number ends in an underscore, where ComfyUI before 0.21 stops reading it; without one it would always say 1.
    """
    folder, name, number, _, _ = folder_paths.get_save_image_path(prefix, folder_paths.get_output_directory())
    while os.path.exists(path := os.path.join(folder, f"{name}_{number:05}_{suffix}")):
        number += 1
    return path


def temp_pictures(pictures: Sequence[Image.Image]) -> list[dict]:
    """Pictures written into the temp folder, as the page asks for them."""
    files = [temp_picture(uuid.uuid4().hex[:16]) for _ in pictures]
    for file, picture in zip(files, pictures, strict=True):
        write_temp_picture(file, picture)
    return files


def temp_picture(name: str) -> dict:
    """A picture of that name in the temp folder, there or not, as the page asks for it."""
    return {"filename": f"ttsvar_{name}.png", "subfolder": "", "type": "temp"}


def write_temp_picture(file: Mapping, picture: Image.Image) -> None:
    """Write a `temp_picture`, whole or not at all: under its name it is taken for written from then on.

    Not by `atomic`, which waits for the disk: that is for what should outlast a power cut.
    """
    path = path_of(file)
    os.makedirs(os.path.dirname(path), exist_ok=True)
    picture.save(f"{path}.part", "PNG", compress_level=1)
    os.replace(f"{path}.part", path)


def is_there(picture: Mapping) -> bool:
    """Whether a picture of ``temp_pictures`` is still on the disk."""
    return os.path.exists(path_of(picture))


def path_of(picture: Mapping) -> str:
    """Where a picture of ``temp_pictures`` lies."""
    return os.path.join(folder_paths.get_temp_directory(), picture["filename"])
