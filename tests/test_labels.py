from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rsir_core.archive import ImageFile
from rsir_core.errors import LabelError, StorageError
from rsir_core.labels import LabelledImage, folder_label, label_images, read_split, split_images, split_to_csv

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
    with pytest.raises(LabelError, match="--unseen c,d: no image is labelled d"):
        split_images(pairs, 0.5, 0, ["c", "d"])
    with pytest.raises(LabelError, match="--unseen a,b leaves fewer than 2"):
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
    with pytest.raises(LabelError, match=r"class c has 1 .*--unseen c"):
        split_images([*pairs, ("/c.jpg", "c")], 0.5, 0)
    with pytest.raises(LabelError, match="train-fraction"):
        split_images(pairs, 0.01, 0)
    with pytest.raises(LabelError, match="found 1 class"):
        label_images(FILES[:10], None)
