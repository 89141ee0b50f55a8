import dataclasses
import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from jobs.training.finetune_detector import _overrides, _run_folder, finetune_detector
from jobs.training.options import FinetuneDetectorConfig
from rsir_core.boxes.data import read_boxes
from rsir_core.errors import ConfigError, LabelError, WeightsError
from rsir_core.imagery.decode import read_picture
from rsir_core.models.detector import Detector, build_detector, offline_ultralytics
from rsir_core.models.settings import DetectorSettings
from tests.support import forks
from tests.support.options import replaced
from tests.support.rasters import gdal_file

ROOT = Path(__file__).parents[2]
SIDE = 64


def draw_boxes(folder: Path, train: int = 16, val: int = 4) -> Path:
    """Bright tanks and dark ships on grey, one per image, with their boxes; returns the data.yaml."""
    rng = np.random.default_rng(0)
    for split, count in (("train", train), ("val", val), ("test", val)):
        (folder / "images" / split).mkdir(parents=True)
        (folder / "labels" / split).mkdir(parents=True)
        for i in range(count):
            pixels = rng.integers(110, 140, (SIDE, SIDE, 3), dtype=np.uint8)
            side, (x, y) = 24, rng.integers(0, SIDE - 24, 2)
            pixels[y : y + side, x : x + side] = 250 if i % 2 else 10
            Image.fromarray(pixels).save(folder / "images" / split / f"{i}.png")
            box = " ".join(str(v / SIDE) for v in (x + side / 2, y + side / 2, side, side))
            (folder / "labels" / split / f"{i}.txt").write_text(f"{i % 2} {box}\n")
    file = folder / "data.yaml"
    splits = {"train": "images/train", "val": "images/val", "test": "images/test"}
    file.write_text(yaml.safe_dump({**splits, "names": ["ship", "tank"]}))
    return file


@pytest.fixture
def config(tmp_path: Path) -> FinetuneDetectorConfig:
    file = draw_boxes(tmp_path / "boxes")
    return FinetuneDetectorConfig(
        data=str(file),
        models=str(tmp_path / "models"),
        model="yolov5n",
        epochs=2,
        batch_size=8,
        image_size=SIDE,
        threads=1,
    )


def command(config: FinetuneDetectorConfig) -> list[str]:
    values = {k: v for k, v in config.model_dump().items() if v is not None and k != "json"}
    flags = [f"--{name.replace('_', '-')}={value}" for name, value in values.items()]
    return ["jobs.finetune_detector", "--json", *flags]


def environment(home: Path) -> dict[str, str]:
    home.mkdir(exist_ok=True)
    return {**os.environ, "HOME": str(home), "OMP_NUM_THREADS": "1"}


@pytest.mark.ray
@pytest.mark.usefixtures("forks")
def test_a_killed_training_continues_and_ends_in_the_bundle(config: FinetuneDetectorConfig, tmp_path: Path) -> None:
    home, models = tmp_path / "home", Path(config.models)
    log = tmp_path / "log"
    with log.open("wb") as out:
        job = forks.start(command(config), out, out, environment(home))
        while not re.search(r"epoch 1/2: .*box_loss .*mAP50", log.read_text()):
            assert job.poll() is None, log.read_text()
            time.sleep(0.02)
        job.kill()
        job.wait()
    assert not (models / "bundle.json").exists()

    again = [sys.executable, "-m", *command(config)]
    done = subprocess.run(again, cwd=ROOT, env=environment(home), capture_output=True, text=True, check=True)
    assert re.search(r"continuing after epoch 1 of 2", done.stderr)
    assert "epoch 1/2" not in done.stderr
    assert "epoch 2/2" in done.stderr
    summary = json.loads(done.stdout)  # nothing else on stdout
    expected = {"images": 16, "boxes": 16, "val_images": 4, "classes": 2, "epochs": 2, "model": "yolov5n"}
    assert {name: summary[name] for name in expected} == expected
    assert set(summary["map50_per_class"]) == {"ship", "tank"}
    assert 0 <= summary["map50"] == pytest.approx(np.mean(list(summary["map50_per_class"].values())))
    assert 1 <= summary["best_epoch"] <= 2
    assert summary["test_images"] == 4
    # the same images as those of `val`, by the same protocol
    assert summary["test_map50"] == pytest.approx(summary["map50"], abs=1e-3)
    assert summary["test_map50_per_class"] == pytest.approx(summary["map50_per_class"], abs=1e-3)
    assert list(home.iterdir()) == []
    check_bundle(models, summary["fingerprint"], config)


def check_bundle(models: Path, fingerprint: str, config: FinetuneDetectorConfig) -> None:
    """It holds the detector and nothing of the run, and the labels' folder nothing but labels."""
    manifest = json.loads((models / "bundle.json").read_text())
    assert manifest["fingerprint"] == fingerprint
    part = manifest["detector"]
    assert {p.name for p in models.iterdir()} == {"bundle.json", part["file"]}
    settings = DetectorSettings(**{**part["settings"], "classes": tuple(part["settings"]["classes"])})
    assert settings == DetectorSettings("yolov5n", ("ship", "tank"), SIDE, config.min_score)
    state = load_state(models / part["file"])
    assert {tensor.dtype for tensor in state.values()} == {torch.float32, torch.int64}
    (found,) = Detector(dataclasses.replace(settings, min_score=0.0), state).detect([np.zeros((50, 70, 3), np.uint8)])
    assert found is not None
    assert {p.suffix for p in Path(config.data).parent.rglob("*") if p.is_file()} == {".png", ".txt", ".yaml"}


