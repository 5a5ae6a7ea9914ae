"""ComfyUI nodes: schemas and widgets over the functions of ``ttsvar_core``. One file per family, the host behind ``host``."""


def extension():
    """The ComfyUI extension with all nodes of the pack."""
    from comfy_api.latest import ComfyExtension

    from . import files, generate, host, inspect, load, rewards, sample, score, select

    families = (load, rewards, sample, score, select, inspect, files, generate)

    class TTSVARExtension(ComfyExtension):
        async def on_load(self) -> None:
            host.register_folders()

        async def get_node_list(self) -> list:
            return [node for family in families for node in family.NODES]

    return TTSVARExtension()
