import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from jobs.boxes.options import ProposeBoxesConfig
from jobs.propose_boxes import propose_boxes
from rsir_core.boxes.data import read_boxes
from rsir_core.errors import ConfigError, LabelError, WeightsError
from rsir_core.models.bundle import load_bundle, write_classifier
from rsir_core.models.cam import ActivationMaps, boxes_of
from rsir_core.models.classifier import Classifier, build_classifier, settings_for
from tests.support.models import CLASSES, write_bundle

IMAGES = [np.random.default_rng(i).integers(0, 256, (64, 96, 3), np.uint8) for i in range(5)]


@pytest.mark.parametrize("backbone", ["efficientnet_lite0", "resnet18", "mobilenet_v2"])
def test_the_mean_of_a_map_is_the_classs_logit(backbone: str) -> None:
    torch.manual_seed(0)
    settings, model = settings_for(backbone, CLASSES, 96), build_classifier(backbone, len(CLASSES))
    state = model.state_dict()
    maps, classifier = ActivationMaps(settings, state), Classifier(settings, state)
    logits = classifier.embed(IMAGES)[1]
    for place in range(len(CLASSES)):
        found = maps.maps(IMAGES, [place] * len(IMAGES))
        assert found.shape == (len(IMAGES), 3, 3)
        expected = logits[:, place] - state["head.bias"][place]
        assert np.allclose(found.mean(axis=(1, 2)), expected, atol=1e-3)
    mixed = maps.maps(IMAGES, [0, 1, 2, 1, 0])
    assert np.allclose(mixed[2], maps.maps(IMAGES[2:3], [2])[0], atol=1e-4)


@pytest.mark.slow
def test_a_backbone_that_does_not_end_in_a_mean_has_no_maps() -> None:
    state = build_classifier("alexnet", len(CLASSES)).state_dict()
    with pytest.raises(WeightsError, match="alexnet"):
        ActivationMaps(settings_for("alexnet", CLASSES, 224), state)


PLACES = st.tuples(st.integers(0, 11), st.integers(0, 11))


@given(places=st.lists(PLACES, min_size=1, max_size=3, unique=True), second=st.floats(0.5, 1), scale=st.floats(0.1, 50))
def test_boxes_lie_around_what_is_active(places: list[tuple[int, int]], second: float, scale: float) -> None:
    """At the map's own size: single places, the first of them the strongest."""
    active = np.zeros((12, 12), np.float32)
    for i, (y, x) in enumerate(places):
        active[y, x] = scale * (second if i else 1)
    boxes = boxes_of(active - scale / 10, 12, 12, threshold=0.4, peak=0.7)
    inside = {(y, x) for x0, y0, x1, y1 in boxes for y in range(int(y0), int(y1)) for x in range(int(x0), int(x1))}
    strong = {places[0]} | ({*places} if (second - 0.1) / 0.9 >= 0.7 else set())
    assert strong <= inside
    assert all(0 <= box.x0 < box.x1 <= 12 and 0 <= box.y0 < box.y1 <= 12 for box in boxes)
    apart = all(max(abs(a - c), abs(b - d)) > 1 for a, b in places for c, d in places if (a, b) != (c, d))
    if apart:
        assert inside == strong and len(boxes) == len(strong)


def test_a_larger_image_has_larger_boxes_and_none_where_nothing_is_active() -> None:
    active = np.zeros((8, 8), np.float32)
    active[2:4, 5:7] = 1
    (box,) = boxes_of(active, 160, 80, 0.5, 0.7)
    assert box == pytest.approx((50, 40, 70, 80), abs=6)
    assert boxes_of(-active, 160, 80, 0.5, 0.7) == []


def bright(x: int, y: int) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    pixels = np.full((64, 64, 3), 10, np.uint8)
    pixels[y : y + 16, x : x + 16] = 250
    return pixels


