"""The demo's own parts: which queries it asks, what it reads from answers, and the picture it makes of them."""

import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from jobs.demo.demo import Steps, _folder_name, choose_queries
from jobs.demo.options import DemoConfig
from jobs.demo.picture import Answer, draw_answers
from jobs.demo.scenes import CLASSES, draw_scene
from rsir_core.archive.labels import LabelledImage
from rsir_core.errors import RsirError
from rsir_core.evaluation.gallery import RIGHT, WRONG
from rsir_core.models.regions import Box, Region

IMAGES = [
    LabelledImage(f"{label}/{i}.jpg", label, "train" if i < 3 else "test") for label in "abcdefgh" for i in range(6)
]

URIS = [image.uri for image in IMAGES]


def test_an_image_that_could_not_be_indexed_is_no_query() -> None:
    chosen = {query.uri for seed in range(9) for query in choose_queries(IMAGES, ["a/3.jpg", "a/4.jpg"], 4, seed)}
    assert chosen == {"a/3.jpg", "a/4.jpg"}


def test_queries_are_test_images_of_classes_spread_evenly() -> None:
    queries = choose_queries(IMAGES, URIS, 4, seed=0)
    assert [q.label for q in queries] == ["a", "c", "e", "g"]
    assert all(q.split == "test" for q in queries)
    assert choose_queries(IMAGES[::-1], URIS, 4, seed=0) == queries
    assert len({tuple(choose_queries(IMAGES, URIS, 4, seed)) for seed in range(9)}) > 1


def test_fewer_classes_than_queries_give_one_each() -> None:
    assert [q.label for q in choose_queries(IMAGES[:12], URIS, 6, seed=1)] == ["a", "b"]


def test_every_archive_has_a_folder_of_its_own() -> None:
    given = ["/2023/images", "/2024/images", "s3://2024/images/", "x/drawn-0", "..", ".", "/"]
    names = [_folder_name(config) for config in (DemoConfig(), *(DemoConfig(archive=archive) for archive in given))]
    assert names[0] == "drawn-0" and len(set(names)) == len(names) and not any("/" in name for name in names)
    assert all(re.fullmatch(r".*-[0-9a-f]{8}", name) for name in names[1:])
    assert _folder_name(DemoConfig(archive="x/y/../y/")) == _folder_name(DemoConfig(archive="./x/y"))


def test_training_on_the_users_images_takes_as_long_as_it_needs() -> None:
    given = [DemoConfig(), DemoConfig(archive="x"), DemoConfig(epochs=9), DemoConfig(archive="x", epochs=9)]
    assert [config.classifier_epochs for config in given] == [4, None, 9, 9]


def result(uri: Path, class_name: str, object_box: Box | None) -> dict[str, object]:
    return {
        "uri": str(uri),
        "region": {"x": 10, "y": 0, "width": 230, "height": 230},
        "object_box": None if object_box is None else object_box._asdict(),
        "class": class_name,
        "probability": 0.75,
        "weighted_distance": 0.125,
    }


def response(own: Path, *others: Path) -> dict[str, object]:
    found = {"class": "ship", "score": 0.9, "box": Box(20, 30, 90, 80)._asdict()}
    query = {"class": "harbor", "probability": 0.5, "region": Region(0, 0, 230, 230)._asdict(), "object": found}
    return {"query": query, "results": [result(uri, "harbor", None) for uri in (own, *others)]}


def test_the_querys_own_row_is_left_out(tmp_path: Path) -> None:
    own, first, second = (tmp_path / name for name in ("own.png", "first.png", "second.png"))
    query = LabelledImage(str(own), "harbor", "test")
    answer = Answer.of(query, response(own, first, second))
    assert answer.found_itself
    assert [r.uri for r in answer.results] == [str(first), str(second)]
    assert answer.query.object_box == Box(20, 30, 90, 80)
    assert answer.results[0].distance == 0.125
    assert not Answer.of(query, response(first, own)).found_itself


@pytest.mark.slow
def test_the_picture_frames_right_and_wrong(tmp_path: Path) -> None:
    files = []
    for i, name in enumerate(CLASSES[:3]):
        files.append(tmp_path / f"{name}.png")
        Image.fromarray(draw_scene(name, np.random.default_rng(i)).pixels).save(files[-1])
    query = LabelledImage(str(files[0]), "harbor", "test")
    answer = Answer.of(query, response(*files))
    colours = {}
    for kind, labels in (("right", dict.fromkeys(map(str, files), "harbor")), ("wrong", {})):
        draw_answers([answer, answer], labels, tmp_path / kind / "picture.png")
        with Image.open(tmp_path / kind / "picture.png") as picture:
            pixels = np.asarray(picture.convert("RGB")).astype(np.int64)
        colours[kind] = {f"#{colour:06x}" for colour in np.unique(pixels @ (1 << 16, 1 << 8, 1)).tolist()}
    assert RIGHT in colours["right"]
    assert WRONG not in colours["right"]
    assert WRONG in colours["wrong"]
    assert RIGHT not in colours["wrong"]


@pytest.mark.ray
def test_a_failing_step_stops_with_its_command(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    steps = Steps(3)
    steps.begin("Train on nothing")
    data = tmp_path / "missing.yaml"
    with pytest.raises(RsirError, match=r"\b1 of 3\b.*jobs\.finetune_detector.*\b1\b"):
        steps.job("finetune_detector", {"data": data, "models": tmp_path / "models", "weights": None})
    out, err = capfd.readouterr()
    assert f"$ python -m jobs.finetune_detector --data {data}" in out
    assert "--weights" not in out
    assert "missing.yaml" in err
