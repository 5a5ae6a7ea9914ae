"""ComfyUI nodes: schemas and widgets over the functions of ``ttsvar_core``. One file per family, the host behind ``host``."""

from functools import wraps


def extension():
    """The ComfyUI extension with all nodes of the pack."""
    from comfy_api.latest import ComfyExtension

    from . import batch, choose, files, generate, inspect, language, load, plan, rewards, sample, score, select
    from .host import folders

    families = (load, rewards, language, sample, score, select, choose, inspect, files, plan, generate, batch)
    nodes = [_with_plain_errors(node) for family in families for node in family.NODES]

    class TTSVARExtension(ComfyExtension):
        async def on_load(self) -> None:
            folders.register_folders()

        async def get_node_list(self) -> list:
            return nodes

    return TTSVARExtension()


def _with_plain_errors(node):
    """The node, with errors of our own raised as the built-in ones they derive from: ComfyUI titles an error with the path of its
    class, and a user cannot do anything with ours."""
    execute = node.execute.__func__

    @wraps(execute)
    def plainly(cls, *args, **inputs):
        try:
            return execute(cls, *args, **inputs)
        except Exception as error:
            kind = next(base for base in type(error).__mro__ if base.__module__ == "builtins")
            if kind is type(error) or not type(error).__module__.startswith(__package__.rpartition(".")[0]):
                raise
            raise kind(str(error)) from error

    node.execute = classmethod(plainly)
    return node