def write_archive(folder: Path, per_class: int = 6) -> tuple[str, str]:
    """Bright squares, and a bundle whose classifier answers to brightness; URIs of both."""
    lines = ["uri,label,split"]
    for name in CLASSES:
        (folder / "archive" / name).mkdir(parents=True)
        for i in range(per_class):
            file = folder / "archive" / name / f"{i}.png"
            Image.fromarray(bright(8 * i, 40 - 8 * i)).save(file)
            lines.append(f"{file},{name},{'test' if i == 0 else 'train'}")
    torch.manual_seed(0)
    model = build_classifier("resnet18", len(CLASSES))
    with torch.no_grad():
        for layer in model.backbone.modules():
            if isinstance(layer, torch.nn.Conv2d):  # the mean of what is around, so that brightness comes through
                layer.weight.fill_(1 / layer.weight[0].numel())
        model.head.weight.fill_(1.0)
    settings = settings_for("resnet18", CLASSES, 128)
    write_classifier(str(folder / "models"), settings, model.state_dict(), 0.9, "\n".join(lines) + "\n")
    return str(folder / "archive"), str(folder / "models")


@pytest.mark.ray
@pytest.mark.usefixtures("cluster")
def test_training_images_get_boxes_where_their_class_is_seen(tmp_path: Path) -> None:
    archive, models = write_archive(tmp_path)
    (tmp_path / "archive" / CLASSES[0] / "5.png").write_bytes(b"no image")
    config = ProposeBoxesConfig(archive=archive, models=models, out=str(tmp_path / "out"), threshold=0.8, batch_size=4)
    summary = propose_boxes(config)
    assert json.loads(json.dumps(summary)) == summary
    assert (summary["train_images"], summary["val_images"], summary["failed"]) == (13, 1, 1)
    data = read_boxes(summary["data"])
    assert data.names == CLASSES
    names = {"/".join(Path(image.file).parts[-2:]) for image in (*data.train, *data.val)}
    assert names == {f"{c}/{i}.png" for c in CLASSES for i in range(1, 6)} - {f"{CLASSES[0]}/5.png"}
    for image in (*data.train, *data.val):
        folder, i = Path(image.file).parent.name, int(Path(image.file).stem)
        assert {int(c) for (c,) in image.classes} == {CLASSES.index(folder)}
        x, y, w, h = image.boxes[0] * 64
        assert abs(x - (8 * i + 8)) < 8 and abs(y - (48 - 8 * i)) < 8 and w < 40 and h < 40
    with Image.open(tmp_path / "out" / "proposals.jpg") as sheet:
        assert sheet.size == (960, 480)


@pytest.mark.slow
def test_what_cannot_be_proposed(tmp_path: Path) -> None:
    archive, models = write_archive(tmp_path, per_class=2)
    with pytest.raises(ConfigError, match="--threshold is 1"):
        propose_boxes(ProposeBoxesConfig(archive=archive, models=models, out=str(tmp_path / "out"), threshold=1.0))
    (tmp_path / "there").mkdir()
    with pytest.raises(ConfigError, match="there exists already"):  # before anything is proposed: no Ray runs here
        propose_boxes(ProposeBoxesConfig(archive=archive, models=models, out=str(tmp_path / "there")))
    twin = tmp_path / "archive" / CLASSES[0]
    shutil.copy(twin / "1.png", twin / "1.jpg")
    with Path(models, "split.csv").open("a") as split:
        split.write(f"{twin}/1.jpg,{CLASSES[0]},train\n")
    with pytest.raises(LabelError, match=r"1\.(png|jpg) and .*1\.(png|jpg)"):
        propose_boxes(ProposeBoxesConfig(archive=archive, models=models, out=str(tmp_path / "out")))
    write_bundle(tmp_path / "other", detector=False)
    (tmp_path / "other" / "split.csv").write_text("uri,label,split\n/elsewhere/x.png,beach,train\n")
    with pytest.raises(LabelError, match=r"\b1 training images"):
        propose_boxes(ProposeBoxesConfig(archive=archive, models=str(tmp_path / "other"), out=str(tmp_path / "out")))
    assert load_bundle(models).detector is None
