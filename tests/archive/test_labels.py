import unicodedata
from collections import Counter
from pathlib import Path
from typing import Literal

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rsir_core.archive.labels import LabelledImage, folder_label, label_images, read_split, split_images, split_to_csv
from rsir_core.archive.listing import ImageFile
from rsir_core.errors import LabelError, StorageError
from rsir_core.evaluation.labelled_rows import match

FILES = [ImageFile(f"{c}/{i}.jpg", f"/archive/{c}/{i}.jpg", "1", 1) for c in ("b", "a") for i in range(10)]


def test_labels_are_folder_names() -> None:
    assert folder_label("europe/beach/1.jpg") == "beach"
    assert label_images(FILES, None)[0] == ("/archive/a/0.jpg", "a")
    with pytest.raises(LabelError, match=r"1\.jpg"):
        folder_label("1.jpg")


def test_labels_from_a_csv_by_uri_or_image_id(tmp_path: Path) -> None:
    csv = tmp_path / "labels.csv"
    csv.write_text("uri,label\n/archive/a/0.jpg,x\nb/1.jpg,y\n")
    assert label_images(FILES, str(csv)) == [("/archive/a/0.jpg", "x"), ("/archive/b/1.jpg", "y")]
    csv.write_text("uri,label\na/0.jpg,x\nc/9.jpg,y\n")
    with pytest.raises(LabelError, match=r"1 rows .*c/9\.jpg"):
        label_images(FILES, str(csv))


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ("a/0.jpg,x\na/1.jpg, \n", "a/1.jpg has an empty label"),
        ("a/0.jpg,x\na/0.jpg,y\n", "a/0.jpg is labelled x and y"),
        ("/archive/a/0.jpg,x\na/0.jpg,y\n", "a/0.jpg is labelled x and y"),
    ],
)
def test_labels_that_contradict_each_other_are_refused(tmp_path: Path, rows: str, words: str) -> None:
    csv = tmp_path / "labels.csv"
    csv.write_text(f"uri,label\nb/1.jpg,y\n{rows}")
    with pytest.raises(LabelError, match=words):
        label_images(FILES, str(csv))
    csv.write_text("uri,label\nb/1.jpg,y\na/0.jpg,x\n/archive/a/0.jpg,x\n")
    assert label_images(FILES, str(csv)) == [("/archive/a/0.jpg", "x"), ("/archive/b/1.jpg", "y")]


@pytest.mark.parametrize("form", ["NFC", "NFD"])
def test_names_are_found_in_any_unicode_form(tmp_path: Path, form: Literal["NFC", "NFD"]) -> None:
    csv = tmp_path / "labels.csv"
    csv.write_text("uri,label\n" + unicodedata.normalize(form, "köln/ü.jpg,x\n/archive/é.jpg,y\n"), "utf-8")
    names = [unicodedata.normalize("NFD" if form == "NFC" else "NFC", name) for name in ("köln/ü.jpg", "é.jpg")]
    files = [ImageFile(name, f"/archive/{name}", "1", 1) for name in names]
    assert set(label_images(files, str(csv))) == {(files[0].uri, "x"), (files[1].uri, "y")}
    index = pa.table({"uri": [file.uri for file in files], "image_id": names})
    for before in ("/archive", "/Volumes/archive"):  # the one that was indexed, and its copy from a Mac
        written = [unicodedata.normalize(form, f"{before}/{name}") for name in names]
        assert match(written, index) == {written[0]: 0, written[1]: 1}


