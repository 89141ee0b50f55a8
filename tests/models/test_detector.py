import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import safetensors.torch
import torch
from hypothesis import given
from hypothesis import strategies as st

from rsir_core.arrays import Pixels
from rsir_core.errors import WeightsError
from rsir_core.models.detector import (
    MODELS,
    Detector,
    build_detector,
    load_start_weights,
    offline_ultralytics,
    take_start_weights,
)
from rsir_core.models.letterbox import STRIDE, Letterbox, letterbox
from rsir_core.models.nms import MAX_CANDIDATES, MAX_IOU, MAX_OBJECTS, suppress
from rsir_core.models.regions import Box, DetectedObject
from rsir_core.models.settings import DetectorSettings
from tests.support.models import lively_detector

ROOT = Path(__file__).parents[2]
COCO = ROOT.parent / "shared" / "models" / "yolov5n_coco_backbone_neck.safetensors"
NAMES = ("tank", "ship", "court")
SIZES = [(96, 128), (128, 128), (50, 80), (128, 128), (96, 128), (7, 200), (31, 31)]
State = Mapping[str, torch.Tensor]


@pytest.fixture(scope="module")
def state() -> State:
    return lively_detector(len(NAMES))


@pytest.fixture(scope="module")
def ours(state: State) -> Detector:
    return detector(state)


@pytest.fixture(scope="module")
def reference(state: State) -> torch.nn.Module:
    """The network as it was trained: not fused, in the plain memory format."""
    model = build_detector("yolov5n", len(NAMES)).eval()
    model.load_state_dict(state)
    return model


