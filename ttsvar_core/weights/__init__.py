"""Model files: reading every published layout, checking it, and putting it into the modules."""

from ..image_model import ImageModel
from ..reading import UnusableFile
from .files import RawCheckpoint, Reader, read_checkpoint
from .load import load_bundled, load_model

__all__ = ["ImageModel", "RawCheckpoint", "Reader", "UnusableFile", "load_bundled", "load_model", "read_checkpoint"]
