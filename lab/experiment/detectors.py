"""Detectors from transformers for GenEval's verdict: any object detector or instance segmenter trained on COCO, and CLIP."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from .geneval import COLOURS, CONFIDENCE, Found

if TYPE_CHECKING:
    from PIL.Image import Image

# COCO labels as detectors spell them -> as GenEval's prompts do.
NAMES = {
    "mouse": "computer mouse", "keyboard": "computer keyboard", "remote": "tv remote", "motorbike": "motorcycle",
    "aeroplane": "airplane", "sofa": "couch", "pottedplant": "potted plant", "diningtable": "dining table", "tvmonitor": "tv",
}
TEMPLATES = ("a photo of a {colour} {name}", "a photo of a {colour}-colored {name}", "a photo of a {colour} object")
BACKGROUND = (0x99, 0x99, 0x99)  # what GenEval paints around a masked object before asking for its colour
_EXPECTED = "Give a transformers folder of an object detector or of a Mask2Former for instances, trained on COCO."


class TransformersDetector:
    """A detector and, for prompts with colours, a CLIP; see `load_detector`."""

    def __init__(self, model: Any, processor: Any, clip: Any = None, clip_processor: Any = None) -> None:
        self._model, self._processor = model, processor
        self._clip, self._clip_processor = clip, clip_processor
        self._colour_texts: dict[str, torch.Tensor] = {}

    @torch.inference_mode()
    def detect(self, image: Image) -> list[Found]:
        """Objects above GenEval's threshold."""
        inputs = self._processor(images=image, return_tensors="pt").to(self._model.device)
        outputs, size = self._model(**inputs), [(image.height, image.width)]
        if hasattr(outputs, "masks_queries_logits"):
            return self._from_masks(self._processor.post_process_instance_segmentation(
                outputs, threshold=CONFIDENCE, target_sizes=size, return_binary_maps=True
            )[0])
        boxes = self._processor.post_process_object_detection(outputs, threshold=CONFIDENCE, target_sizes=size)[0]
        rows = zip(boxes["labels"].tolist(), boxes["scores"].tolist(), boxes["boxes"].tolist(), strict=True)
        return [Found(self._name(label), score, tuple(box)) for label, score, box in rows]

    def _from_masks(self, segments: dict[str, Any]) -> list[Found]:
        found, infos = [], segments["segments_info"]
        for mask, info in zip(segments["segmentation"] if infos else (), infos, strict=True):
            mask = mask.bool().cpu().numpy()
            if mask.any():
                rows, columns = mask.any(axis=1).nonzero()[0], mask.any(axis=0).nonzero()[0]
                box = (float(columns[0]), float(rows[0]), float(columns[-1] + 1), float(rows[-1] + 1))
                found.append(Found(self._name(info["label_id"]), info["score"], box, mask))
        return found

    def _name(self, label: int) -> str:
        name = self._model.config.id2label[label]
        return NAMES.get(name, name)

    @torch.inference_mode()
    def colours(self, image: Image, objects: Sequence[Found]) -> list[str]:
        """The colour CLIP finds likeliest for each object, cut out of the image. Raises ValueError without a CLIP."""
        if self._clip is None:
            raise ValueError("a prompt asks for a colour, and colours need a CLIP; give its folder with --clip")
        if not objects:
            return []
        pixels = self._clip_processor(images=[_cut_out(image, one) for one in objects], return_tensors="pt")
        seen = _unit(self._clip.get_image_features(**pixels.to(self._clip.device)))
        texts = [self._texts(one.name) for one in objects]
        return [COLOURS[int((text @ vector).argmax())] for text, vector in zip(texts, seen, strict=True)]

    def _texts(self, name: str) -> torch.Tensor:
        """(colours, width) unit vectors, each the mean over the templates."""
        if name not in self._colour_texts:
            lines = [template.format(colour=colour, name=name) for colour in COLOURS for template in TEMPLATES]
            tokens = self._clip_processor(text=lines, return_tensors="pt", padding=True).to(self._clip.device)
            vectors = _unit(self._clip.get_text_features(**tokens))
            self._colour_texts[name] = _unit(vectors.unflatten(0, (len(COLOURS), len(TEMPLATES))).mean(dim=1))
        return self._colour_texts[name]


def load_detector(folder: str | Path, clip: str | Path | None = None, device: str = "cpu") -> TransformersDetector:
    """A detector from a transformers folder on this machine, and a CLIP from another. Nothing is downloaded.

    Raises ValueError for a folder that holds no detector.
    """
    from transformers import AutoImageProcessor, AutoModelForObjectDetection, AutoModelForUniversalSegmentation

    folder = Path(folder)
    try:
        names = json.loads((folder / "config.json").read_text(encoding="utf-8")).get("architectures") or [""]
        segments = "Segmentation" in names[0]
        loader = AutoModelForUniversalSegmentation if segments else AutoModelForObjectDetection
        model = loader.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        processor = AutoImageProcessor.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except (OSError, ValueError) as error:
        raise ValueError(f"{folder} holds no detector that can be read ({error}). {_EXPECTED}") from error
    parts = _load_clip(clip, device) if clip else (None, None)
    return TransformersDetector(model.to(device).eval(), processor, *parts)


def _load_clip(folder: str | Path, device: str) -> tuple[Any, Any]:
    from transformers import CLIPModel, CLIPProcessor

    try:
        model = CLIPModel.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        return model.to(device).eval(), CLIPProcessor.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except (OSError, ValueError) as error:
        raise ValueError(f"{folder} holds no CLIP that can be read ({error}). GenEval uses clip-vit-large-patch14.") from error


def _cut_out(image: Image, one: Found) -> Image:
    """The object's box; outside its mask, if it has one, plain grey."""
    from PIL import Image as images

    if one.mask is not None:
        mask = images.fromarray((one.mask * 255).astype("uint8"))
        image = images.composite(image, images.new("RGB", image.size, BACKGROUND), mask)
    left, top, right, bottom = one.box
    return image.crop((int(left), int(top), max(int(right), int(left) + 1), max(int(bottom), int(top) + 1)))


def _unit(vectors: Any) -> torch.Tensor:
    vectors = vectors if isinstance(vectors, torch.Tensor) else vectors.pooler_output
    return vectors / vectors.norm(dim=-1, keepdim=True)