def draw(sizes: Sequence[tuple[int, int]], seed: int = 0) -> list[Pixels]:
    """Images of coarse blocks of colour, with edges for a network to answer to."""
    rng = np.random.default_rng(seed)
    blocks = [rng.integers(0, 256, (-(-h // 16), -(-w // 16), 3), dtype=np.uint8) for h, w in sizes]
    return [b.repeat(16, 0).repeat(16, 1)[:h, :w].copy() for b, (h, w) in zip(blocks, sizes, strict=True)]


def detector(state: State, image_size: int = 128, min_score: float = 0.0) -> Detector:
    return Detector(DetectorSettings("yolov5n", NAMES, image_size, min_score), state)


def close(a: DetectedObject | None, b: DetectedObject | None, pixels: float = 0.05, score: float = 1e-3) -> bool:
    assert a is not None
    assert b is not None
    return a.name == b.name and abs(a.score - b.score) < score and np.allclose(a.box, b.box, atol=pixels)


def by_ultralytics(model: torch.nn.Module, image: Pixels, image_size: int) -> DetectedObject:
    """The same by ultralytics' own letterbox, suppression and way back to the image."""
    with offline_ultralytics():
        from ultralytics.data.augment import LetterBox  # noqa: PLC0415
        from ultralytics.utils.nms import non_max_suppression  # noqa: PLC0415
        from ultralytics.utils.ops import scale_boxes  # noqa: PLC0415
    laid_out = np.asarray(LetterBox((image_size, image_size), auto=True, stride=STRIDE)(image=image))
    batch = torch.from_numpy(laid_out.transpose(2, 0, 1).copy())[None].float() / 255
    with torch.inference_mode():
        kept = non_max_suppression(model(batch)[0], conf_thres=0.0)[0]
    box = scale_boxes((batch.shape[2], batch.shape[3]), kept[:1, :4].clone(), image.shape)[0]
    return DetectedObject(Box(*box.tolist()), float(kept[0, 4]), NAMES[int(kept[0, 5])])


@given(st.integers(1, 3000), st.integers(1, 3000), st.sampled_from([64, 256, 640]), st.data())
def test_a_box_of_the_image_comes_back_from_the_input(height: int, width: int, size: int, data: st.DataObject) -> None:
    laid = letterbox(height, width, size)
    assert max(laid.scaled_height, laid.scaled_width) == size
    assert laid.height % STRIDE == laid.width % STRIDE == 0
    assert 0 <= laid.height - laid.scaled_height < STRIDE
    assert 0 <= laid.width - laid.scaled_width < STRIDE
    share = st.floats(0, 1)
    x0, x1 = sorted(data.draw(share) for _ in range(2))
    y0, y1 = sorted(data.draw(share) for _ in range(2))
    w, h = laid.scaled_width, laid.scaled_height
    inside = (laid.left + (x0 + x1) / 2 * w, laid.top + (y0 + y1) / 2 * h, (x1 - x0) * w, (y1 - y0) * h)
    expected = (x0 * width, y0 * height, x1 * width, y1 * height)
    assert np.allclose(laid.to_image(inside), expected, atol=1e-6 * max(height, width))


@given(*[st.floats(-1e4, 1e4)] * 4)
def test_boxes_are_clipped_to_the_image(x: float, y: float, w: float, h: float) -> None:
    box = letterbox(90, 200, 256).to_image((x, y, abs(w), abs(h)))
    assert 0 <= box.x0 <= box.x1 <= 200
    assert 0 <= box.y0 <= box.y1 <= 90


@pytest.mark.parametrize("size", [(128, 128), (96, 128), (100, 128), (128, 72)])
def test_the_object_is_the_first_that_ultralytics_keeps(
    ours: Detector, reference: torch.nn.Module, size: tuple[int, int]
) -> None:
    images = [draw([size], seed)[0] for seed in range(4)]
    for image, found in zip(images, ours.detect(images), strict=True):
        assert close(found, by_ultralytics(reference, image, 128))


def test_enlarged_and_reduced_images_agree_with_ultralytics(ours: Detector, reference: torch.nn.Module) -> None:
    images = draw([(64, 64), (160, 256), (200, 120)])
    for image, found in zip(images, ours.detect(images), strict=True):  # it rounds resized pixels to whole numbers
        assert close(found, by_ultralytics(reference, image, 128), pixels=1.0, score=0.02)


def test_padding_is_the_grey_of_training(ours: Detector) -> None:
    images = [np.full((*size, 3), 114, np.uint8) for size in ((66, 128), (70, 140))]
    batch = ours._lay_out(images, [letterbox(*image.shape[:2], 128) for image in images])
    assert batch.shape == (2, 3, 96, 128)
    assert torch.allclose(batch, torch.tensor(114 / 255))  # the edge of a grey image cannot be seen


def test_an_image_does_not_depend_on_its_batch(ours: Detector) -> None:
    images = draw(SIZES)
    together = ours.detect(images)
    for image, found in zip(images, together, strict=True):
        assert close(found, ours.detect([image])[0])
    for found, again in zip(together[::-1], ours.detect(images[::-1]), strict=True):
        assert close(found, again)
    assert len({found.score for found in together if found}) > 2  # they are not all the same answer


def test_large_images_are_scaled_a_few_at_a_time(ours: Detector, monkeypatch: pytest.MonkeyPatch) -> None:
    images = draw([(96, 128)] * 5 + [(300, 200)] * 3)
    together = ours.detect_all(images)
    for pixels in (1, 2 * 96 * 128):
        monkeypatch.setattr("rsir_core.models.detector.SCALED_PIXELS", pixels)
        assert ours.detect_all(images) == together


def test_in_half_precision_it_finds_the_same_objects(ours: Detector, state: State) -> None:
    """As on GPUs, where weights, activations and candidates are of 16 bits."""
    images = draw(SIZES)
    settings = DetectorSettings("yolov5n", NAMES, 128, 0.0)
    half = Detector(settings, state, dtype=torch.float16)
    assert {p.dtype for p in half._model.parameters()} == {torch.float16}
    for one, other in zip(half.detect(images), ours.detect(images), strict=True):
        assert close(one, other, pixels=2.0, score=0.02)
    for found, expected in zip(half.detect_all(images), ours.detect_all(images), strict=True):
        assert close(found[0], expected[0], pixels=2.0, score=0.02)


def test_no_images_no_objects(ours: Detector) -> None:
    assert ours.detect([]) == []


def test_images_may_be_read_only(ours: Detector) -> None:
    (image,) = draw([(128, 128)])
    frozen = image.copy()
    frozen.flags.writeable = False  # as Ray's object store hands them out
    assert ours.detect([frozen]) == ours.detect([image])


def test_only_confident_detections_count(ours: Detector, state: State) -> None:
    images = draw([(128, 128), (96, 128)])
    scores = [found.score for found in ours.detect(images) if found]
    between = sum(scores) / 2
    assert [found is not None for found in detector(state, min_score=between).detect(images)] == [
        score >= between for score in scores
    ]
    assert min(scores) < between < max(scores)


def overlap(a: Sequence[float], b: Sequence[float]) -> float:
    """Intersection over union of boxes (x centre, y centre, width, height)."""
    sides = [
        min(a[i] + a[i + 2] / 2, b[i] + b[i + 2] / 2) - max(a[i] - a[i + 2] / 2, b[i] - b[i + 2] / 2) for i in (0, 1)
    ]
    both = max(sides[0], 0.0) * max(sides[1], 0.0)
    return both / (a[2] * a[3] + b[2] * b[3] - both)


def suppressed_one_by_one(candidates: npt.NDArray[np.float32], min_score: float) -> list[tuple[int, list[float]]]:
    """Class and box of the objects: every candidate in turn, against all that were kept before it."""
    scores = candidates[4:]
    name = scores.argmax(axis=0)
    order = sorted(range(scores.shape[1]), key=lambda a: (-scores[name[a], a], name[a], a))
    kept: list[tuple[int, list[float]]] = []
    for a in [a for a in order if scores[name[a], a] >= min_score][:MAX_CANDIDATES]:
        box = candidates[:4, a].tolist()
        if all(other != name[a] or overlap(box, earlier) <= MAX_IOU for other, earlier in kept):
            kept.append((int(name[a]), box))
    return kept[:MAX_OBJECTS]


@given(st.integers(0, 2**32 - 1), st.integers(0, 300), st.integers(1, 4), st.floats(0, 1), st.booleans())
def test_suppression_is_that_of_one_by_one(seed: int, a: int, classes: int, min_score: float, tied: bool) -> None:
    rng = np.random.default_rng(seed)
    centres, sides = rng.uniform(0, 128, (2, a)), rng.uniform(8, 64, (2, a))
    scores = rng.integers(0, 4, (classes, a)) / 3 if tied else rng.uniform(0, 1, (classes, a))
    candidates = np.concatenate([centres, sides, scores]).astype(np.float32)
    found = suppress(torch.from_numpy(candidates), min_score)
    assert [(name, box) for _, name, box in found] == suppressed_one_by_one(candidates, min_score)
    if found:  # the first is where `max` finds the representative object, ties included
        top, place = torch.from_numpy(candidates[4:]).reshape(-1).max(dim=0)
        assert (found[0][0], found[0][1]) == (float(top), int(place) // a)
        assert found[0][2] == candidates[:4, int(place) % a].tolist()


def test_the_first_of_all_objects_is_the_representative_one(ours: Detector, state: State) -> None:
    images = draw(SIZES)
    everything = ours.detect_all(images)
    assert [objects[0] for objects in everything] == ours.detect(images)
    assert max(len(objects) for objects in everything) > 3
    for objects in everything:
        assert [found.score for found in objects] == sorted((found.score for found in objects), reverse=True)
    between = sorted(found.score for objects in everything for found in objects)[-4]
    surer = detector(state, min_score=between)
    for objects, representative in zip(surer.detect_all(images), surer.detect(images), strict=True):
        assert all(found.score >= between for found in objects)
        assert (objects[0] if objects else None) == representative
    assert surer.detect(images).count(None) > 0
    assert ours.detect_all([]) == []


@pytest.mark.parametrize("size", [(128, 128), (96, 128)])
def test_all_objects_come_from_one_forward_pass(
    ours: Detector, size: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    passes = []
    forward = ours._forward

    def counted(images: Sequence[Pixels], laid: Sequence[Letterbox]) -> torch.Tensor:
        passes.append(len(images))
        return forward(images, laid)

    monkeypatch.setattr(ours, "_forward", counted)
    ours.detect_all(draw([size] * 3))
    assert passes == [3]


def test_weights_of_other_classes_are_refused(state: State) -> None:
    with pytest.raises(WeightsError, match="not a yolov5n of 2 classes"):
        Detector(DetectorSettings("yolov5n", ("a", "b"), 128, 0.25), state)


@pytest.mark.slow
def test_the_papers_size_can_be_built_and_others_cannot() -> None:
    assert sum(p.numel() for p in build_detector("yolov5x", 1).parameters()) > 80e6
    with pytest.raises(WeightsError, match="yolov8n"):
        build_detector("yolov8n", 1)
    with pytest.raises(WeightsError, match="0 classes"):
        build_detector(MODELS[0], 0)


@pytest.mark.slow
def test_start_weights_of_a_file_with_other_classes(tmp_path: Path, state: State) -> None:
    file = tmp_path / "start.safetensors"
    safetensors.torch.save_file(dict(state), file)
    model = build_detector("yolov5n", 7)
    differing = {name for name, tensor in model.state_dict().items() if tensor.shape != state[name].shape}
    assert len(differing) == 6  # weight and bias of the last layer of classes, on three scales
    assert load_start_weights(model, str(file)) == len(state) - len(differing)
    assert all(torch.equal(model.state_dict()[name], state[name]) for name in state if name not in differing)


@pytest.mark.skipif(not COCO.exists(), reason="needs ../shared/models")
def test_start_weights_of_a_backbone_and_neck() -> None:
    model = build_detector("yolov5n", 5)
    assert load_start_weights(model, str(COCO)) == 342
    with pytest.raises(WeightsError, match=r"backbone_neck.*model\.0\.conv\.weight \(32, 3, 6, 6\)"):
        load_start_weights(build_detector("yolov5s", 5), str(COCO))


def test_start_weights_that_are_none(tmp_path: Path, state: State) -> None:
    model = build_detector("yolov5n", 3)
    broken = tmp_path / "broken.safetensors"
    broken.write_bytes(b"no weights")
    with pytest.raises(WeightsError, match=r"broken\.safetensors"):
        load_start_weights(model, str(broken))
    with pytest.raises(WeightsError, match=r"absent\.safetensors"):
        load_start_weights(model, str(tmp_path / "absent.safetensors"))
    with pytest.raises(WeightsError, match=r"elsewhere.*\b0 of .*\b1\b"):
        take_start_weights(model, {"layer.weight": torch.zeros(3)}, "elsewhere")
    with pytest.raises(WeightsError, match="nothing: 0 of its 0 tensors"):
        take_start_weights(model, {}, "nothing")


_ALONE = """
import json, os, socket, sys, warnings
import numpy, PIL.Image, torch
def refuse(*args, **kwargs): raise AssertionError("asked the network")
socket.getaddrinfo = socket.socket.connect = refuse
def shared():
    return dict(os.environ), PIL.Image.open, torch.save, repr(numpy.get_printoptions()), list(warnings.filters)
before = shared()
import rsir_core.models.detector
lazy = "ultralytics" not in sys.modules
rsir_core.models.detector.build_detector("yolov5n", 2)
print(json.dumps({"lazy": lazy, "changed": [i for i, (a, b) in enumerate(zip(before, shared())) if a != b]}))
"""


@pytest.mark.slow
def test_ultralytics_leaves_network_home_stdout_and_process_alone(tmp_path: Path) -> None:
    environment = {"HOME": str(tmp_path), "PATH": "/usr/bin:/bin", "PYTHONPATH": str(ROOT), "TMPDIR": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", _ALONE], env=environment, capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == {"lazy": True, "changed": []}
    assert list(tmp_path.iterdir()) == []
