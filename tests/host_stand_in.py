"""A stand-in for the parts of ComfyUI our nodes import, with the keywords of the oldest host we support (0.14).

``load_pack()`` imports the pack the way ComfyUI does: from its folder, under a name that is no Python name, with the host's
modules in ``sys.modules``.
"""

from __future__ import annotations

import importlib.util
import sys
import types
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

ROOT = Path(__file__).resolve().parent.parent
PACK = "/custom_nodes/ttsvar"


def _input(kind: str, *extra: str):
    """An input class that takes the common keywords, those named, and no others."""
    common = {"display_name", "optional", "tooltip", "lazy", "extra_dict", "raw_link", "advanced"}

    class Input:
        def __init__(self, id: str, **options: Any) -> None:
            unknown = set(options) - common - set(extra)
            if unknown:
                raise TypeError(f"{kind} input {id}: unknown keywords {sorted(unknown)}")
            self.id, self.io_type, self.options = id, kind, options

        def __getattr__(self, name: str) -> Any:
            if name.startswith("__"):
                raise AttributeError(name)
            return self.options.get(name)

    return Input


class Output:
    """An output of any type."""

    io_type = ""

    def __init__(self, id: str | None = None, display_name: str | None = None, tooltip: str | None = None, is_output_list=False):
        self.id, self.display_name, self.tooltip, self.is_output_list = id, display_name or id, tooltip, is_output_list


def _type(kind: str, *extra: str):
    output = type("Output", (Output,), {"io_type": kind})
    return type(kind, (), {"io_type": kind, "Input": _input(kind, *extra), "Output": output})


@dataclass
class Schema:
    """What a node says about itself."""

    node_id: str
    display_name: str | None = None
    category: str = "sd"
    inputs: list = field(default_factory=list)
    outputs: list = field(default_factory=list)
    hidden: list = field(default_factory=list)
    description: str = ""
    search_aliases: list[str] = field(default_factory=list)
    is_input_list: bool = False
    is_output_node: bool = False


class ExecutionBlocker:
    """Stops whatever takes it, without an error if it says nothing."""

    def __init__(self, message: str | None) -> None:
        self.message = message


class NodeOutput:
    """What a node returns."""

    def __init__(self, *args: Any, ui: Any = None) -> None:
        self.args, self.ui = args, ui


class ComfyNode:
    """Base class of nodes."""

    hidden = None


class ComfyExtension:
    """Base class of extensions."""

    async def on_load(self) -> None:
        """Nothing by default."""


class PreviewImage:
    """Pictures shown on a node."""

    def __init__(self, image: Any, cls: Any = None) -> None:
        self.values = list(image)

    def as_dict(self) -> dict:
        return {"images": self.values, "animated": (False,)}


class Autogrow:
    """Inputs that appear as they are wired."""

    io_type = "COMFY_AUTOGROW_V3"
    Input = _input(io_type, "template")

    @dataclass
    class TemplateNames:
        """An input for each name."""

        input: Any
        names: list[str]
        min: int = 1


_widget = ("default", "socketless", "force_input")
_number = (*_widget, "min", "max", "step", "display_mode")
io = types.SimpleNamespace(
    Schema=Schema, NodeOutput=NodeOutput, ComfyNode=ComfyNode, Custom=_type,
    Int=_type("INT", *_number, "control_after_generate"), Float=_type("FLOAT", *_number, "round"),
    String=_type("STRING", *_widget, "multiline", "placeholder", "dynamic_prompts"),
    Boolean=_type("BOOLEAN", *_widget, "label_on", "label_off"),
    Combo=_type("COMBO", "options", "control_after_generate", "default", "socketless"),
    Image=_type("IMAGE"), Latent=_type("LATENT"), Clip=_type("CLIP"), AnyType=_type("*"),
    Autogrow=Autogrow, Hidden=types.SimpleNamespace(prompt="PROMPT"),
    NumberDisplay=types.SimpleNamespace(number="number", slider="slider"),
)


class Interrupted(BaseException):
    """What ComfyUI raises when the user pressed stop."""


