"""What the stages of indexing hold on to: nothing of an image once its row is written."""

import dataclasses
import os
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from jobs.indexing.describing import DescribeRead
from jobs.indexing.options import IndexConfig
from rsir_core import schemas
from rsir_core.archive.listing import list_images
from rsir_core.imagery.reading import Reading, images_of, read_batches, read_files
from rsir_core.index.diff import listing_table
from rsir_core.index.index import Index
from tests.support.models import write_bundle
from tests.support.writing import writer_of


@pytest.mark.slow
def test_images_that_were_read_are_let_go(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (12, 40, 30, 3), dtype=np.uint8)
    for i, image in enumerate(pixels):
        Image.fromarray(image).save(tmp_path / f"{i:02}.png")
    listing = listing_table(list_images(str(tmp_path)))
    reading = Reading.of(IndexConfig(archive=str(tmp_path), models="m", index="i"))

    def read() -> pa.Table:
        return read_files(listing, reading)

    np.testing.assert_array_equal(np.stack(images_of(read())), pixels)
    before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208 -- links to what is closed by then
    read()
    assert len(os.listdir("/proc/self/fd")) == before  # noqa: PTH208


@pytest.mark.slow
def test_what_is_described_by_no_numbers_is_a_failure_and_the_others_are_rows(tmp_path: Path) -> None:
    for i, image in enumerate(np.random.default_rng(0).integers(0, 256, (3, 64, 64, 3), dtype=np.uint8)):
        Image.fromarray(image).save(tmp_path / f"{i}.png")
    (tmp_path / "3.png").write_bytes(b"no image")
    write_bundle(tmp_path / "models", detector=False)
    index = Index(str(tmp_path / "index"))
    writer_of(index).adopt_bundle(str(tmp_path / "models"))
    stage = DescribeRead(index.uri, "cpu")
    describe = stage.describer.describe

    def spoiled(images: Any) -> Any:
        found = describe(images)
        embedding = found.embedding.copy()
        embedding[1, 5] = np.inf  # as half precision may
        return dataclasses.replace(found, embedding=embedding)

    stage.describer.describe = spoiled  # type: ignore[method-assign, assignment]
    listing = listing_table(list_images(str(tmp_path)))
    found = stage(read_files(listing, Reading.of(IndexConfig(archive=str(tmp_path), models="m", index="i"))))
    good = found.filter(found[schemas.KIND].is_null())
    bad = found.filter(found[schemas.KIND].is_valid())
    assert good[schemas.IMAGE_ID].to_pylist() == ["0.png", "2.png"]
    assert dict(zip(bad[schemas.IMAGE_ID].to_pylist(), bad[schemas.STAGE].to_pylist(), strict=True)) == {
        "3.png": "decode", "1.png": "describe",
    }  # fmt: skip
    assert "1.png is described by numbers that are not finite" in bad[schemas.MESSAGE].to_pylist()[-1]


@pytest.mark.slow
def test_batches_are_of_so_many_images_or_of_fewer_large_ones(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for i in range(30):
        side = 100 if 10 <= i < 20 else 10
        Image.new("RGB", (side, side)).save(tmp_path / f"{i:02}.png")
    (tmp_path / "05.png").write_bytes(b"no image")
    listing = listing_table(list_images(str(tmp_path)))
    reading = Reading.of(IndexConfig(archive=str(tmp_path), models="m", index="i"))
    monkeypatch.setattr("rsir_core.imagery.reading.MAX_PIXEL_BYTES", 4 * 100 * 100 * 3)
    batches = list(read_batches(listing, reading, 8))
    assert [len(batch) for batch in batches] == [8, 8, 4, 8, 2]
    assert pa.concat_tables(batches)[schemas.IMAGE_ID].to_pylist() == listing[schemas.IMAGE_ID].to_pylist()
    assert [len(batch) for batch in read_batches(listing.slice(0, 9), reading, 8)] == [8, 1]
    assert [len(batch) for batch in read_batches(listing.slice(20), reading, 3)] == [3, 3, 3, 1]
    assert list(read_batches(listing.slice(0, 0), reading, 8)) == []
