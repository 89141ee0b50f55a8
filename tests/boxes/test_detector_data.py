import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal
from unicodedata import normalize

import numpy as np
import pytest
import yaml
from PIL import Image, TiffTags
from PIL.TiffImagePlugin import ImageFileDirectory_v2

from rsir_core.boxes.data import BoxData, image_size, read_boxes
from rsir_core.errors import LabelError
from rsir_core.imagery.decode import read_picture
from rsir_core.models.detector import offline_ultralytics
from tests.support.rasters import gdal_file

ODD = Path(__file__).parents[3] / "shared" / "data" / "odd_inputs"
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


@pytest.mark.parametrize("orientation", [1, 3, 6, 8, 9])
@pytest.mark.parametrize("name", ["a.jpg", "a.png", "a.tif", "deep.tif", "placed.tif"])
def test_the_size_is_that_of_the_picture(tmp_path: Path, name: str, orientation: int) -> None:
    file = tmp_path / name
    pixels = np.ones((30, 40), np.uint16 if name == "deep.tif" else np.uint8)
    if name.endswith(".tif"):
        tags: dict[int, Any] = {0x0112: orientation}
        if name == "placed.tif":  # turning it would move what it shows
            tags |= {33550: (1.0, 1.0, 0.0), 33922: (0.0, 0.0, 0.0, 500_000.0, 5_000_000.0, 0.0)}
            tags[34735] = (1, 1, 0, 3, 1024, 0, 1, 1, 1025, 0, 1, 1, 3072, 0, 1, 32633)
        directory = ImageFileDirectory_v2()
        for tag, value in tags.items():
            directory[tag] = value
            directory.tagtype[tag] = TiffTags.DOUBLE if tag in (33550, 33922) else TiffTags.SHORT
        Image.fromarray(pixels).save(file, tiffinfo=directory)
    else:
        exif = Image.Exif()
        exif[0x0112] = orientation
        Image.fromarray(pixels).save(file, exif=exif)
    assert image_size(str(file)) == read_picture(str(file)).pixels.shape[:2]


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
    with pytest.raises(LabelError, match=r"train/a\.jpg.*\btest and .*\btrain"):
        read_boxes(str(tmp_path / "data.yaml"))
    (tmp_path / "data.yaml").write_text(yaml.safe_dump({**settings, "test": "images/../images/train"}))
    with pytest.raises(LabelError, match=r"train/a\.jpg.*\btest and .*\btrain"):
        read_boxes(str(tmp_path / "data.yaml"))
    (tmp_path / "data.yaml").write_text(yaml.safe_dump({**settings, "test": "images/val"}))
    assert len(read_boxes(str(tmp_path / "data.yaml")).test) == 1  # as sets with two parts have it; that is said
    (tmp_path / "labels" / "new.txt").write_text(LINE)
    (tmp_path / "data.yaml").write_text(yaml.safe_dump({**settings, "test": "images/new.jpg"}))
    with_test = read_boxes(str(tmp_path / "data.yaml"))
    assert without.test == []
    assert [image.file for image in with_test.test] == [str(tmp_path / "images" / "new.jpg")]
    assert with_test.digest() == without.digest()
    assert write(tmp_path, test="images/none").test == []  # as Roboflow's exports have it; that is said


@pytest.mark.parametrize(
    "settings",
    [
        {"names": {1: "ship", 0: "tank"}},
        {"names": {"1": "ship", "0": "tank"}},
        {"nc": 2},
        {"nc": "2"},
        {"nc": 2.0},
        {"names": None, "nc": 2},
        {"val": None, "validation": "images/val"},
        {"train": "../images/train", "val": ["../images/val"]},
        {"test": "None"},
    ],
)
def test_settings_as_ultralytics_takes_them(tmp_path: Path, settings: dict[str, Any]) -> None:
    data = write(tmp_path, **settings)
    assert data.names == (("class_0", "class_1") if settings.get("names", 1) is None else ("tank", "ship"))
    assert [Path(i.file).resolve() for i in (*data.train, *data.val)] == [
        tmp_path / "images" / split / "a.jpg" for split in ("train", "val")
    ]


