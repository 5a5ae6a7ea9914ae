"""Contract tests for a reward or extractor of your own: subclass one in a file that pytest collects, and say what to test.

    from ttsvar_core.testing import RewardTests

    class TestMyReward(RewardTests):
        def reward(self):
            return MyReward()

Every failure says in words what the search relies on. Nothing here imports pytest.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

SIZES = (64, 64), (48, 80), (17, 31)
"""Height and width of the pictures shown: square, wide, and odd, as unfinished samples may be."""
LONG = "a red circle, " * 200
"""Longer than any text tower reads."""


def pictures(count: int, height: int = 48, width: int = 40, seed: int = 0) -> Tensor:
    """(B, H, W, 3) pictures of coarse coloured blocks in [0, 1], all different."""
    coarse = torch.rand(count, 3, 6, 5, generator=torch.Generator().manual_seed(seed))
    return torch.nn.functional.interpolate(coarse, size=(height, width), mode="nearest").permute(0, 2, 3, 1).contiguous()


class _Contract:
    """What rewards and extractors have in common. compares: whether a value is relative to its batch, by design.
    tolerance: by which equal values may differ, as a share of the largest."""

    compares = False
    tolerance = 1e-5

    def _subject(self) -> Any:
        raise NotImplementedError

    def _values(self, subject: Any, x: Tensor) -> Tensor:
        raise NotImplementedError

    def _inputs(self, count: int, height: int = 48, width: int = 40) -> Tensor:
        return pictures(count, height, width)

    def test_one_finite_float32_row_per_sample(self) -> None:
        """Shape, dtype, finite, and no gradients kept."""
        for count in (1, 3):
            values = self._values(self._subject(), self._inputs(count))
            _require(isinstance(values, Tensor), f"return a tensor, not a {type(values).__name__}")
            _require(len(values) == count and values.ndim == self._rank, f"{count} samples gave {tuple(values.shape)}")
            _require(values.dtype == torch.float32, f"return float32, not {values.dtype}: coarser numbers tie")
            _require(bool(values.isfinite().all()), f"NaN or infinity for ordinary pictures: {values}")
            _require(not values.requires_grad, "compute under torch.no_grad(): a graph keeps every activation in memory")

    def test_the_input_is_not_changed(self) -> None:
        """The same tensor goes to others."""
        x = self._inputs(3)
        before = x.clone()
        self._values(self._subject(), x)
        _require(torch.equal(x, before), "the tensor given was written to; it belongs to the search")

    def test_the_same_input_gives_the_same_values(self) -> None:
        """A search can be repeated."""
        subject, x = self._subject(), self._inputs(3)
        first, second = self._values(subject, x), self._values(subject, x)
        _require(torch.equal(first, second), "two calls gave different values: draw no random numbers, keep no state")

    def test_a_sample_does_not_depend_on_its_batch(self) -> None:
        """Alone, in a batch, and in another order."""
        if self.compares:
            return
        subject, x = self._subject(), self._inputs(5)
        together = self._values(subject, x)
        alone = torch.cat([self._values(subject, x[row : row + 1]) for row in range(5)])
        turned = self._values(subject, x.flip(0)).flip(0)
        for other, how in ((alone, "alone"), (turned, "in another order")):
            self._near(together, other, f"a sample {how} has another value than in its batch")
        _require(len(self._values(subject, x[[3, 3, 3]]).unique(dim=0)) == 1, "equal samples of one batch must tie exactly")

    def test_every_size_is_taken(self) -> None:
        """Unfinished samples are smaller than finished ones."""
        for height, width in SIZES:
            values = self._values(self._subject(), self._inputs(2, height, width))
            _require(len(values) == 2 and bool(values.isfinite().all()), f"no finite values for {height} x {width}: {values}")

    def test_what_is_no_batch_is_refused_in_words(self) -> None:
        """An error that tells the shape that came."""
        x = self._inputs(2)[0]
        said = _refusal(lambda: self._values(self._subject(), x))
        _require(str(tuple(x.shape)) in (said or ""), f"for shape {tuple(x.shape)} raise a ValueError that names it, not: {said}")

    def test_every_device_gives_the_same(self) -> None:
        """The processor always, a graphics card where there is one; pictures may lie elsewhere than networks."""
        subject, x = self._subject(), self._inputs(2)
        usual = self._values(subject, x).cpu()
        for device in ("cpu", *(["cuda"] if torch.cuda.is_available() else [])):
            moved = subject.to(device) if hasattr(subject, "to") else subject
            for place in {"cpu", device}:
                self._near(usual, self._values(moved, x.to(place)).cpu(), f"on {device} with pictures on {place}", 1e-3)
            layers = [layer for model in getattr(moved, "models", ()) for layer in model.modules()]
            left = [type(layer).__name__ for layer in layers if layer.training and not list(layer.children())]
            _require(not left, f"networks in `models` must be in eval mode; these layers are not: {left[:3]}")
        if hasattr(subject, "to"):
            subject.to("cpu")

    def _near(self, given: Tensor, other: Tensor, what: str, least: float = 0.0) -> None:
        bound = max(self.tolerance, least) * max(1.0, float(given.abs().max()))
        apart = float((given - other).abs().max())
        _require(apart <= bound, f"{what}: they differ by {apart:.3g}, allowed {bound:.3g}")


class RewardTests(_Contract):
    """Tests of a reward; give it as `reward`. prompt: one it can judge. in_range: whether the pictures shown must score near
    the range it states; not so for random weights."""

    prompt = "a photo of a red circle"
    in_range = True
    _rank = 1

    def reward(self) -> Any:
        """The reward to test, new or the same at every call."""
        raise NotImplementedError("say what to test: def reward(self): return MyReward()")

    def _subject(self) -> Any:
        return self.reward()

    def _values(self, subject: Any, x: Tensor) -> Tensor:
        return subject.score(x, self.prompt)

    def test_it_has_a_name_and_a_range(self) -> None:
        """lambda is judged by the range."""
        reward = self.reward()
        _require(isinstance(reward.name, str) and bool(reward.name), "`name` must be a text that is not empty")
        low, high = reward.range
        _require(float("-inf") < low < high < float("inf"), f"`range` must be two finite numbers, low first: {reward.range}")
        if self.in_range:
            scores, span = self._values(reward, self._inputs(8)), high - low
            inside = bool(((scores >= low - span) & (scores <= high + span)).all())
            _require(inside, f"scores {scores.tolist()} lie far outside the range {reward.range}: lambda would be misjudged")

    def test_any_prompt_is_scored_or_refused_in_words(self) -> None:
        """Empty, long, and in other letters; `check_prompt` refuses before anything is sampled what `score` cannot judge."""
        reward, images = self.reward(), self._inputs(2)
        for prompt in ("", LONG, "ein Kätzchen 🐈 <image>"):
            refused = _refusal(lambda prompt=prompt: getattr(reward, "check_prompt", lambda _: None)(prompt))
            if refused is None:
                scores = reward.score(images, prompt)
                _require(scores.shape == (2,) and bool(scores.isfinite().all()), f"prompt {prompt[:20]!r} gave {scores}")
            else:
                _require(len(refused.split()) > 3, f"`check_prompt` refuses {prompt[:20]!r} without saying why: {refused!r}")


class ExtractorTests(_Contract):
    """Tests of a feature extractor; give it as `extractor`. channels: of accumulated features, where it looks at them."""

    channels = 8
    _rank = 2

    def extractor(self) -> Any:
        """The extractor to test, new or the same at every call."""
        raise NotImplementedError("say what to test: def extractor(self): return MyExtractor()")

    def _subject(self) -> Any:
        return self.extractor()

    def _values(self, subject: Any, x: Tensor) -> Tensor:
        return subject.describe(x)

    def _inputs(self, count: int, height: int = 48, width: int = 40) -> Tensor:
        images = pictures(count, height, width)
        if self.extractor().looks_at == "images":
            return images
        return images.permute(0, 3, 1, 2).repeat(1, self.channels, 1, 1)[:, : self.channels] - 0.5

    def test_it_has_a_name_and_says_what_it_looks_at(self) -> None:
        """The search decodes only for what looks at images."""
        extractor = self.extractor()
        _require(isinstance(extractor.name, str) and bool(extractor.name), "`name` must be a text that is not empty")
        _require(extractor.looks_at in ("images", "features"), f"`looks_at` is images or features, not {extractor.looks_at!r}")

    def test_different_samples_get_different_vectors(self) -> None:
        """Otherwise there is nothing to cluster by."""
        vectors = self._values(self.extractor(), self._inputs(4))
        _require(len(vectors.unique(dim=0)) == 4, "four different samples gave equal vectors")


def _require(holds: bool, words: str) -> None:
    if not holds:
        raise AssertionError(words)


def _refusal(call: Callable[[], Any]) -> str | None:
    """What a ValueError says; None where nothing is raised. Other errors are told as such."""
    try:
        call()
    except ValueError as error:
        return str(error)
    except Exception as error:
        raise AssertionError(f"raise ValueError with a sentence, not {type(error).__name__}: {error}") from error
    return None
