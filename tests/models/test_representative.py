import typing
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from jobs.evaluating.describing import DescribeAgain
from rsir_core import schemas
from rsir_core.evaluation.arms import CENTRES, IndexSetup, Variation, plan_arms
from rsir_core.imagery.reading import Reading, read_files
from rsir_core.index.index import Index
from rsir_core.models.bundle import load_bundle, write_classifier, write_detector
from rsir_core.models.classifier import Classifier
from rsir_core.models.describe import Describer
from rsir_core.models.regions import Box, DetectedObject, ObjectRule, key_region
from rsir_core.models.representative import MAX_COMPARED, representative_first
from rsir_core.models.settings import DetectorSettings
from tests.support.models import lively_detector, write_bundle
from tests.support.writing import writer_of

RULES: tuple[ObjectRule, ...] = typing.get_args(ObjectRule)

EDGES = st.integers(0, 50).map(float)
OBJECTS = st.lists(
    st.builds(
        lambda x, y, w, h, score: DetectedObject(Box(x, y, x + w, y + h), score, f"of {score}"),
        *(EDGES, EDGES, EDGES, EDGES, st.floats(0, 1)),
    ),
    max_size=8,
).map(lambda objects: sorted(objects, key=lambda found: -found.score))


@given(objects=OBJECTS, rule=st.sampled_from(RULES), data=st.data())
def test_every_rule_puts_one_object_first_and_loses_none(
    objects: list[DetectedObject], rule: ObjectRule, data: st.DataObject
) -> None:
    agreement = data.draw(
        st.lists(st.floats(0, 1), min_size=len(objects[:MAX_COMPARED]), max_size=len(objects[:MAX_COMPARED]))
    )
    ranked = representative_first(objects, rule, agreement)
    if rule == "centre" and len(objects) > 1:
        first, *ranked = ranked
        (x, y), edges = first.box.centre, np.array([found.box for found in objects])
        assert (x, y) == ((edges[:, 0].min() + edges[:, 2].max()) / 2, (edges[:, 1].min() + edges[:, 3].max()) / 2)
        assert first[1:] == objects[0][1:]
        assert ranked == objects
        return
    assert sorted(map(repr, ranked)) == sorted(map(repr, objects))
    assert [found.score for found in ranked[1:]] == sorted((found.score for found in ranked[1:]), reverse=True)
    if objects:
        worth: dict[ObjectRule, Callable[[int], float]] = {
            "confidence": lambda i: objects[i].score,
            "largest": lambda i: (objects[i].box.x1 - objects[i].box.x0) * (objects[i].box.y1 - objects[i].box.y0),
            "agreement": lambda i: agreement[i] if i < MAX_COMPARED else -1.0,
        }
        if rule in worth:
            best = max(map(worth[rule], range(len(objects))))
            assert ranked[0] == next(o for i, o in enumerate(objects) if worth[rule](i) == best)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("models")
    write_bundle(folder, detector=False)
    made = load_bundle(str(folder))
    logits = Classifier(made.classifier, made.classifier_state).embed(IMAGES)[1]
    balanced = {**made.classifier_state, "head.bias": made.classifier_state["head.bias"] - logits.mean(dim=0)}
    write_classifier(str(folder), made.classifier, balanced, 0.9, "uri,label,split\n")  # no class wins everywhere
    settings = DetectorSettings("yolov5n", ("plane", "ship"), image_size=512, min_score=0.0)  # boxes are of 15 strides
    write_detector(str(folder), settings, lively_detector(2))
    return str(folder)


@pytest.fixture(scope="module")
def describer(models: str) -> Describer:
    return Describer(load_bundle(models))


IMAGES = [
    np.random.default_rng(i).integers(0, 256, (8, 8 + 4 * (i % 2), 3), np.uint8).repeat(16, 0).repeat(16, 1)
    for i in range(4)
]