@pytest.mark.slow
@pytest.mark.parametrize(
    "line", ["0 0.97 0.5 0.1 0.2", "1 1.01 0.5 0.2 0.1", "0 0.5 0.5 1.01 1", "0 0.005 -0.01 0.2 0.1"]
)
def test_a_box_that_ultralytics_trains_on_is_cut_off_at_the_edge(tmp_path: Path, line: str) -> None:
    (image,) = write(tmp_path, [line]).train
    (x, y, w, h), *_ = image.boxes.tolist()
    left, upper, right, lower = x - w / 2, y - h / 2, x + w / 2, y + h / 2
    assert min(left, upper) >= -1e-6 and max(right, lower) <= 1 + 1e-6
    given_x, given_y, given_w, given_h = map(float, line.split()[1:])
    assert (left, right) == pytest.approx((max(given_x - given_w / 2, 0), min(given_x + given_w / 2, 1)), abs=1e-6)
    assert (upper, lower) == pytest.approx((max(given_y - given_h / 2, 0), min(given_y + given_h / 2, 1)), abs=1e-6)
    with offline_ultralytics():
        from ultralytics.data.utils import verify_image_label  # noqa: PLC0415
    label = tmp_path / "labels" / "train" / "a.txt"
    assert len(verify_image_label((image.file, str(label), "", False, 2, 0, 0, False))[1]) == 1


def test_keypoints_of_a_pose_are_no_polygon(tmp_path: Path) -> None:
    data = write(tmp_path, [f"{LINE} 0.1 0.1 0.9 0.9", LINE], kpt_shape=[2, 2])
    assert np.allclose(data.train[0].boxes, [[0.5, 0.25, 0.2, 0.1]])


def test_hidden_files_are_left_out(tmp_path: Path) -> None:
    write(tmp_path)
    train = tmp_path / "images" / "train"
    for name in ("._a.jpg", ".ipynb_checkpoints/a-checkpoint.jpg", "__MACOSX/b.jpg"):
        (train / name).parent.mkdir(exist_ok=True)
        (train / name).write_bytes(b"no image")
    (tmp_path / "labels" / "train" / "._a.txt").write_bytes(b"\0\x05")
    every = [f"./{path.relative_to(tmp_path)}" for path in sorted(train.rglob("*.jpg"))]
    (tmp_path / "list.txt").write_text("\n".join([*every, *(str(tmp_path / line) for line in every)]))
    assert len(every) == 4
    for given in ("images/train", "list.txt"):
        data = write(tmp_path, train=given)
        assert [Path(image.file).name for image in data.train] == ["a.jpg"]
    hidden = tmp_path / ".sets"  # what is around a set does not matter
    assert len(write(hidden).train) == 1


@pytest.mark.parametrize(("image", "label"), [("NFD", "NFC"), ("NFC", "NFD")])
@pytest.mark.parametrize("ending", [".txt", ".TXT"])
def test_labels_are_found_however_they_are_spelt(
    tmp_path: Path, image: Literal["NFD", "NFC"], label: Literal["NFD", "NFC"], ending: str
) -> None:
    for split in ("train", "val"):
        name = f"{split}/Köln/ü"
        (tmp_path / "images" / normalize(image, name)).parent.mkdir(parents=True)
        (tmp_path / "labels" / normalize(label, name)).parent.mkdir(parents=True)
        Image.new("RGB", (40, 30)).save(tmp_path / "images" / normalize(image, f"{name}.jpg"))
        (tmp_path / "labels" / normalize(label, name + ending)).write_text(LINE)
    spellings = [normalize(form, "./images/val/Köln/ü.jpg") for form in (image, label)]  # one image
    (tmp_path / "list.txt").write_text("\n".join(spellings), "utf-8")
    write(tmp_path, val="list.txt")
    for split in ("train", "val"):
        (tmp_path / "labels" / split / "a.txt").write_text("")
    data = read_boxes(str(tmp_path / "data.yaml"))
    assert [len(i.boxes) for i in (*data.train, *data.val) if "K" in i.file] == [1, 1]


def test_a_label_file_that_may_be_of_two_images(tmp_path: Path) -> None:
    write(tmp_path)
    for form in ("NFC", "NFD"):
        Image.new("RGB", (40, 30)).save(tmp_path / "images" / "train" / normalize(form, "ü.jpg"))
    label = tmp_path / "labels" / "train" / "\u00fc.txt"
    label.write_text(LINE)
    with pytest.raises(LabelError, match=r"'.*\\.*\.jpg'.*'.*\\.*\.jpg'"):
        read_boxes(str(tmp_path / "data.yaml"))
    (tmp_path / "labels" / "train" / "u\u0308.txt").write_text(LINE)
    assert [len(image.boxes) for image in read_boxes(str(tmp_path / "data.yaml")).train] == [1, 1, 1]


