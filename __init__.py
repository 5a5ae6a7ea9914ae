"""ComfyUI node pack: TTS-VAR test-time search on the Infinity image model.

ComfyUI calls ``comfy_entrypoint``; nothing here is imported before that, so the package also imports without ComfyUI.
"""

WEB_DIRECTORY = "./web"  # help pages: web/docs/<node id>.md


async def comfy_entrypoint():
    """The extension ComfyUI asks for; tells it which folders hold our models and which nodes there are."""
    from .nodes import extension

    return extension()
