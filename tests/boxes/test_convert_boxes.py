import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal
from unicodedata import normalize

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from jobs.boxes.options import ConvertBoxesConfig
from jobs.convert_boxes import convert_boxes
from rsir_core.boxes.data import BoxedImage, read_boxes
from rsir_core.errors import ConfigError, LabelError
from rsir_core.models.regions import Box

ROOT = Path(__file__).parents[2]
NWPU = ROOT.parent / "shared" / "data" / "nwpu_vhr10"
ODD = ROOT.parent / "shared" / "data" / "odd_inputs"
NAMES = ["tank", "ship"]
WIDTH, HEIGHT = 60, 40
Object = tuple[int, Box]  # position among the names; pixels
Objects = Mapping[str, Sequence[Object]]  # by the image's name without ending


def yolo(objects: Sequence[Object]) -> str:
    def line(place: int, b: Box) -> str:
        x, y = b.centre
        return f"{place} {x / WIDTH!r} {y / HEIGHT!r} {(b.x1 - b.x0) / WIDTH!r} {(b.y1 - b.y0) / HEIGHT!r}\n"

    return "".join(line(*found) for found in objects)


def voc(objects: Sequence[Object]) -> str:
    entries = (
        f"<object><name>{NAMES[place]}</name><difficult>{place}</difficult><bndbox>"
        + "".join(f"<{tag}>{v!r}</{tag}>" for tag, v in zip(("xmin", "ymin", "xmax", "ymax"), b, strict=True))
        + "</bndbox></object>"
        for place, b in objects
    )
    size = f"<size><width>{WIDTH}</width><height>{HEIGHT}</height><depth>3</depth></size>"
    return f"<annotation>{size}{''.join(entries)}</annotation>"


def dota(objects: Sequence[Object]) -> str:
    """The middles of the box's sides: a quadrilateral that the box is around."""
    lines = [
        " ".join(map(repr, (x, b.y0, b.x1, y, x, b.y1, b.x0, y))) + f" {NAMES[place]} {place}\n"
        for place, b in objects
        for x, y in [b.centre]
    ]
    return "imagesource:GoogleEarth\ngsd:0.5\n" + "".join(lines)


def nwpu(objects: Sequence[Object]) -> str:
    return "".join(
        f"( {round(b.x0)},{round(b.y0)}),({round(b.x1)},{round(b.y1)}),{place + 1} \r\n" for place, b in objects
    )


def coco(objects: Objects) -> dict[str, Any]:
    found = [(i, place, b) for i, members in enumerate(objects.values()) for place, b in members]
    return {
        "images": [
            {"id": 10 + i, "file_name": f"{n}.png", "height": HEIGHT, "width": WIDTH} for i, n in enumerate(objects)
        ],
        "categories": [{"id": 7, "name": "ship"}, {"id": 3, "name": "tank"}],
        "annotations": [
            {"id": n, "image_id": 10 + i, "category_id": (3, 7)[place], "bbox": [b.x0, b.y0, b.x1 - b.x0, b.y1 - b.y0]}
            for n, (i, place, b) in enumerate(found)
        ],
    }


TEXTS: dict[str, tuple[str, Callable[[Sequence[Object]], str]]] = {
    "yolo": (".txt", yolo),
    "voc": (".xml", voc),
    "dota": (".txt", dota),
    "nwpu": (".txt", nwpu),
}
FORMATS = [*TEXTS, "coco"]
BOX = Box(10.0, 5.0, 30.0, 20.0)


def write(folder: Path, form: str, objects: Objects) -> ConvertBoxesConfig:
    """Images and boxes of one format, and how to convert them."""
    for name in objects:
        (folder / "images" / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (WIDTH, HEIGHT)).save(folder / "images" / f"{name}.png")
    boxes = folder / ("boxes.json" if form == "coco" else "boxes")
    if form == "coco":
        boxes.write_text(json.dumps(coco(objects)))
    else:
        ending, text = TEXTS[form]
        for name, members in objects.items():
            (boxes / name).parent.mkdir(parents=True, exist_ok=True)
            (boxes / (name + ending)).write_text(text(members))
    places = {"format": form, "images": str(folder / "images"), "boxes": str(boxes), "out": str(folder / "out")}
    return ConvertBoxesConfig(**places, classes="tank,ship", val_fraction=0.5)


def converted(config: ConvertBoxesConfig) -> dict[str, BoxedImage]:
    data = read_boxes(str(convert_boxes(config)["data"]))
    assert data.names == tuple(NAMES)
    return {Path(image.file).stem: image for image in (*data.train, *data.val, *data.test)}