def test_the_exact_spelling_comes_first(tmp_path: Path) -> None:
    names = [unicodedata.normalize("NFC", "ü.jpg"), unicodedata.normalize("NFD", "ü.jpg")]
    files = [ImageFile(name, f"/archive/{name}", "1", 1) for name in names]
    csv = tmp_path / "labels.csv"
    csv.write_text(f"uri,label\n{names[1]},x\n{names[0]},y\n", "utf-8")
    assert dict(label_images(files, str(csv))) == {files[0].uri: "y", files[1].uri: "x"}
    one = pa.table({"uri": [files[0].uri], "image_id": names[:1]})
    with pytest.raises(LabelError, match=r"/\\xfc\.jpg' and '/archive/u\\u0308\.jpg'"):
        match([file.uri for file in files], one)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("uri,label\na,x\nb, c.jpg,y\n", r"labels\.csv:3: 'b, c\.jpg,y' has 3 fields, but the header .* has 2; put"),
        ("uri,label\n\n\na\n", r"labels\.csv:4: 'a' has 1 fields, but the header .* has 2; give every column"),
        ("uri,label,by\na,x,me\nb,y\n", r"labels\.csv:3: 'b,y' has 2 fields"),
        ('uri,label\n"a\nb",x\nc,x,y\n', r"labels\.csv:4: 'c,x,y' has 3 fields"),  # a name with a line break in it
        ('uri,label\na,"x\nb,y\nc,z\n', r"labels\.csv:2: cannot be read as CSV: .*quotation mark"),
        ('uri,label\n"a"b,x\n', r"labels\.csv:2: cannot be read as CSV: .*quotation mark"),
        ("uri,label\na,x\n,y\n", r"labels\.csv:3: uri is empty"),
        ("uri,label,label\na,x,y\n", "label is there 2 times; its first line is 'uri,label,label'"),
        ("uri;label\na;x\n", "columns uri,label, each once, but uri is there 0 times; its first line is 'uri;label'"),
        ("\n\n", "uri is there 0 times; its first line is ''"),
        ("", "uri is there 0 times; its first line is ''"),
        ("uri,label\n\n,\n", "there is only the header"),
    ],
)
def test_a_csv_that_cannot_be_is_refused_by_line(tmp_path: Path, text: str, message: str) -> None:
    csv = tmp_path / "labels.csv"
    csv.write_text(text)
    with pytest.raises(LabelError, match=message):
        label_images(FILES, str(csv))


@pytest.mark.parametrize(
    "text",
    [
        "\ufeffuri,label\r\na/0.jpg,x\r\nb/1.jpg,y\r\n",  # as Excel writes it
        "\ufeff\nuri,label\n\na/0.jpg,x\n  \nb/1.jpg,y\n\n",
        "uri,label,,\na/0.jpg,x,,\nb/1.jpg,y,,\n,,,\n",  # a table that somebody has deleted columns and rows of
        "by,uri , label\nme,a/0.jpg,x\nme,b/1.jpg, y\n",
        '"uri","label"\n"a/0.jpg","x"\n"b/1.jpg","y"',
    ],
)
def test_a_csv_as_tables_are_saved_is_read(tmp_path: Path, text: str) -> None:
    csv = tmp_path / "labels.csv"
    csv.write_text(text, "utf-8", newline="")
    assert label_images(FILES, str(csv)) == [("/archive/a/0.jpg", "x"), ("/archive/b/1.jpg", "y")]


def test_folders_of_one_name_are_one_class_and_that_is_said(caplog: pytest.LogCaptureFixture) -> None:
    ids = ["forest/2019/a.png", "river/2019/b.png", "river/2020/c.png"]
    files = [ImageFile(i, f"/archive/{i}", "1", 1) for i in ids]
    assert [label for _, label in label_images(files, None)] == ["2019", "2019", "2020"]
    assert "1 of 2 labels" in caplog.text and "forest/2019" in caplog.text and "river/2019" in caplog.text
    caplog.clear()
    label_images(FILES, None)
    assert not caplog.text


def test_split_is_stratified_and_follows_the_seed() -> None:
    pairs = label_images(FILES, None)
    one, again, other = (split_images(pairs, 0.5, seed) for seed in (0, 0, 1))
    assert one == again != other
    assert Counter((i.label, i.split) for i in one) == dict.fromkeys(
        [("a", "train"), ("a", "test"), ("b", "train"), ("b", "test")], 5
    )
    assert [(i.uri, i.label) for i in one] == pairs


