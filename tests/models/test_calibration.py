import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from scipy.special import softmax

from rsir_core.models.bundle import load_bundle, write_classifier
from rsir_core.models.calibration import BINS, expected_calibration_error, fit_temperature, hold_out, score_calibration
from rsir_core.models.describe import Describer
from tests.support.models import write_bundle


def draw(rng: np.random.Generator, p: np.ndarray) -> np.ndarray:
    """A class of each row, by its probabilities."""
    drawn: np.ndarray = (p.cumsum(axis=1) < rng.random((len(p), 1))).sum(axis=1).clip(max=p.shape[1] - 1)
    return drawn


@pytest.mark.parametrize("temperature", [0.3, 0.55, 1.0, 2.5, 6.0])
def test_a_known_temperature_is_found_again(temperature: float) -> None:
    rng = np.random.default_rng(3)
    logits = rng.normal(size=(20_000, 7)) * 2
    labels = draw(rng, softmax(logits, axis=1))
    shifted = logits * temperature + rng.normal(size=(20_000, 1))  # a constant per row means nothing
    assert fit_temperature(shifted, labels) == pytest.approx(temperature, rel=0.04)
    before = expected_calibration_error(softmax(shifted, axis=1), labels)
    after = expected_calibration_error(softmax(shifted / fit_temperature(shifted, labels), axis=1), labels)
    assert after < 0.015 and after <= before + 0.005


@given(st.integers(1, 200), st.floats(2, 20))
def test_few_images_that_are_all_right_do_not_make_it_sure_of_everything(n: int, scale: float) -> None:
    logits = np.zeros((n, 5))
    logits[:, 0] = scale
    found = fit_temperature(logits, np.zeros(n, np.int64))
    assert 0.1 < found <= 1.001


def slow_error(p: np.ndarray, labels: np.ndarray) -> float:
    total = 0.0
    for b in range(BINS):
        inside = [i for i in range(len(p)) if b / BINS < p[i].max() <= (b + 1) / BINS]
        if inside:
            confidence = sum(float(p[i].max()) for i in inside) / len(inside)
            accuracy = sum(p[i].argmax() == labels[i] for i in inside) / len(inside)
            total += len(inside) / len(p) * abs(accuracy - confidence)
    return total


@given(
    arrays.arrays(np.float64, st.tuples(st.integers(1, 40), st.integers(2, 5)), elements=st.floats(-9, 9)), st.data()
)
def test_the_calibration_error_is_that_of_a_slow_reference(logits: np.ndarray, data: st.DataObject) -> None:
    p = softmax(logits, axis=1)
    labels = np.array(data.draw(st.lists(st.integers(0, p.shape[1] - 1), min_size=len(p), max_size=len(p))))
    assert expected_calibration_error(p, labels) == pytest.approx(slow_error(p, labels), abs=1e-12)


@given(sizes=st.lists(st.integers(1, 60), min_size=1, max_size=8), fraction=st.floats(0, 0.9))
def test_the_share_is_that_of_all_and_about_that_of_each_class(sizes: list[int], fraction: float) -> None:
    labels = [str(c) for c, size in enumerate(sizes) for _ in range(size)]
    train, held_out = hold_out(range(len(labels)), labels, fraction, seed=0)
    assert sorted(train + held_out) == list(range(len(labels)))
    assert {labels[i] for i in train} == set(labels)
    counts = [sum(labels[i] == str(c) for i in held_out) for c in range(len(sizes))]
    for size, count in zip(sizes, counts, strict=True):
        assert int(min(fraction * size, size - 1)) <= count <= fraction * size + 1
    if all(fraction * size <= size - 2 for size in sizes):
        assert abs(sum(counts) - fraction * len(labels)) <= 0.5 + 1e-9


def test_the_share_is_held_out_by_the_seed() -> None:
    labels = ["beach"] * 50 + ["river"] * 20 + ["rare"] * 9
    train, held_out = hold_out(range(79), labels, 0.1, seed=0)
    assert sorted(train + held_out) == list(range(79))
    assert [sum(labels[i] == name for i in held_out) for name in ("beach", "river", "rare")] == [5, 2, 1]
    assert hold_out(range(79), labels, 0.1, seed=0)[1] == held_out != hold_out(range(79), labels, 0.1, seed=1)[1]
    assert hold_out(range(79), labels, 0.0, seed=0) == (list(range(79)), [])


def test_nothing_to_fit_to_is_an_error() -> None:
    with pytest.raises(ValueError, match="0 images"):
        fit_temperature(np.empty((0, 3)), np.empty(0, np.int64))


def test_a_bundle_keeps_its_temperature_and_describes_by_it_and_an_older_one_has_none(tmp_path: Path) -> None:
    write_bundle(tmp_path, detector=False)
    plain = load_bundle(str(tmp_path))
    settings = replace(plain.classifier, temperature=2.0)
    write_classifier(str(tmp_path), settings, plain.classifier_state, plain.tau, "uri,label,split\n")
    images = list(np.random.default_rng(0).integers(0, 256, (3, 40, 40, 3), np.uint8))
    before, after = (Describer(b).describe(images) for b in (plain, load_bundle(str(tmp_path))))
    softened = np.sqrt(before.class_probabilities.astype(np.float64))
    np.testing.assert_allclose(after.class_probabilities, softened / softened.sum(axis=1, keepdims=True), rtol=1e-5)
    assert (after.embedding == before.embedding).all()
    manifest = json.loads((tmp_path / "bundle.json").read_text())
    del manifest["classifier"]["settings"]["temperature"]  # as version 0.1 wrote it
    (tmp_path / "bundle.json").write_text(json.dumps(manifest))
    assert load_bundle(str(tmp_path)).classifier.temperature == 1.0


def test_the_score_of_a_temperature_is_that_of_the_logits_with_and_without_it() -> None:
    rng, classes = np.random.default_rng(8), ["a", "b", "c", "d"]
    logits, labels = rng.normal(size=(300, 4)) * 2, rng.choice([*classes, "other"], 300).tolist()
    truth = np.array([classes.index(label) for label in labels if label != "other"])
    known = np.array(labels) != "other"
    raw, p = softmax(logits, axis=1), softmax(logits / 0.5, axis=1)
    found = score_calibration(p.astype(np.float32), labels, classes, 0.5)
    assert found is not None
    assert found["images"] == known.sum() < 300
    assert found["accuracy"] == np.mean(p[known].argmax(axis=1) == truth)
    assert found["confidence"] == pytest.approx(p[known].max(axis=1).mean(), abs=1e-6)
    assert found["ece"] == pytest.approx(expected_calibration_error(p[known], truth), abs=1e-6)
    assert found["ece_uncalibrated"] == pytest.approx(expected_calibration_error(raw[known], truth), abs=1e-6)
    assert abs(found["ece"] - found["ece_uncalibrated"]) > 0.01
    assert score_calibration(p, ["other"] * 300, classes, 0.5) is None