def changed(config: ConvertBoxesConfig, **values: Any) -> ConvertBoxesConfig:
    return ConvertBoxesConfig(**{**config.model_dump(), **values})


def edges(span: int) -> st.SearchStrategy[tuple[float, float]]:
    """Two edges along a side of `span` pixels, at least a pixel apart."""
    return (
        st.tuples(st.floats(0, span), st.floats(0, span))
        .map(lambda e: (min(e), max(e)))
        .filter(lambda e: e[1] - e[0] > 2)
    )


OBJECTS = st.lists(
    st.builds(lambda place, x, y: (place, Box(x[0], y[0], x[1], y[1])), st.integers(0, 1), edges(WIDTH), edges(HEIGHT)),
    min_size=1,
    max_size=5,
)


@pytest.mark.parametrize("form", FORMATS)
@given(first=OBJECTS, second=OBJECTS)
@settings(max_examples=8)
def test_boxes_come_through_every_format(form: str, first: list[Object], second: list[Object]) -> None:
    rounding = 1.0 if form == "nwpu" else 1e-4  # pixels
    with tempfile.TemporaryDirectory() as folder:
        objects = {"a": first, "b": second}
        found = converted(changed(write(Path(folder), form, objects), test_fraction=0.0))
        for name, members in objects.items():
            image = found[name]
            assert (image.height, image.width) == (HEIGHT, WIDTH)
            x, y, w, h = (image.boxes * [WIDTH, HEIGHT, WIDTH, HEIGHT]).T
            rows = {
                (int(c), *r)
                for (c,), r in zip(
                    image.classes, zip(x - w / 2, y - h / 2, x + w / 2, y + h / 2, strict=True), strict=True
                )
            }
            for place, box in members:
                assert any(p == place and np.allclose(edge, box, rtol=0, atol=rounding) for p, *edge in rows)
            for p, *edge in rows:
                assert any(p == place and np.allclose(edge, box, rtol=0, atol=rounding) for place, box in members)


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize(
    ("box", "message", "clipped"),
    [
        (
            Box(10, 5, 75, 20),
            "10,5 to 75,20 of 'tank' reaches outside its image of 60×40 pixels.*--clip",
            [10, 5, 60, 20],
        ),
        (Box(60, 5, 75, 20), "60,5 to 75,20 of 'tank' is empty or outside its image of 60×40", None),
        (Box(10, 5, 10, 20), "empty or outside", None),
        (Box(20, 5, 10, 20), "empty or outside", None),
    ],
)
def test_a_box_outside_its_image(
    tmp_path: Path, form: str, box: Box, message: str, clipped: list[float] | None
) -> None:
    if form == "dota" and box.x1 < box.x0:
        pytest.skip("a quadrilateral has no wrong order")
    config = write(tmp_path, form, {"a": [(1, BOX), (0, box)], "b": [(1, BOX)]})
    line = {"voc": r"a\.xml: object 2", "coco": r"boxes\.json: annotation 1", "dota": r"a\.txt:4"}.get(
        form, r"a\.txt:2"
    )
    with pytest.raises(LabelError, match=f"{line}: .*{message}"):
        convert_boxes(config)
    assert not Path(config.out).exists()
    clip = changed(config, clip=True)
    if clipped is None:
        with pytest.raises(LabelError, match=message):
            convert_boxes(clip)
    else:
        x, y, w, h = converted(clip)["a"].boxes[1] * [WIDTH, HEIGHT, WIDTH, HEIGHT]
        assert np.allclose([x - w / 2, y - h / 2, x + w / 2, y + h / 2], clipped, atol=1e-4)


@pytest.mark.parametrize("form", FORMATS)
def test_a_class_that_is_not_known(tmp_path: Path, form: str) -> None:
    config = write(tmp_path, form, {"a": [(0, BOX), (1, BOX)], "b": [(0, BOX)]})
    named = "'ship' is not among tank" if form in ("voc", "coco", "dota") else "is not among the 1 names"
    with pytest.raises(LabelError, match=rf"(a\.txt|a\.xml|boxes\.json).*class .*{named}"):
        convert_boxes(changed(config, classes="tank"))
    if form in ("voc", "coco", "dota"):
        names = changed(config, classes=None)  # those of the boxes; COCO in the order of its ids
        expected = ("tank", "ship") if form == "coco" else ("ship", "tank")
        assert read_boxes(convert_boxes(names)["data"]).names == expected