@given(sizes=st.lists(st.integers(2, 30), min_size=2, max_size=6), fraction=st.floats(0.1, 0.9), seed=st.integers(0, 9))
def test_every_class_is_in_both_halves(sizes: list[int], fraction: float, seed: int) -> None:
    pairs = [(f"/{c}/{i}.jpg", str(c)) for c, size in enumerate(sizes) for i in range(size)]
    try:
        split = split_images(pairs, fraction, seed)
    except LabelError as error:  # fewer images than classes in one half: scikit-learn cannot draw
        assert "cannot split" in str(error)
        return
    assert {(image.label, image.split) for image in split} == {
        (str(c), half) for c in range(len(sizes)) for half in ("train", "test")
    }
    training = sum(image.split == "train" for image in split)
    assert abs(training - fraction * len(pairs)) <= len(sizes) + 1


def test_classes_that_are_not_to_be_seen_only_test() -> None:
    pairs = label_images([*FILES, *(ImageFile(f"c/{i}.jpg", f"/archive/c/{i}.jpg", "1", 1) for i in range(3))], None)
    split = split_images(pairs, 0.5, 0, ["c"])
    assert [image for image in split if image.label != "c"] == split_images(label_images(FILES, None), 0.5, 0)
    assert {image.split for image in split if image.label == "c"} == {"test"}
    with pytest.raises(LabelError, match=r"--unseen c,d.*\bd$"):
        split_images(pairs, 0.5, 0, ["c", "d"])
    with pytest.raises(LabelError, match=r"--unseen a,b.*2"):
        split_images(pairs, 0.5, 0, ["a", "b"])


def test_split_survives_its_file(tmp_path: Path) -> None:
    images = [LabelledImage('/a "b",c/1.jpg', "ä", "train"), LabelledImage("/d.jpg", "b", "test")]
    (tmp_path / "split.csv").write_text(split_to_csv(images), encoding="utf-8")
    assert read_split(str(tmp_path / "split.csv")) == images


def test_says_what_is_wrong(tmp_path: Path) -> None:
    csv = tmp_path / "split.csv"
    with pytest.raises(LabelError, match="cannot be read"):
        read_split(str(csv))
    with pytest.raises(StorageError, match="s4"):
        read_split("s4://bucket/split.csv")
    for line, words in (
        ("a,b ,test", None),
        ("a,b,train", "a has two rows: b, test and b, train; leave one out"),
        ("a,c,test", "b, test and c, test"),
        ("c,  ,test", "c has an empty label"),
    ):
        csv.write_text(f"uri,label,split\na,b,test\n{line}\n")
        if words is None:
            assert read_split(str(csv)) == [LabelledImage("a", "b", "test")]
            continue
        with pytest.raises(LabelError, match=words):
            read_split(str(csv))
    csv.write_text("uri,label\na,b\n")
    with pytest.raises(LabelError, match="uri,label,split"):
        read_split(str(csv))
    csv.write_text("uri,label,split\na,b,validation\n")
    with pytest.raises(LabelError, match="validation"):
        read_split(str(csv))
    pairs = label_images(FILES, None)
    with pytest.raises(LabelError, match="between 0 and 1"):
        split_images(pairs, 1.0, 0)
    with pytest.raises(LabelError, match=r"single image: c, d d; .*--unseen 'c,d d'"):
        split_images([*pairs, ("/c.jpg", "c"), ("/d.jpg", "d d")], 0.5, 0)
    with pytest.raises(LabelError, match=r"single image: d d; .*--unseen 'c,d d'"):
        split_images([*pairs, ("/c.jpg", "c"), ("/d.jpg", "d d")], 0.5, 0, ["c"])
    with pytest.raises(LabelError, match="train-fraction"):
        split_images(pairs, 0.01, 0)
    with pytest.raises(LabelError, match="found 1 class"):
        label_images(FILES[:10], None)
