import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from jobs.boxes.data import BoxData, read_boxes
from rsir_core.errors import LabelError
from tests.rasters import gdal_file

LINE = "1 0.5 0.25 0.2 0.1"


def write(
    folder: Path, lines: Sequence[str] = (LINE,), size: tuple[int, int] = (40, 30), **settings: object
) -> BoxData:
    """A set of one training and one validation image, read; `settings` replace those of its data.yaml."""
    for split in ("train", "val"):
        (folder / "images" / split).mkdir(parents=True, exist_ok=True)
        (folder / "labels" / split).mkdir(parents=True, exist_ok=True)
        Image.new("RGB", size).save(folder / "images" / split / "a.jpg")
        (folder / "labels" / split / "a.txt").write_text("\n".join(lines))
    content = {"train": "images/train", "val": "images/val", "names": ["tank", "ship"], **settings}
    (folder / "data.yaml").write_text(yaml.safe_dump({k: v for k, v in content.items() if v is not None}))
    return read_boxes(str(folder / "data.yaml"))


def test_a_set_is_read(tmp_path: Path) -> None:
    data = write(tmp_path, [LINE, "", "0 0.5 0.5 1 1", LINE])
    assert data.names == ("tank", "ship")
    (image,) = data.train
    assert Path(image.file) == tmp_path / "images" / "train" / "a.jpg"
    assert (image.height, image.width) == (30, 40)
    assert image.classes.tolist() == [[1.0], [0.0]]  # the same box twice is one box
    assert np.allclose(image.boxes, [[0.5, 0.25, 0.2, 0.1], [0.5, 0.5, 1, 1]])
    assert {array.dtype for array in (image.classes, image.boxes)} == {np.dtype(np.float32)}
    assert len(data.val) == 1


def test_a_polygon_is_its_box(tmp_path: Path) -> None:
    data = write(tmp_path, ["0 0.2 0.3 0.6 0.1 0.4 0.5"])
    assert np.allclose(data.train[0].boxes, [[0.4, 0.3, 0.4, 0.4]])


def test_an_image_without_label_file_has_no_objects(tmp_path: Path) -> None:
    write(tmp_path)
    Image.new("RGB", (40, 30)).save(tmp_path / "images" / "train" / "sub.b.PNG")
    (tmp_path / "images" / "train" / "notes.csv").write_text("no image")
    images = read_boxes(str(tmp_path / "data.yaml")).train
    assert [(Path(image.file).name, len(image.boxes)) for image in images] == [("a.jpg", 1), ("sub.b.PNG", 0)]


def test_a_turned_image_has_the_size_that_it_is_shown_with(tmp_path: Path) -> None:
    write(tmp_path)
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (40, 30)).save(tmp_path / "images" / "train" / "a.jpg", exif=exif)
    assert read_boxes(str(tmp_path / "data.yaml")).train[0][1:3] == (40, 30)


def test_places_may_be_lists_and_text_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path)
    listing = tmp_path / "listing.txt"
    listing.write_text(f"./images/train/a.jpg\n\n{tmp_path}/images/val/a.jpg\n")
    data = write(tmp_path, train="listing.txt", val=["images/val", "images/train/a.jpg"])
    expected = [str(tmp_path / "images" / split / "a.jpg") for split in ("train", "val")]
    assert [image.file for image in data.train] == [image.file for image in data.val] == expected
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "data.yaml").write_text((tmp_path / "data.yaml").read_text() + f"path: {tmp_path}\n")
    assert read_boxes(str(elsewhere / "data.yaml")).digest() == data.digest()
    monkeypatch.chdir(tmp_path.parent)
    (elsewhere / "data.yaml").write_text((tmp_path / "data.yaml").read_text() + f"path: {tmp_path.name}\n")
    assert read_boxes(str(elsewhere / "data.yaml")).digest() == data.digest()


def test_a_test_split_is_optional_and_no_part_of_the_training(tmp_path: Path) -> None:
    without = write(tmp_path)
    Image.new("RGB", (40, 30)).save(tmp_path / "images" / "new.jpg")
    settings = yaml.safe_load((tmp_path / "data.yaml").read_text())
    (tmp_path / "data.yaml").write_text(yaml.safe_dump({**settings, "test": ["images/train", "images/new.jpg"]}))
    with pytest.raises(LabelError, match=r"train/a\.jpg is in test and in train"):
        read_boxes(str(tmp_path / "data.yaml"))
    (tmp_path / "data.yaml").write_text(yaml.safe_dump({**settings, "test": "images/val"}))
    assert len(read_boxes(str(tmp_path / "data.yaml")).test) == 1  # as sets with two parts have it; that is said
    (tmp_path / "labels" / "new.txt").write_text(LINE)
    (tmp_path / "data.yaml").write_text(yaml.safe_dump({**settings, "test": "images/new.jpg"}))
    with_test = read_boxes(str(tmp_path / "data.yaml"))
    assert without.test == []
    assert [image.file for image in with_test.test] == [str(tmp_path / "images" / "new.jpg")]
    assert with_test.digest() == without.digest()
    with pytest.raises(LabelError, match=r"test is .*none, which does not exist"):
        write(tmp_path, test="images/none")