def test_labels_of_no_image_are_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write(tmp_path)
    labels = tmp_path / "labels" / "train"
    for name in ("b.jpg", "unlisted.jpg"):
        Image.new("RGB", (40, 30)).save(tmp_path / "images" / "train" / name)
    (tmp_path / "list.txt").write_text("./images/train/a.jpg\n./images/train/b.jpg\n")
    for name, text in (("classes.txt", "tank\nship"), ("unlisted.txt", LINE), ("._c.txt", LINE), ("c.txt", LINE)):
        (labels / name).write_text(text)
    settings = yaml.safe_load((tmp_path / "data.yaml").read_text())
    (tmp_path / "data.yaml").write_text(yaml.safe_dump({**settings, "train": "list.txt"}))
    assert len(read_boxes(str(tmp_path / "data.yaml")).train) == 2
    (said,) = caplog.messages
    assert said.startswith(f"1 label files are of no image, such as {labels / 'c.txt'}; 1 of 3 images have none")
    assert said.endswith(f"{tmp_path / 'images' / 'train' / 'b.jpg'}")
    (labels / "c.txt").rename(labels / "B.txt")
    with pytest.raises(LabelError, match=r"B\.txt.*b\.jpg"):
        read_boxes(str(tmp_path / "data.yaml"))


def test_labels_beside_what_a_link_leads_to_are_found(tmp_path: Path) -> None:
    """Ultralytics resolves links before it looks for labels."""
    write(tmp_path / "real")
    write(tmp_path / "linked")
    shutil.rmtree(tmp_path / "linked" / "labels")
    for split in ("train", "val"):
        shutil.rmtree(tmp_path / "linked" / "images" / split)
        (tmp_path / "linked" / "images" / split).symlink_to(tmp_path / "real" / "images" / split)
    data = read_boxes(str(tmp_path / "linked" / "data.yaml"))
    assert [len(image.boxes) for image in (*data.train, *data.val)] == [1, 1]


@pytest.mark.skipif(not ODD.is_dir(), reason="the odd inputs are not beside this repository")
@pytest.mark.parametrize(
    "folder",
    [
        *("03_hidden_files_in_boxes/apple_double", "03_hidden_files_in_boxes/checkpoints"),
        *(f"05_data_yaml_of_ultralytics/{n}" for n in ("roboflow", "validation", "nc_only", "string_keys", "edge")),
    ],
)
def test_odd_sets_that_ultralytics_trains_on_are_read(folder: str) -> None:
    data = read_boxes(str(ODD / folder / "data.yaml"))
    assert data.names == ("class_0" if folder.endswith("nc_only") else "roof",)
    for split, images in (("train", data.train), ("valid", data.val)):
        (image,) = images
        assert Path(image.file).resolve() == (ODD / folder / split / "images" / "a.jpg").resolve()
        expected = [0.96, 0.5, 0.08, 0.2] if folder.endswith("edge") else [0.25, 0.25, 0.2, 0.2]
        assert np.allclose(image.boxes, [expected])


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
        ({"names": None, "nc": 0}, "names is None"),
        ({"names": None, "nc": "two"}, "nc is 'two'; give the number"),
        ({"nc": 3}, "nc is 3, but names has 2"),
        ({"names": {"one": "a", "two": "b"}}, "numbered from 0"),
        ({"names": {"0": "a", 0: "b"}}, "numbered from 0"),
        ({"path": 5}, "path is 5; give the folder"),
        ({"path": "coco8"}, "path is coco8, which is neither beside the data.yaml nor in the working directory"),
        ({"kpt_shape": 17}, "kpt_shape is 17"),
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
        ("0 1.011 0.5 0.2 0.1", "empty or outside"),
        ("0 0.5 -0.011 0.2 0.1", "empty or outside"),
        ("0 0.5 0.5 1.011 0.1", "empty or outside"),
        ("0 1.009 0.5 0.01 0.1", "empty or outside"),
    ],
)
def test_lines_that_cannot_be(tmp_path: Path, line: str, message: str) -> None:
    with pytest.raises(LabelError, match=rf"train{os.sep}a\.txt:2: .*{message}"):
        write(tmp_path, [LINE, line])


def test_no_box_at_all(tmp_path: Path) -> None:
    with pytest.raises(LabelError, match=r"\b1 images of train.*labels.*a\.txt"):
        write(tmp_path, [])


def test_a_file_that_is_no_image(tmp_path: Path) -> None:
    write(tmp_path)
    (tmp_path / "images" / "val" / "broken.jpg").write_bytes(b"\xff\xd8\xff")
    with pytest.raises(LabelError, match=r"broken\.jpg"):
        read_boxes(str(tmp_path / "data.yaml"))
    assert (tmp_path / "images" / "val" / "broken.jpg").read_bytes() == b"\xff\xd8\xff"  # left as it was


def test_an_image_that_only_the_index_s_reader_knows_has_a_size(tmp_path: Path) -> None:
    write(tmp_path)
    (tmp_path / "images" / "train" / "b.tif").write_bytes(gdal_file(np.ones((3, 20, 50), np.float32)))
    assert read_boxes(str(tmp_path / "data.yaml")).train[1][1:3] == (20, 50)