@pytest.mark.slow
def test_a_rule_chooses_among_the_same_objects(describer: Describer) -> None:
    """The objects that are shown for a query, and the one that describes it, are the same by every rule."""
    chosen: dict[ObjectRule, list[DetectedObject | None]] = {}
    for rule in RULES:
        described = describer.describe(IMAGES, tau=0.5, rule=rule)
        chosen[rule] = described.objects
        shown = describer.all_objects(IMAGES, tau=0.5, rule=rule)
        assert [next(iter(objects), None) for objects in shown] == described.objects
        for image, found, region in zip(IMAGES, described.objects, described.regions, strict=True):
            assert region == key_region(image.shape[0], image.shape[1], found and found.box, 0.5)
    assert chosen["confidence"] == describer.describe(IMAGES, tau=0.5).objects  # the bundle's
    assert len({str(objects) for objects in chosen.values()}) == len(RULES)


@pytest.mark.slow
def test_agreement_is_with_the_class_of_the_whole_image(describer: Describer) -> None:
    """Against a classifier that is asked one crop at a time."""
    classifier = Classifier(describer.bundle.classifier, describer.bundle.classifier_state)
    found = describer.describe(IMAGES, tau=0.5, rule="agreement").objects
    differing = 0
    for image, chosen in zip(IMAGES, found, strict=True):
        scene = int(classifier.embed([image])[1][0].argmax())
        objects = describer.all_objects([image], rule="confidence")[0][:MAX_COMPARED]
        agreement = []
        for r in (key_region(image.shape[0], image.shape[1], o.box, 0.5) for o in objects):
            crop = image[r.y : r.y + r.height, r.x : r.x + r.width]
            probabilities = torch.softmax(classifier.embed([crop])[1], dim=1)[0]
            differing += int(probabilities.argmax()) != scene
            agreement.append(float(probabilities[scene]))
        assert len(objects) > 1 and chosen is not None
        assert chosen.box == pytest.approx(objects[int(np.argmax(agreement))].box, abs=1e-3)
    assert differing


@pytest.mark.slow
def test_the_arms_of_the_rules_describe_by_each(tmp_path: Path, models: str) -> None:
    index = Index(str(tmp_path / "index"))
    fingerprint = writer_of(index).adopt_bundle(models)
    own = IndexSetup(Variation(0.5, "efficientnet_lite0"), components=2, most=2, detector=True)
    variations = list(dict.fromkeys(arm.variation for arm in plan_arms(["objects"], own)))
    assert [variation.centre for variation in variations] == [*RULES, "image"]
    images = IMAGES[:2]  # one of each size
    files = [str(tmp_path / f"{i}.png") for i in range(len(images))]
    for file, image in zip(files, images, strict=True):
        Image.fromarray(image).save(file)
    boxes = pa.nulls(len(files), schemas.FEATURES.field(schemas.OBJECT_BOX).type)
    listed = {
        schemas.IMAGE_ID: files,
        schemas.URI: files,
        schemas.ETAG: ["1"] * len(files),
        schemas.TIME: [None] * len(files),
    }
    listing = pa.table({**listed, "position": range(len(files)), schemas.OBJECT_BOX: boxes})
    read = read_files(listing, Reading(max_pixels=100_000, seconds=60))
    found = DescribeAgain(index.uri, fingerprint, variations, None, "cpu")(read)
    describer = Describer(load_bundle(models))
    for i, centre in enumerate(CENTRES):
        objects = [None] * len(images) if centre == "image" else describer.describe(images, None, 0.5, centre).objects
        expected = describer.describe(images, [o and o.box for o in objects], 0.5)
        assert schemas.to_matrix(found[f"{schemas.EMBEDDING} {i}"]) == pytest.approx(expected.embedding, abs=1e-2)
    without = IndexSetup(own.variation, components=2, most=2)
    assert {arm.variation.centre for arm in plan_arms(["objects"], without)} == {"image"}


def test_a_bundle_from_before_the_rules_has_the_surest_object(tmp_path: Path) -> None:
    write_bundle(tmp_path)
    file = tmp_path / "bundle.json"
    assert '"rule": "confidence",' not in file.read_text().replace('"rule": "confidence"\n', "")
    file.write_text(file.read_text().replace(',\n   "rule": "confidence"', ""))
    assert '"rule"' not in file.read_text()
    settings = load_bundle(str(tmp_path)).detector
    assert settings == DetectorSettings("yolov5n", ("plane", "ship"), image_size=64, min_score=1e-9, rule="confidence")