def load_state(file: Path) -> dict[str, torch.Tensor]:
    from safetensors.torch import load_file  # noqa: PLC0415

    state: dict[str, Any] = load_file(file)
    return state


def test_only_a_run_of_the_same_settings_and_boxes_is_continued(config: FinetuneDetectorConfig) -> None:
    def kept(config: FinetuneDetectorConfig) -> bool:
        checkpoint = _run_folder(config, read_boxes(config.data)) / "weights" / "last.pt"
        was = checkpoint.exists()
        checkpoint.parent.mkdir(exist_ok=True)
        checkpoint.touch()
        return was

    assert not kept(config)
    assert kept(config)
    assert kept(replaced(config, threads=2, min_score=0.5, json=True))  # without effect on the weights
    for change in ({"epochs": 4}, {"seed": 1}, {"weights": "other.safetensors"}, {"image_size": 96}):
        assert not kept(replaced(config, **change))
        assert not kept(config)
    label = Path(config.data).parent / "labels" / "train" / "0.txt"
    label.write_text("1" + label.read_text()[1:])
    assert not kept(config)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"epochs": 0}, "epochs"),
        ({"image_size": 100}, "image-size is 100.*32"),
        ({"image_size": 32}, "image-size is 32.*64"),
        ({"min_score": 1.5}, "--min-score 1.5: .*equal to 1"),
        ({"num_gpus": 2}, "num-gpus is 2"),
    ],
)
def test_settings_that_cannot_be(config: FinetuneDetectorConfig, change: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        finetune_detector(replaced(config, **change))
    assert not Path(config.models).exists()


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a GPU")
def test_a_gpu_that_is_not_there(config: FinetuneDetectorConfig) -> None:
    with pytest.raises(ConfigError, match="GPU"):
        finetune_detector(replaced(config, num_gpus=1))


def test_labels_are_checked_first(config: FinetuneDetectorConfig, tmp_path: Path) -> None:
    (tmp_path / "boxes" / "labels" / "val" / "0.txt").write_text("7 0.5 0.5 0.1 0.1")
    with pytest.raises(LabelError, match=r"class 7\b"):
        finetune_detector(config)
    assert not Path(config.models).exists()


def test_test_images_are_read_before_training(config: FinetuneDetectorConfig, tmp_path: Path) -> None:
    drawn = tmp_path / "boxes" / "images" / "test" / "0.png"
    Image.open(drawn).save(cut := drawn.with_suffix(".jpg"))
    drawn.unlink()
    cut.write_bytes(cut.read_bytes()[:-200])  # its header is whole
    with pytest.raises(LabelError, match=r"test/0\.jpg.*data\.yaml"):
        finetune_detector(config)
    assert not Path(config.models).exists()


def test_a_bundle_that_cannot_be_written_is_found_out_first(config: FinetuneDetectorConfig, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match=r"--models .*file/models"):
        finetune_detector(replaced(config, models=str(tmp_path / "file" / "models")))


def test_start_weights_are_checked_before_training(config: FinetuneDetectorConfig, tmp_path: Path) -> None:
    other = tmp_path / "other.pt"
    torch.save({"weight": torch.zeros(3)}, other)
    for weights, message in (("absent.pt", r"absent\.pt"), (str(other), r"other\.pt")):
        with pytest.raises(WeightsError, match=message):
            finetune_detector(replaced(config, weights=weights))


@pytest.mark.slow
def test_a_checkpoint_of_ones_own_is_a_start(config: FinetuneDetectorConfig, tmp_path: Path) -> None:
    from jobs.training.finetune_detector import _start  # noqa: PLC0415

    saved, file = build_detector("yolov5n", 2), tmp_path / "own.pt"
    torch.save({"model": saved, "train_args": {}}, file)
    model = build_detector("yolov5n", 2)
    assert _start(model, str(file)) == len(saved.state_dict())
    assert all(torch.equal(model.state_dict()[name], tensor) for name, tensor in saved.state_dict().items())


def test_the_detector_learns_of_the_pixels_that_it_will_see(config: FinetuneDetectorConfig, tmp_path: Path) -> None:
    """Those of the index's reader; where ultralytics' own reads the same, scaled as it scales."""
    rng = np.random.default_rng(0)
    train = Path(config.data).parent / "images" / "train"
    Image.fromarray(rng.integers(256, size=(50, 90, 3), dtype=np.uint8)).save(train / "wide.png")
    deep = rng.integers(200, 3000, (3, 80, SIDE)).astype(np.uint16)
    (train / "deep.tif").write_bytes(gdal_file(deep))
    with offline_ultralytics():
        from ultralytics.data.base import BaseDataset  # noqa: PLC0415 -- not before it is offline

        from rsir_core.training.detector import BoxTrainer  # noqa: PLC0415 -- as above
    trainer = BoxTrainer(read_boxes(config.data), _overrides(config, tmp_path / "run", None))
    for mode in ("train", "val"):
        images = trainer.build_dataset("train", mode, 4)
        for i, file in enumerate(images.im_files):
            pixels, size, scaled = images.load_image(i)
            picture = read_picture(file).pixels
            assert pixels.shape[:2] == scaled and max(scaled) == SIDE and size == picture.shape[:2]
            if file.endswith("deep.tif"):
                assert picture.mean() > 100 and abs(float(pixels.mean()) - float(picture.mean())) < 3
                continue
            images.ims[i] = None
            theirs = BaseDataset.load_image(images, i)
            assert np.array_equal(pixels, theirs[0]) and (size, scaled) == theirs[1:]
        assert (len(images.buffer) > 0) == (mode == "train")
