"""Calibration on held-out images, some of which are poison."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from rsir_core.archive.labels import LabelledImage
from rsir_core.imagery.reading import Reading
from rsir_core.models.bundle import load_bundle
from rsir_core.training.calibrating import calibrate
from tests.support.models import CLASSES, write_bundle
from tests.support.poison import read_poisoned


@pytest.mark.slow
def test_an_image_that_hangs_or_is_too_large_is_left_out(tmp_path: Path) -> None:
    write_bundle(tmp_path / "models")
    bundle = load_bundle(str(tmp_path / "models"))
    images = []
    for i, name in enumerate(["a", "hangs", "b", "segfaults", "c"]):
        file = tmp_path / f"{name}.png"
        Image.fromarray(np.random.default_rng(i).integers(0, 256, (64, 64, 3), np.uint8)).save(file)
        images.append(LabelledImage(str(file), CLASSES[i % 3], "train"))
    settings, figures = calibrate(bundle, images, Reading(1_000_000, 3.0, read_poisoned))
    assert figures["calibration_images"] == 3 and settings.temperature > 0
    assert calibrate(bundle, images, Reading(64, 3.0))[1]["calibration_images"] == 0
