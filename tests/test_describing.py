"""What the stages of indexing hold on to: nothing of an image once its row is written."""

import os
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from jobs.config import IndexConfig
from jobs.indexing.describing import Reading, images_of, read_files
from rsir_core.archive import list_images
from rsir_core.plan import listing_table


@pytest.mark.slow
def test_images_that_were_read_are_let_go(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (12, 40, 30, 3), dtype=np.uint8)
    for i, image in enumerate(pixels):
        Image.fromarray(image).save(tmp_path / f"{i:02}.png")
    listing = listing_table(list_images(str(tmp_path)))
    reading = Reading.of(IndexConfig(archive=str(tmp_path), models="", index=""))

    def read() -> pa.Table:
        return read_files(listing, reading)

    np.testing.assert_array_equal(np.stack(images_of(read())), pixels)
    before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208 -- links to what is closed by then
    read()
    assert len(os.listdir("/proc/self/fd")) == before  # noqa: PTH208