def test_numbered_names(tmp_path: Path) -> None:
    assert write(tmp_path, names={1: "ship", 0: "tank"}).names == ("tank", "ship")


@pytest.mark.parametrize(
    "change",
    [{"lines": ["1 0.5 0.25 0.2 0.2"]}, {"lines": ["0 0.5 0.25 0.2 0.1"]}, {"names": ["tank", "boat"]}],
)
def test_the_digest_sees_what_is_trained_on(tmp_path: Path, change: dict[str, Sequence[str]]) -> None:
    before = write(tmp_path).digest()
    assert read_boxes(str(tmp_path / "data.yaml")).digest() == before
    for split in ("train", "val"):
        (tmp_path / "labels" / split / "a.txt").write_text("\n".join(change.get("lines", [LINE])))
    settings = yaml.safe_load((tmp_path / "data.yaml").read_text())
    (tmp_path / "data.yaml").write_text(yaml.safe_dump({**settings, "names": change.get("names", settings["names"])}))
    assert read_boxes(str(tmp_path / "data.yaml")).digest() != before


def test_the_digest_sees_other_pictures_of_the_same_names(tmp_path: Path) -> None:
    before = write(tmp_path).digest()
    Image.new("RGB", (40, 30), "white").save(tmp_path / "images" / "train" / "a.jpg")
    assert read_boxes(str(tmp_path / "data.yaml")).digest() != before


def test_what_a_set_must_have(tmp_path: Path) -> None:
    for settings, message in (
        ({"names": None}, "names is None"),
        ({"names": []}, r"names is \[\]"),
        ({"names": ["a", "a"]}, "each once"),
        ({"names": {1: "a", 2: "b"}}, "numbered from 0"),
        ({"train": None}, "train is missing"),
        ({"val": "images/valid"}, "val is .*valid, which does not exist"),
        ({"val": "labels"}, "no image in val"),
    ):
        with pytest.raises(LabelError, match=message):
            write(tmp_path, **settings)


def test_a_data_yaml_that_is_none(tmp_path: Path) -> None:
    file = tmp_path / "data.yaml"
    for content in ("[unclosed", "just text"):
        file.write_text(content)
        with pytest.raises(LabelError, match=r"data\.yaml"):
            read_boxes(str(file))
    with pytest.raises(LabelError, match=r"absent\.yaml cannot be read"):
        read_boxes(str(tmp_path / "absent.yaml"))


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("2 0.5 0.5 0.1 0.1", "class 2 is not among the 2 names, which are numbered from 0"),
        ("-1 0.5 0.5 0.1 0.1", "class -1"),
        ("0.5 0.5 0.5 0.1 0.1", "class 0.5"),
        ("tank 0.5 0.5 0.1 0.1", "neither"),
        ("0 0.5 0.5 0.1", "neither"),
        ("0 0.1 0.1 0.2 0.2 0.3", "neither"),
        ("0 0.5 0.5 nan 0.1", "empty or outside"),
        ("0 0.5 0.5 0 0.1", "empty or outside"),
        ("0 120 80 20 10", "empty or outside"),
        ("0 0.98 0.5 0.2 0.1", "empty or outside"),
    ],
)
def test_lines_that_cannot_be(tmp_path: Path, line: str, message: str) -> None:
    with pytest.raises(LabelError, match=rf"train{os.sep}a\.txt:2: .*{message}"):
        write(tmp_path, [LINE, line])


def test_no_box_at_all(tmp_path: Path) -> None:
    with pytest.raises(LabelError, match=r"none of the 1 images of train has a box.*labels.*a\.txt"):
        write(tmp_path, [])


def test_a_file_that_is_no_image(tmp_path: Path) -> None:
    write(tmp_path)
    (tmp_path / "images" / "val" / "broken.jpg").write_bytes(b"\xff\xd8\xff")
    with pytest.raises(LabelError, match=r"broken\.jpg cannot be opened as an image"):
        read_boxes(str(tmp_path / "data.yaml"))
    assert (tmp_path / "images" / "val" / "broken.jpg").read_bytes() == b"\xff\xd8\xff"  # left as it was


def test_an_image_that_only_the_index_s_reader_knows_has_a_size(tmp_path: Path) -> None:
    write(tmp_path)
    (tmp_path / "images" / "train" / "b.tif").write_bytes(gdal_file(np.ones((3, 20, 50), np.float32)))
    assert read_boxes(str(tmp_path / "data.yaml")).train[1][1:3] == (20, 50)