def test_what_the_index_lists_is_converted(tmp_path: Path) -> None:
    config = write(tmp_path, "yolo", {"a": [(0, BOX)], "b": [(1, BOX)]})
    Image.new("RGB", (WIDTH, HEIGHT)).save(Path(config.images) / "a.jpg")
    (Path(config.images) / "a.jpg").rename(Path(config.images) / "a.jfif")
    (Path(config.images) / "a.png").unlink()
    assert set(converted(config)) == {"a", "b"}


def test_an_image_on_a_pixels_edge_is_cut_off(tmp_path: Path) -> None:
    """Formats count from 0 or 1."""
    config = write(tmp_path, "voc", {"a": [(0, Box(-1, 0, WIDTH + 0.5, 20))], "b": [(1, BOX)]})
    assert converted(config)["a"].boxes.tolist() == [[0.5, 0.25, 1.0, 0.5]]


def test_difficult_objects(tmp_path: Path) -> None:
    for form in ("voc", "dota"):
        config = write(tmp_path / form, form, {"a": [(0, BOX), (1, BOX)], "b": [(0, BOX)]})
        summary = convert_boxes(config)
        assert (summary["difficult"], summary["train_boxes"] + summary["val_boxes"]) == (1, 3)
        shutil.rmtree(config.out)
        summary = convert_boxes(changed(config, difficult="drop"))
        assert (summary["difficult"], summary["train_boxes"] + summary["val_boxes"]) == (1, 2)


def test_places_and_seed(tmp_path: Path) -> None:
    names = [f"{n:02}" for n in range(20)]
    config = changed(write(tmp_path, "yolo", {n: [(0, BOX)] for n in names}), val_fraction=0.1)

    def split(**values: Any) -> list[list[str]]:
        shutil.rmtree(config.out, ignore_errors=True)
        data = read_boxes(convert_boxes(changed(config, **values))["data"])
        return [[Path(image.file).stem for image in s] for s in (data.train, data.val, data.test)]

    drawn = split()
    assert [len(s) for s in drawn] == [16, 2, 2] and sorted(n for s in drawn for n in s) == names
    assert split() == drawn != split(seed=1)
    assert [len(s) for s in split(test_fraction=0.0)] == [18, 2, 0]
    listed = tmp_path / "test.txt"
    listed.write_text("00\n./images/01.png\n\nelsewhere/02\n")
    train, val, test = split(test=str(listed))
    assert test == ["00", "01", "02"] and len(val) == 2 and sorted(train + val) == names[3:]
    other = tmp_path / "val.txt"
    other.write_text("03\n")
    assert split(val=str(other)) == [[n for n in names if n != "03"], ["03"], []]
    assert split(train=str(other), val=str(listed)) == [["03"], ["00", "01", "02"], []]
    other.write_text("03\n00\n")
    with pytest.raises(LabelError, match=r"00\.png.*--val.*--test"):
        split(test=str(listed), val=str(other))
    other.write_text("03\nnone\n")
    with pytest.raises(LabelError, match=r"val\.txt:2: none"):
        split(val=str(other))


def test_images_of_one_name_do_not_get_each_others_labels(tmp_path: Path) -> None:
    config = write(tmp_path, "yolo", {"a": [(0, BOX)], "b": [(1, BOX)], "c": [(0, BOX)]})
    images = Path(config.images)
    (images / "background").mkdir()
    shutil.copy(images / "a.png", images / "background" / "a.png")
    with pytest.raises(LabelError, match=r"a\.txt.*a\.png.*background/a\.png"):
        convert_boxes(config)
    (Path(config.boxes) / "background").mkdir()
    (Path(config.boxes) / "background" / "a.txt").touch()
    assert convert_boxes(config)["images_without_boxes"] == 1


def test_labels_may_lie_in_folders_where_each_image_has_its_own(tmp_path: Path) -> None:
    config = write(tmp_path, "yolo", {name: [(0, BOX)] for name in "abcd"})
    for folder, names in (("train", "bcd"), ("val", "a")):
        (Path(config.boxes) / folder).mkdir()
        for name in names:
            shutil.move(Path(config.boxes) / f"{name}.txt", Path(config.boxes) / folder)
    assert convert_boxes(config)["images_without_boxes"] == 0
    (Path(config.boxes) / "train" / "b.txt").unlink()
    with pytest.raises(LabelError, match="two folders"):
        convert_boxes(changed(config, out=f"{config.out}2"))


