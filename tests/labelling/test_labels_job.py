"""Labels at the terminal and from Python, and the way from there to a training."""

import json
from pathlib import Path

import pytest
from deltalake import DeltaTable

import rsir_core as rsir
from jobs import rsir as command
from rsir_core.archive.labels import label_images
from rsir_core.archive.listing import list_images
from rsir_core.errors import QueryError
from rsir_core.index.index import Index
from tests.support.serving import ONE, copy_of

OTHER = "river/river000.jpg"


@pytest.fixture
def labelled(index: str, tmp_path: Path) -> Index:
    copy = copy_of(index, tmp_path / "index")
    tanks = rsir.open(copy.uri).collection("storage tanks")
    tanks.label({ONE: "good", OTHER: "bad"}, by="alice")
    return copy


def test_labels_from_python(labelled: Index, tmp_path: Path) -> None:
    index = rsir.open(labelled.uri)
    tanks = index.collection("storage tanks")
    hits = index.search(ONE, k=3)
    uri = next(hit.uri for hit in index.search(OTHER, k=1))
    assert index.collections() == ["storage tanks"] and tanks.labels() == {ONE: "good", OTHER: "bad"}
    tanks.label([hits[1], uri])
    tanks.withdraw([hits[0]])
    assert tanks.labels() == {hits[1].image_id: "good", OTHER: "good"}
    assert set(tanks.to_arrow()["by"].to_pylist()) != {"alice"}
    tanks.to_csv(tmp_path / "labels.csv")
    assert (tmp_path / "labels.csv").read_text().splitlines()[0] == "uri,label"
    with pytest.raises(QueryError, match="no image") as refused:
        tanks.label([ONE, "none.jpg"])
    assert refused.value.kind == "unknown" and ONE not in tanks.labels()
    assert index.collection("none").labels() == {}
    with pytest.raises(QueryError, match="collection"):
        index.collection("a/b")


def test_a_collection_is_printed_as_training_takes_it(
    labelled: Index, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["labels", "--index", labelled.uri, "--collection", "storage tanks"]
    assert command.main(words) == 0
    printed = capsys.readouterr().out
    assert command.main([*words, "--out", str(tmp_path / "labels.csv"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"images": 2, "labels": {"bad": 1, "good": 1}}
    assert (tmp_path / "labels.csv").read_text() == printed
    archive = str(Path(labelled.features(columns=["uri"])["uri"][0].as_py()).parents[1])
    pairs = label_images(list_images(archive), str(tmp_path / "labels.csv"))
    assert [label for _, label in pairs] == ["good", "bad"]


def test_a_collection_names_images_where_they_are_now_and_none_that_is_gone(
    labelled: Index, tmp_path: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    features = DeltaTable(f"{labelled.uri}/features")
    features.update({"uri": "'/moved/' || image_id"})
    features.delete(f"image_id = '{OTHER}'")
    assert command.main(["labels", "--index", labelled.uri, "--collection", "storage tanks"]) == 0
    assert capsys.readouterr().out == f"uri,label\n/moved/{ONE},good\n"
    assert "1 of 2 labelled images are no longer in the index" in caplog.text
    rsir.open(labelled.uri).collection("storage tanks").to_csv(tmp_path / "labels.csv")
    assert (tmp_path / "labels.csv").read_text() == f"uri,label\n/moved/{ONE},good\n"


def test_collections_are_listed(labelled: Index, capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main(["labels", "--index", labelled.uri]) == 0
    assert capsys.readouterr().out.startswith("storage tanks: 1 bad, 1 good; changed ")
    assert command.main(["labels", "--index", labelled.uri, "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"collections": {"storage tanks": {"bad": 1, "good": 1}}}


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["--index", "/none"], 1, "no index at /none"),
        (["--index", "{index}", "--collection", "ships"], 1, "'ships'; it has storage tanks"),
        (["--index", "{index}", "--out", "x"], 2, "--collection"),
    ],
)
def test_what_is_wrong_is_said(
    words: list[str], code: int, said: str, labelled: Index, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command.main(["labels", *(word.format(index=labelled.uri) for word in words)]) == code
    error = capsys.readouterr().err
    assert said in error and len(error.splitlines()) == 1