class Host:
    """What the stand-in saw and what it shall do: interrupt after so many checks, folders, pictures shown."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.stop_after = folder, None
        self.checks, self.loaded, self.steps, self.said = 0, [], [], []
        self.settings = types.SimpleNamespace(preview_method="auto")

    def check(self) -> None:
        """Count a look at the stop button."""
        self.checks += 1
        if self.stop_after is not None and self.checks > self.stop_after:
            raise Interrupted


class _Patcher:
    def __init__(self, model, load_device, offload_device) -> None:
        model.device = offload_device  # the real one notes the device on the module, too
        self.model, self.load_device, self.offload_device = model, load_device, offload_device


def _folder_paths(host: Host) -> types.ModuleType:
    module = types.ModuleType("folder_paths")
    module.models_dir = str(host.folder / "models")
    module.folder_names_and_paths = {
        name: ([str(host.folder / "models" / name)], {".safetensors", ".pth"}) for name in ("vae", "text_encoders")
    }

    def add(name: str, path: str) -> None:
        module.folder_names_and_paths.setdefault(name, ([], set()))[0].append(path)

    def files(name: str) -> list[str]:
        roots, suffixes = module.folder_names_and_paths[name]
        found = [(path, Path(root)) for root in roots for path in Path(root).glob("**/*") if path.suffix in suffixes]
        return sorted(path.relative_to(root).as_posix() for path, root in found)

    def full_path(name: str, file: str) -> str | None:
        places = [Path(root) / file for root in module.folder_names_and_paths[name][0]]
        return next((str(place) for place in places if place.is_file()), None)

    def save_path(prefix: str, root: str):
        place = Path(root) / prefix
        place.parent.mkdir(parents=True, exist_ok=True)
        taken = [path.name[len(place.name) + 1 :].split("_")[0] for path in place.parent.glob(place.name + "_*")]
        number = max((int(one) for one in taken if one.isdigit()), default=0) + 1  # as hosts before 0.21 read it
        return str(place.parent), place.name, number, "", prefix

    def annotated(name: str) -> str:
        base, _, kind = name.partition(" [")
        return str(host.folder / (kind.rstrip("]") or "input") / base)

    module.add_model_folder_path, module.get_filename_list, module.get_full_path = add, files, full_path
    module.get_folder_paths = lambda name: list(module.folder_names_and_paths[name][0])
    module.get_save_image_path, module.get_annotated_filepath = save_path, annotated
    for name in ("input", "output", "temp"):
        (host.folder / name).mkdir(parents=True, exist_ok=True)
        setattr(module, f"get_{name}_directory", lambda name=name: str(host.folder / name))
    return module


def _modules(host: Host) -> dict[str, types.ModuleType]:
    cpu = torch.device("cpu")
    management = types.ModuleType("comfy.model_management")
    for name in ("get_torch_device", "unet_offload_device", "vae_offload_device", "text_encoder_device",
                 "text_encoder_offload_device", "intermediate_device"):
        setattr(management, name, lambda: cpu)
    management.should_use_bf16 = management.should_use_fp16 = lambda device=None: False
    management.is_device_cpu = lambda device: True
    management.throw_exception_if_processing_interrupted = host.check
    management.load_models_gpu = lambda models, memory_required=0, force_full_load=False: host.loaded.extend(models)
    patcher, ops, utils = (types.ModuleType(f"comfy.{name}") for name in ("model_patcher", "ops", "utils"))
    patcher.ModelPatcher, ops.manual_cast = _Patcher, torch.nn

    class ProgressBar:
        def __init__(self, total: int) -> None:
            self.total = total

        def update_absolute(self, value, total=None, preview=None) -> None:
            host.steps.append((value, total, preview))

    utils.ProgressBar = ProgressBar
    cli = types.ModuleType("comfy.cli_args")
    cli.LatentPreviewMethod = types.SimpleNamespace(NoPreviews="none", Auto="auto")
    cli.args = host.settings
    comfy, api, latest = types.ModuleType("comfy"), types.ModuleType("comfy_api"), types.ModuleType("comfy_api.latest")
    comfy.model_management, comfy.model_patcher, comfy.ops, comfy.utils = management, patcher, ops, utils
    comfy.cli_args = cli
    execution, utilities, graph = (types.ModuleType(f"comfy_execution{name}") for name in ("", ".utils", ".graph_utils"))
    utilities.get_executing_context = lambda: types.SimpleNamespace(node_id="1")
    graph.ExecutionBlocker = ExecutionBlocker
    server = types.ModuleType("server")
    speaking = types.SimpleNamespace(client_id="page", send_progress_text=lambda text, node_id, sid: host.said.append(text))
    speaking.send_sync = lambda name, data, sid: None
    server.PromptServer = types.SimpleNamespace(instance=speaking)
    latest.io, latest.ui, latest.ComfyExtension = io, types.SimpleNamespace(PreviewImage=PreviewImage), ComfyExtension
    named = {
        "comfy": comfy, "comfy.cli_args": cli, "comfy.model_management": management, "comfy.model_patcher": patcher,
        "comfy.ops": ops, "comfy.utils": utils, "comfy_api": api, "comfy_api.latest": latest, "folder_paths": _folder_paths(host),
        "comfy_execution": execution, "comfy_execution.utils": utilities, "comfy_execution.graph_utils": graph, "server": server,
    }
    return named


@dataclass
class Pack:
    """The loaded pack: its module, its node classes by id, and the host it was loaded in."""

    module: types.ModuleType
    nodes: dict[str, type]
    host: Host

    def imported(self, name: str) -> types.ModuleType:
        """A module as the pack imported it."""
        return importlib.import_module(f"{PACK}.{name}")

    def core(self, name: str) -> types.ModuleType:
        """A module of the core as the pack imported it."""
        return self.imported(f"ttsvar_core.{name}")

    def run(self, node_id: str, **inputs: Any) -> tuple:
        """Execute a node with its widgets at their defaults unless given; its outputs."""
        node = self.nodes[node_id]
        defaults = {one.id: one.default for one in node.define_schema().inputs if "default" in one.options}
        return node.execute(**{**defaults, **inputs}).args


@contextmanager
def load_pack(folder: Path):
    """The pack in a stand-in host whose folders lie in ``folder``."""
    import asyncio

    host = Host(folder)
    stand_in = _modules(host)
    before = {name: sys.modules.get(name) for name in stand_in}
    sys.modules.update(stand_in)
    try:
        spec = importlib.util.spec_from_file_location(PACK, ROOT / "__init__.py", submodule_search_locations=[str(ROOT)])
        module = importlib.util.module_from_spec(spec)
        sys.modules[PACK] = module
        spec.loader.exec_module(module)
        extension = asyncio.run(module.comfy_entrypoint())
        asyncio.run(extension.on_load())
        classes = asyncio.run(extension.get_node_list())
        yield Pack(module, {node.define_schema().node_id: node for node in classes}, host)
    finally:
        for name in [name for name in sys.modules if name == PACK or name.startswith(PACK + ".")]:
            del sys.modules[name]
        for name, module in before.items():
            sys.modules.pop(name, None) if module is None else sys.modules.__setitem__(name, module)