def test_coco_images_are_one_file_each(tmp_path: Path) -> None:
    config = write(tmp_path, "coco", {"a": [(0, BOX)], "b": [(0, BOX)]})
    content = coco({"a": [(0, BOX)], "b": [(0, BOX)]})
    content["images"][1]["file_name"] = "elsewhere/a.png"
    Path(config.boxes).write_text(json.dumps(content))
    with pytest.raises(LabelError, match=r"a\.png and elsewhere/a\.png.*a\.png"):
        convert_boxes(config)
    for name, key in (("images", 11), ("categories", 7)):
        content = coco({"a": [(0, BOX)], "b": [(0, BOX)], "c": []})
        content[name][-1]["id"] = key
        Path(config.boxes).write_text(json.dumps(content))
        with pytest.raises(LabelError, match=f"{name} .*{key}"):
            convert_boxes(config)


def test_a_quadrilateral_is_cut_before_it_is_boxed(tmp_path: Path) -> None:
    """Of one that leans over the edge, what is inside lies in a part of its upright box."""
    config = write(tmp_path, "dota", {"a": [(0, BOX)], "b": [(0, BOX)]})
    (Path(config.boxes) / "a.txt").write_text("-30 20 10 0 20 10 -20 30 tank 0\n")
    with pytest.raises(LabelError, match="reaches outside its image"):
        convert_boxes(config)
    (x, y, width, height), *_ = converted(changed(config, clip=True))["a"].boxes.tolist()
    assert (x - width / 2, y - height / 2) == pytest.approx((0, 0), abs=1e-5)
    assert (x + width / 2) * WIDTH == pytest.approx(20, abs=1e-3) and (y + height / 2) * HEIGHT == pytest.approx(20)


def test_what_is_left_of_a_box_must_be_something(tmp_path: Path) -> None:
    narrow = Box(10, 10, 10.4, 30)  # as somebody has marked it
    config = write(tmp_path, "coco", {"a": [(0, Box(-50, 10, 0.0003, 40)), (1, narrow)], "b": [(0, BOX)]})
    done = convert_boxes(changed(config, clip=True))
    assert done["slivers"] == 1 and done["train_boxes"] + done["val_boxes"] == 2


@pytest.mark.parametrize("option", ["images", "boxes", "out"])
def test_boxes_are_of_this_machine(tmp_path: Path, option: str) -> None:
    config = write(tmp_path, "yolo", {"a": [(0, BOX)], "b": [(0, BOX)]})
    with pytest.raises(ConfigError, match=f"--{option} s3://bucket/x"):
        convert_boxes(changed(config, **{option: "s3://bucket/x"}))


def test_folders_are_places_and_labels_are_found_beside(tmp_path: Path) -> None:
    """As DOTA comes: train/images, train/labelTxt; COCO: a file per split."""
    config = write(tmp_path / "parts", "dota", {"a": [(0, BOX)], "b": [(1, BOX)]})
    for split, name in (("train", "a"), ("val", "b")):
        for folder, file, into in (("images", f"{name}.png", "images"), ("boxes", f"{name}.txt", "labelTxt")):
            target = tmp_path / "dota" / split / into
            target.mkdir(parents=True)
            (tmp_path / "parts" / folder / file).rename(target / file)
    root = tmp_path / "dota"
    places = {split: str(root / split) for split in ("train", "val")}
    data = read_boxes(convert_boxes(changed(config, images=str(root), boxes=str(root), **places))["data"])
    assert [(Path(i.file).stem, i.classes.tolist()) for i in (*data.train, *data.val)] == [
        ("a", [[0.0]]),
        ("b", [[1.0]]),
    ]
    assert Path(data.train[0].file).is_symlink()

    config = write(tmp_path / "coco", "coco", {"a": [(0, BOX)], "b": [(1, BOX)]})
    files = {split: tmp_path / "coco" / f"{split}.json" for split in ("train", "val")}
    for listing, name in zip(files.values(), ("a", "b"), strict=True):
        listing.write_text(json.dumps(coco({name: [(0, BOX)]})))
    given = {split: str(listing) for split, listing in files.items()}
    data = read_boxes(convert_boxes(changed(config, boxes=",".join(given.values()), **given))["data"])
    assert [Path(i.file).stem for i in (*data.train, *data.val)] == ["a", "b"]


