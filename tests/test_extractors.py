"""Feature extractors: reducers against their definitions, and DINOv2 from images to vectors."""

import sys

import numpy as np
import pytest
import reward_files
import torch
from safetensors.torch import save_file

from ttsvar_core.extractors.base import FeatureExtractor
from ttsvar_core.extractors.dinov2 import DinoExtractor, load_dinov2
from ttsvar_core.extractors.inception import load_inception
from ttsvar_core.extractors.reduce import REDUCERS, pca, pca_shared, pool


@pytest.fixture(scope="module")
def dino(tmp_path_factory):
    file = tmp_path_factory.mktemp("models") / "dinov2_vits14_reg4_pretrain.pth"
    torch.save(reward_files.dinov2(), file)
    return {name: load_dinov2(file, name) for name in REDUCERS}


def tokens(samples=4, patches=30, channels=12, seed=0):
    """Random tokens with one strong direction, so that the first component is well defined."""
    generator = torch.Generator().manual_seed(seed)
    strong = torch.randn(samples, patches, 1, generator=generator).exp() * torch.randn(samples, 1, channels, generator=generator)
    return strong * 3 + torch.randn(samples, patches, channels, generator=generator) + 5


def test_pca_is_the_projection_on_each_images_first_component():
    x = tokens()
    for image, ours in zip(x, pca(x), strict=True):
        centred = (image - image.mean(dim=0)).double()
        wanted = (centred @ torch.linalg.svd(centred).Vh[0]).float()
        assert min((ours - wanted).abs().max(), (ours + wanted).abs().max()) <= 1e-4


def test_pca_shared_is_one_component_for_the_batch():
    from sklearn.decomposition import PCA

    x = tokens()
    wanted = torch.from_numpy(PCA(1, svd_solver="full").fit_transform(x.reshape(-1, 12).double().numpy())).float().view(4, 30)
    ours = pca_shared(x)
    assert min((ours - wanted).abs().max(), (ours + wanted).abs().max()) <= 1e-4


def test_pool_is_the_mean_patch():
    assert torch.allclose(pool(tokens()), tokens().mean(dim=1))


@pytest.mark.parametrize("reduce", [pca, pca_shared])
def test_sign_does_not_depend_on_how_the_axis_was_found(reduce):
    """Turning or mirroring the feature space turns the axis with it and leaves the layout map as it was."""
    x = tokens()
    rotation = torch.linalg.qr(torch.randn(12, 12, generator=torch.Generator().manual_seed(5)))[0]
    for turned in (x @ rotation, -x, x @ torch.diag(torch.tensor([-1.0] + [1.0] * 11))):
        assert (reduce(turned) - reduce(x)).abs().max() <= 1e-3


def test_same_layout_in_other_colours_stays_close():
    subject = torch.zeros(30)
    subject[4:10] = 1
    generator = torch.Generator().manual_seed(2)
    images = torch.stack(
        [subject[:, None] * torch.randn(12, generator=generator) * 8 + torch.randn(12, generator=generator) for _ in range(6)]
    )
    maps = pca(images + 0.01 * torch.randn(images.shape, generator=generator))
    assert (maps[:, 4:10] > 0).all() and (maps[:, 10:] < 0).all()


@pytest.mark.parametrize("name", list(REDUCERS))
def test_flat_tokens_give_finite_vectors(name):
    vectors = REDUCERS[name](torch.ones(2, 9, 5))
    assert vectors.isfinite().all() and vectors.dtype == torch.float32


def test_vectors_of_images(dino):
    images = torch.rand(3, 40, 56, 3)
    for name, width in (("PCA", 256), ("PCA-shared", 256), ("Pool", 64)):
        extractor = dino[name]
        assert isinstance(extractor, FeatureExtractor) and extractor.looks_at == "images" and extractor.name == f"DINOv2 {name}"
        vectors = extractor.describe(images)
        assert vectors.shape == (3, width) and vectors.dtype == torch.float32 and vectors.device.type == "cpu"
    assert len(repr(dino["PCA"])) < 80 and dino["PCA"].to("cpu") is dino["PCA"]


@pytest.mark.parametrize("name", ["PCA", "Pool"])
def test_a_vector_does_not_depend_on_its_batch(dino, name):
    images = torch.rand(5, 32, 32, 3)
    together = dino[name].describe(images)
    alone = torch.cat([dino[name].describe(image[None]) for image in images])
    assert (together - alone).abs().max() <= 1e-4 * together.abs().max()


def test_patches_lie_rows_first(dino):
    """A change in the picture's last rows moves the last tokens most: the map can be shown as a 16 x 16 picture."""
    images = torch.rand(1, 64, 64, 3).repeat(2, 1, 1, 1)
    images[1, 60:] = 0
    change = torch.diff(dino["PCA"].patch_tokens(images), dim=0).norm(dim=-1).view(16, 16)
    assert change[15].mean() > 3 * change[:8].mean()


def test_transform_of_the_paper(dino):
    preprocess = dino["PCA"].preprocess
    assert (preprocess.size, preprocess.fit, preprocess.filter) == (224, "stretch", "bilinear")
    assert isinstance(dino["PCA"], DinoExtractor)


def test_unknown_reducer_is_refused_before_the_file_is_read(tmp_path):
    with pytest.raises(ValueError, match="no reducer 'LDA'; expected one of PCA, PCA-shared, Pool"):
        load_dinov2(tmp_path / "gone.pth", "LDA")


def test_inception_without_torchvision_says_what_to_do(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "torchvision.models", None)
    with pytest.raises(ImportError, match=r"needs torchvision.*DINOv2"):
        load_inception(tmp_path / "x.pth")


def test_inception_pools_2048_features(tmp_path):
    try:
        from torchvision.models import inception_v3
    except (ImportError, RuntimeError):
        pytest.skip("torchvision does not work here")
    torch.save(inception_v3(weights=None, init_weights=False).state_dict(), tmp_path / "inception.pth")
    extractor = load_inception(tmp_path / "inception.pth")
    images = torch.rand(2, 64, 64, 3)
    vectors = extractor.describe(images)
    assert vectors.shape == (2, 2048) and np.isfinite(vectors.numpy()).all()
    assert torch.allclose(vectors[:1], extractor.describe(images[:1]), atol=1e-4)
    save_file({"a": torch.zeros(1)}, tmp_path / "wrong.safetensors")
    with pytest.raises(ValueError, match="not torchvision's InceptionV3"):
        load_inception(tmp_path / "wrong.safetensors")
