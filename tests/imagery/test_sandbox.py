"""A reading process gives what reading in one's own gives, and no image ends more than itself."""

import os
import random
import select
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from affine import Affine
from PIL import Image

from rsir_core.errors import ImageError
from rsir_core.imagery.decode import read_picture
from rsir_core.imagery.picture import Picture
from rsir_core.imagery.sandbox import Reader, memory_for
from tests.support.poison import KINDS, read_poisoned
from tests.support.rasters import gdal_file, scene

pytestmark = pytest.mark.slow
LIMIT = 1_000_000
ROOT = Path(__file__).parents[2]


@pytest.fixture
def reader() -> Iterator[Reader[Picture]]:
    reader = Reader(read_poisoned, 4, memory_for(LIMIT))
    yield reader
    reader.close()


@pytest.fixture
def uris(tmp_path: Path) -> list[str]:
    """Of 40 images, more than are under way at once."""
    for i in range(40):
        Image.fromarray(scene(20 + i, 30)).save(tmp_path / f"{i:02}.png")
    return sorted(map(str, tmp_path.iterdir()))


def requests(uris: list[str]) -> list[tuple[str, int]]:
    return [(uri, LIMIT) for uri in uris]


def check_same(found: Picture | ImageError, uri: str) -> None:
    own = read_picture(uri, LIMIT)
    assert isinstance(found, Picture), found
    np.testing.assert_array_equal(found.pixels, own.pixels)
    assert (found.notes, found.time, found.footprint) == (own.notes, own.time, own.footprint)
    assert found.pixels.flags.writeable


def test_pictures_and_failures_are_those_of_reading_oneself(
    reader: Reader[Picture], uris: list[str], tmp_path: Path
) -> None:
    samples, place = (
        np.arange(3 * 48 * 64, dtype=np.uint16).reshape(3, 48, 64),
        Affine(10, 0, 500_000, 0, -10, 5_000_000),
    )
    (tmp_path / "deep.tif").write_bytes(gdal_file(samples, crs="EPSG:32632", transform=place))
    good = [*uris, str(tmp_path / "deep.tif")]
    bad = {str(tmp_path / "nowhere.jpg"): ("read", "missing"), str(tmp_path): ("read", "error")}
    answers = reader.read(requests([*bad, *good]))
    assert [(a.stage, a.kind) for a in answers if isinstance(a, ImageError)] == list(bad.values())
    for found, uri in zip(answers[len(bad) :], good, strict=True):
        check_same(found, uri)
    assert isinstance(answers[-1], Picture) and answers[-1].footprint and answers[-1].notes
    (large,) = reader.read([(good[-1], 10)])
    assert isinstance(large, ImageError) and large.kind == "too_large"


def test_each_poison_costs_itself(reader: Reader[Picture], uris: list[str], tmp_path: Path) -> None:
    for name in (*KINDS, "is_killed_once"):
        Image.fromarray(scene()).save(tmp_path / f"{name}.png")
    poison = {str(tmp_path / f"{name}.png"): kind for name, kind in KINDS.items()}
    names = [*poison, *uris, str(tmp_path / "is_killed_once.png")]
    random.Random(0).shuffle(names)
    for uri, answer in zip(names, reader.read(requests(names)), strict=True):
        if uri in poison:
            assert isinstance(answer, ImageError)
            assert answer.kind == poison[uri] and uri in str(answer)
        else:
            check_same(answer, uri)


def test_a_real_image_that_needs_more_memory_than_there_is(tmp_path: Path, uris: list[str]) -> None:
    Path(large := str(tmp_path / "large.tif")).write_bytes(
        gdal_file(np.zeros((3, 8_000, 8_000), np.uint8), compress="deflate", photometric="rgb")
    )
    assert Path(large).stat().st_size < 1_000_000
    reader = Reader(read_picture, 60, 400 * 1024**2)
    before, answer, after = reader.read([(uri, 10**9) for uri in (uris[0], large, uris[1])])
    reader.close()
    assert isinstance(answer, ImageError) and answer.kind == "memory" and large in str(answer)
    check_same(before, uris[0])
    check_same(after, uris[1])


def test_a_bug_is_no_failure_of_the_image(reader: Reader[Picture], uris: list[str], tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="LookupError: a bug of ours"):
        reader.read(requests([*uris[:2], str(tmp_path / "has_a_bug.png"), *uris[2:]]))
    (found,) = reader.read(requests(uris[5:6]))  # and none of the answers that were under way
    check_same(found, uris[5])


def test_a_process_that_cannot_start_is_no_failure_of_the_image(uris: list[str]) -> None:
    def nowhere(_: str) -> Picture:
        raise AssertionError("no process finds this function")

    reader = Reader(nowhere, 60, memory_for(LIMIT))
    with pytest.raises(RuntimeError, match="as it started"):
        reader.read(requests(uris))


def test_the_process_ends_with_its_reader(tmp_path: Path) -> None:
    code = (
        "from tests.support.poison import read_poisoned; from rsir_core.imagery.sandbox import Reader, memory_for\n"
        f"reader = Reader(read_poisoned, 2, memory_for(1)); print(reader._process.pid, flush=True)\n"
        f"reader.read([('{tmp_path}/hangs.png', 1)])"
    )
    with subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, text=True) as owner:
        assert owner.stdout is not None
        child = os.pidfd_open(int(owner.stdout.readline()))
        os.kill(owner.pid, signal.SIGKILL)
    assert select.select([child], [], [], 120)[0]  # it had begun or not: at the latest when the image's time is over
    os.close(child)
