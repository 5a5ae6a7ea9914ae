"""Test-time scaling for visual auto-regressive image generation (TTS-VAR) on the Infinity model.

The library behind the nodes: it knows nothing of ComfyUI and can be used from Python or from the command line
(``python -m ttsvar_core``). Start reading at ``search/run.py``.
"""

__version__ = "0.1.0"