@pytest.mark.parametrize(
    ("form", "text", "message"),
    [
        ("yolo", "0 0.5 0.5", "neither"),
        ("dota", "1 2 3 4 5 6 7 tank 0", "is not `x1 y1"),
        ("dota", "1 2 3 4 5 6 7 8 tank 7", "is not `x1 y1"),
        ("nwpu", "(1,2),(3,4)", "is not `"),
        ("nwpu", "(1,2),(3,4),0", "class 0 is not among"),
        ("voc", "<annotation><object>", "cannot be read as XML"),
        ("voc", "<annotation><object><name>tank</name></object></annotation>", "object 1.*needs `name` and `bndbox`"),
        ("voc", voc([(0, BOX)]).replace(">60<", ">600<"), "an image of 600×40 pixels, but it has 60×40"),
        ("voc", '<!DOCTYPE a [<!ENTITY x SYSTEM "file:///etc/hostname">]><annotation>&x;</annotation>', "DOCTYPE"),
        ("voc", '<!DOCTYPE a [<!ENTITY b "bb"><!ENTITY c "&b;&b;">]><annotation>&c;</annotation>', "DOCTYPE"),
        ("coco", "{", "cannot be read as JSON"),
        ("coco", "[]", "needs the lists"),
    ],
)
def test_what_a_format_does_not_allow(tmp_path: Path, form: str, text: str, message: str) -> None:
    config = write(tmp_path, form, {"a": [(0, BOX)], "b": [(0, BOX)]})
    file = Path(config.boxes) if form == "coco" else Path(config.boxes) / f"a{TEXTS[form][0]}"
    file.write_text(text)
    with pytest.raises(LabelError, match=rf"{file.name}.*{message}"):
        convert_boxes(config)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"bbox": [1, 2, 3]}, "annotation 0: .*has no `bbox`"),
        ({"bbox": ["a", 2, 3, 4]}, "annotation 0: .*has no `bbox`"),
        ({"image_id": 1}, "annotation 0: image_id 1 is not in the file"),
        ({"category_id": None}, "annotation 0: category_id None is not in the file"),
        ({"image_id": [1]}, r"annotation 0: image_id \[1\] is not in the file"),
    ],
)
def test_coco_entries_that_cannot_be(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    config = write(tmp_path, "coco", {"a": [(0, BOX)], "b": [(0, BOX)]})
    content = coco({"a": [(0, BOX)], "b": [(0, BOX)]})
    content["annotations"][0].update(change)
    Path(config.boxes).write_text(json.dumps(content))
    with pytest.raises(LabelError, match=message):
        convert_boxes(config)


@pytest.mark.parametrize("form", FORMATS)
def test_hidden_files_are_left_out(tmp_path: Path, form: str) -> None:
    objects = {"a": [(0, BOX)], "b": [(1, BOX)]}
    hidden = ("._a", ".ipynb_checkpoints/a-checkpoint", "__MACOSX/._b", "__MACOSX/c")
    config = write(tmp_path, form, objects)
    listed = tmp_path / "val.txt"
    lines = ["a.png", *(f"{name}.png" for name in hidden), *(f"{config.images}/{name}.png" for name in hidden)]
    listed.write_text("\n".join(lines))
    for name in hidden:
        (Path(config.images) / name).parent.mkdir(exist_ok=True)
        (Path(config.images) / f"{name}.png").write_bytes(b"no image")
        if form != "coco":
            ending, text = TEXTS[form]
            (Path(config.boxes) / name).parent.mkdir(exist_ok=True)
            (Path(config.boxes) / f"{name}{ending}").write_text(text([(0, BOX)]))
    if form == "coco":
        Path(config.boxes).write_text(json.dumps(coco({**objects, **{name: [(0, BOX)] for name in hidden}})))
    done = convert_boxes(changed(config, val=str(listed)))
    assert (done["train_images"], done["val_images"], done["images_left_out"], done["unmatched_labels"]) == (1, 1, 0, 0)
    assert {Path(i.file).stem for i in (*read_boxes(done["data"]).train, *read_boxes(done["data"]).val)} == {"a", "b"}


def test_a_list_must_name_images_though_they_lie_in_a_hidden_folder(tmp_path: Path) -> None:
    config = write(tmp_path / ".cache", "yolo", {"a": [(0, BOX)], "b": [(1, BOX)]})
    listed = tmp_path / "val.txt"
    listed.write_text(f"{config.images}/a.png\n")
    assert convert_boxes(changed(config, val=str(listed)))["val_images"] == 1
    for missing in (f"{config.images}/c.png", "/home/.cache/c.png", "../c.png"):
        listed.write_text(f"{missing}\n")
        with pytest.raises(LabelError, match=r"val\.txt:1: .*c\.png"):
            convert_boxes(changed(config, val=str(listed)))


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("image", ["NFC", "NFD"])
def test_names_of_any_unicode_form_are_matched(tmp_path: Path, form: str, image: Literal["NFC", "NFD"]) -> None:
    label: Literal["NFC", "NFD"] = "NFD" if image == "NFC" else "NFC"
    config = write(tmp_path, form, {normalize(label, "Köln/ü"): [(0, BOX)], "b": [(1, BOX)]})
    file, other = (Path(config.images) / normalize(f, "Köln/ü.png") for f in (image, label))
    file.parent.mkdir()
    other.rename(file)
    other.parent.rmdir()
    listed = tmp_path / "val.txt"
    listed.write_text(normalize(label, "Köln/ü.png"), "utf-8")
    done = convert_boxes(changed(config, val=str(listed)))
    assert (done["val_images"], done["val_boxes"], done["images_without_boxes"]) == (1, 1, 0)


@pytest.mark.parametrize("form", ["voc", "dota", "coco"])
def test_a_class_has_one_name_in_any_unicode_form(tmp_path: Path, form: str) -> None:
    config = write(tmp_path, form, {name: [(0, BOX), (1, BOX)] for name in "ab"})
    files = [Path(config.boxes)] if form == "coco" else sorted(Path(config.boxes).iterdir())
    for file, unicode_form in zip(files, ("NFC", "NFD"), strict=False):
        text = file.read_text().replace("tank", normalize("NFC" if unicode_form == "NFC" else "NFD", "Öltank"))
        file.write_text(text, "utf-8")
    names = read_boxes(convert_boxes(changed(config, classes=None))["data"]).names
    assert set(names) == {"ship", normalize("NFC", "Öltank")}
    shutil.rmtree(config.out)
    given = normalize("NFD", "Öltank,ship")
    assert convert_boxes(changed(config, classes=given))["classes"] == 2


@pytest.mark.parametrize("form", FORMATS)
def test_the_case_of_an_ending_does_not_matter(tmp_path: Path, form: str) -> None:
    config = write(tmp_path, form, {"a": [(0, BOX)], "v1.Tank": [(1, BOX)]})
    for name in ("a", "v1.Tank"):
        (Path(config.images) / f"{name}.png").rename(Path(config.images) / f"{name}.PNG")
        if form != "coco":
            file = Path(config.boxes) / (name + TEXTS[form][0])
            file.rename(file.with_suffix(file.suffix.upper()))
    listed = tmp_path / "val.txt"
    listed.write_text("a.png")
    done = convert_boxes(changed(config, val=str(listed)))
    assert (done["val_images"], done["val_boxes"], done["train_boxes"], done["images_without_boxes"]) == (1, 1, 1, 0)
    for other in ("A.png", "v1.tank"):  # that of a name does: they may be two images
        listed.write_text(other)
        with pytest.raises(LabelError, match="is no image"):
            convert_boxes(changed(config, val=str(listed)))


@pytest.mark.parametrize("form", TEXTS)
def test_label_files_of_no_image_are_refused_by_name(tmp_path: Path, form: str) -> None:
    config = write(tmp_path, form, {name: [(0, BOX), (1, BOX)] for name in "abcdef"})
    ending = TEXTS[form][0]
    beside = {
        "classes.txt": "tank\nship\n",
        "train.txt": "./images/a.png\n",
        "val.txt": "".join(f"{number:03}\n" for number in range(20)),
        "empty" + ending: "",
        "a.tif.aux.xml": "<PAMDataset></PAMDataset>",
    }
    for name, text in beside.items():
        (Path(config.boxes) / name).write_text(text)
    assert convert_boxes(config)["unmatched_labels"] == 0
    shutil.rmtree(config.out)
    (Path(config.boxes) / f"a{ending}").rename(Path(config.boxes) / f"A{ending}")
    with pytest.raises(LabelError, match=rf"^1 of \d+ .*A{ending}.*a\.png.*--unmatched"):
        convert_boxes(config)
    done = convert_boxes(changed(config, unmatched="drop"))
    assert (done["unmatched_labels"], done["images_without_boxes"]) == (1, 1)


def test_labels_of_images_in_no_split_are_of_an_image(tmp_path: Path) -> None:
    config = write(tmp_path, "yolo", {name: [(0, BOX)] for name in "abcd"})
    places = {}
    for split, name in (("train", "a"), ("val", "b")):
        (tmp_path / f"{split}.txt").write_text(name)
        places[split] = str(tmp_path / f"{split}.txt")
    done = convert_boxes(changed(config, **places))
    assert (done["images_left_out"], done["unmatched_labels"]) == (2, 0)


def test_coco_images_that_are_not_there(tmp_path: Path) -> None:
    config = write(tmp_path, "coco", {name: [(0, BOX)] for name in "abc"})
    (Path(config.images) / "c.png").unlink()
    with pytest.raises(LabelError, match=r"^1 .*c\.png.*boxes\.json.*images"):
        convert_boxes(config)
    assert convert_boxes(changed(config, unmatched="drop"))["unmatched_labels"] == 1
    (Path(config.images) / "a.png").rename(Path(config.images) / "x.png")
    (Path(config.images) / "b.png").unlink()
    with pytest.raises(LabelError, match=r"^3 .*a\.png"):
        convert_boxes(changed(config, unmatched="drop"))


def test_a_name_without_its_ending_is_not_guessed(tmp_path: Path) -> None:
    config = write(tmp_path, "yolo", {name: [(0, BOX)] for name in "abc"})
    Image.new("RGB", (WIDTH, HEIGHT)).save(tmp_path / "images" / "a.jpg")
    (tmp_path / "val.txt").write_text("a")
    with pytest.raises(LabelError, match=r"val\.txt:1: a .*a\.jpg.*a\.png"):
        convert_boxes(changed(config, val=str(tmp_path / "val.txt")))


def edited(content: Any, kind: type, change: Callable[[Any], Any]) -> Any:
    """JSON with every id of one type changed."""
    if isinstance(content, list):
        return [edited(entry, kind, change) for entry in content]
    if isinstance(content, dict):
        return {
            k: change(v) if k in ("id", "image_id", "category_id") and isinstance(v, kind) else edited(v, kind, change)
            for k, v in content.items()
        }
    return content


@pytest.mark.parametrize(
    "change",
    [
        lambda content: edited(content, int, float),
        lambda content: edited(content, int, str),
        lambda content: {**content, "images": edited(content["images"], int, float)},  # pandas, where an id is missing
        lambda content: {**content, "annotations": [{**a, "iscrowd": "0"} for a in content["annotations"]]},
        lambda content: {**content, "annotations": [{**a, "iscrowd": None} for a in content["annotations"]]},
        lambda content: {
            **content, "annotations": [{**a, "bbox": list(map(str, a["bbox"]))} for a in content["annotations"]]
        },
        lambda content: {
            **content, "images": [{**i, "width": float(WIDTH), "height": str(HEIGHT)} for i in content["images"]]
        },
        lambda content: {**content, "categories": [*content["categories"], {"id": "9", "name": "road"}]},
    ],
)  # fmt: skip
def test_coco_files_as_pycocotools_reads_them(tmp_path: Path, change: Callable[[Any], Any]) -> None:
    config = changed(write(tmp_path, "coco", {"a": [(0, BOX)], "b": [(1, BOX)]}), classes=None)
    Path(config.boxes).write_text(json.dumps(change(json.loads(Path(config.boxes).read_text()))))
    data = read_boxes(convert_boxes(config)["data"])
    assert data.names[:2] == ("tank", "ship")  # numbers in their order, then texts
    found = {Path(image.file).stem: image.classes.tolist() for image in (*data.train, *data.val)}
    assert found == {"a": [[0.0]], "b": [[1.0]]}


@pytest.mark.parametrize(
    ("kind", "entry", "message"),
    [
        ("images", "a.png", r"entry number 0 \(from 0\) of `images`, a\.png, has no `id`"),
        ("images", {"id": None, "file_name": "a.png"}, "entry number 0 .* has no `id` that is a number or a text"),
        ("images", {"id": [10], "file_name": "a.png"}, "entry number 0 .* has no `id`"),
        ("images", {"id": 10}, "entry number 0 .* has no `file_name`"),
        ("images", {"id": 11.0, "file_name": "a.png"}, "two of its images have the id 11"),
        ("categories", {"id": 7, "name": None}, "entry number 0 .* of `categories`.* has no `name`"),
        ("annotations", "a", "annotation number 0, a, is no JSON object"),
        ("annotations", {"image_id": 10, "category_id": 3, "bbox": None}, "annotation number 0: .*has no `bbox`"),
        ("annotations", {"image_id": "10", "category_id": 3, "bbox": [1, 1, 9, 9]},
         "annotation number 0: image_id '10' is not in the file, but 10 is; write all ids as numbers"),
        ("annotations", {"image_id": 10, "category_id": "3", "bbox": [1, 1, 9, 9]},
         "annotation number 0: category_id '3' is not in the file, but 3 is"),
        ("annotations", {"image_id": float("nan"), "category_id": 3, "bbox": [1, 1, 9, 9]}, "image_id nan is not in"),
        ("annotations", {"image_id": 10, "category_id": 3, "bbox": [1, 1, 9, 9], "iscrowd": "no"}, "iscrowd is 'no'"),
    ],
)  # fmt: skip
def test_coco_entries_are_named(tmp_path: Path, kind: str, entry: Any, message: str) -> None:
    config = write(tmp_path, "coco", {"a": [(0, BOX)], "b": [(0, BOX)]})
    content = json.loads(Path(config.boxes).read_text())
    content[kind][0] = entry
    Path(config.boxes).write_text(json.dumps(content))
    with pytest.raises(LabelError, match=rf"boxes\.json: .*{message}"):
        convert_boxes(config)


@pytest.mark.skipif(not ODD.is_dir(), reason="the odd inputs are not beside this repository")
@pytest.mark.parametrize(
    ("form", "folder", "boxes", "classes"),
    [
        ("voc", "04_labels_not_found_silently/upper", "boxes", ("roof",)),
        ("coco", "15_coco_ids", "floats.json", ("roof",)),
        ("coco", "15_coco_ids", "mixed.json", ("roof", "road")),
    ],
)
def test_odd_sets_keep_all_their_boxes(
    tmp_path: Path, form: Literal["voc", "coco"], folder: str, boxes: str, classes: tuple[str, ...]
) -> None:
    out = str(tmp_path / "out")
    config = ConvertBoxesConfig(
        format=form, images=str(ODD / folder / "images"), boxes=str(ODD / folder / boxes), out=out, val_fraction=0.25
    )
    done = convert_boxes(config)
    assert sum(done[f"{split}_boxes"] for split in ("train", "val", "test")) == 4
    assert (done["images_without_boxes"], read_boxes(done["data"]).names) == (0, classes)


def test_images_that_differ_in_their_endings_only(tmp_path: Path) -> None:
    config = write(tmp_path, "yolo", {"a": [(0, BOX)], "b": [(0, BOX)]})
    Image.new("RGB", (WIDTH, HEIGHT)).save(tmp_path / "images" / "a.jpg")
    with pytest.raises(LabelError, match=r"a\.(png|jpg) and a\.(png|jpg)"):
        convert_boxes(config)
    assert {p.name for p in tmp_path.iterdir()} == {"images", "boxes"}  # nothing half-written


def test_names_may_be_longer_than_a_files_name(tmp_path: Path) -> None:
    config = write(tmp_path, "yolo", {"a": [(0, BOX)], "b": [(1, BOX)]})
    names = ["ship", "plane", *(f"class number {i}" for i in range(80))]
    assert read_boxes(convert_boxes(changed(config, classes=",".join(names)))["data"]).names == tuple(names)


def test_usage(tmp_path: Path) -> None:
    config = write(tmp_path, "yolo", {"a": [(0, BOX)], "b": [(0, BOX)]})
    for change, message in (
        ({"classes": None}, "--classes is missing"),
        ({"classes": "a,a"}, "name each class once"),
        ({"val_fraction": 1.0}, "--val-fraction is 1.0"),
        ({"images": str(tmp_path / "none")}, "there is no file"),
        ({"test": "none.txt"}, r"--test none\.txt cannot be read"),
        ({"out": str(tmp_path / "boxes")}, "exists already"),
    ):
        with pytest.raises(ConfigError, match=message):
            convert_boxes(changed(config, **change))
    for file in Path(config.boxes).iterdir():
        file.rename(file.with_stem(file.stem + "x"))
    with pytest.raises(LabelError, match="no image has a label file"):
        convert_boxes(config)


@pytest.mark.slow
@pytest.mark.skipif(not NWPU.is_dir(), reason="NWPU VHR-10 is not beside this repository")
def test_the_command_on_real_boxes(tmp_path: Path) -> None:
    flags = {
        "images": NWPU / "positive_image_set",
        "boxes": NWPU / "ground_truth",
        "train": NWPU / "image_set" / "train.txt",
        "test": NWPU / "image_set" / "test.txt",
        "out": tmp_path / "out",
    }
    command = [sys.executable, "-m", "jobs.convert_boxes", "--json", "--format", "nwpu"]
    command += [f"--{name}={value}" for name, value in flags.items()]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    summary = json.loads(done.stdout)
    assert [summary[f"{split}_images"] for split in ("train", "val", "test")] == [409, 45, 196]
    assert sum(summary[f"{split}_boxes"] for split in ("train", "val", "test")) == 3896  # as its readme says
    assert len(read_boxes(summary["data"]).test) == 196
    again = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert again.returncode == 2 and again.stderr.splitlines()[-1].startswith("convert_boxes: --out")
