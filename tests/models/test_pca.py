import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.decomposition import PCA

from rsir_core.errors import TableError
from rsir_core.models.pca import Moments, Pca, choose_components, unit_length

K = 4


def embeddings(seed: int, n: int = 120, d: int = 16) -> npt.NDArray[np.float16]:
    rng = np.random.default_rng(seed)
    mixed: npt.NDArray[np.float64] = (
        rng.gamma(1.0, size=(n, d)) * np.geomspace(4, 0.1, d) @ np.linalg.qr(rng.normal(size=(d, d)))[0]
    )
    return (np.abs(mixed) + 0.01).astype(np.float16)


def merged(parts: list[npt.NDArray[np.float16]]) -> Moments:
    total = Moments.zero()
    for part in parts:
        total = total.merge(Moments.of(part))
    return total


def assert_same(one: Pca, other: Pca, tolerance: float = 1e-9) -> None:
    np.testing.assert_allclose(one.mean, other.mean, atol=tolerance)
    np.testing.assert_allclose(one.components, other.components, atol=tolerance)
    np.testing.assert_allclose(one.explained_variance, other.explained_variance, atol=tolerance)


def test_equals_scikit_learn_on_the_same_rows() -> None:
    x = embeddings(0)
    ours, theirs = Moments.of(x).fit(K), PCA(K, svd_solver="full").fit(unit_length(x))
    signs = np.sign((ours.components * theirs.components_).sum(axis=1))
    np.testing.assert_allclose(ours.components, theirs.components_ * signs[:, None], atol=1e-6)
    np.testing.assert_allclose(ours.mean, theirs.mean_, atol=1e-12)
    np.testing.assert_allclose(ours.explained_variance, theirs.explained_variance_, rtol=1e-6)
    np.testing.assert_allclose(ours.transform(x), theirs.transform(unit_length(x)) * signs, atol=1e-6)
    assert ours.total_variance == pytest.approx(unit_length(x).var(axis=0, ddof=1).sum())


@given(st.integers(0, 9), st.lists(st.integers(0, 120), max_size=8), st.randoms(use_true_random=False))
@settings(max_examples=50, deadline=None)
def test_is_the_same_for_any_order_and_partitioning(seed: int, cuts: list[int], random: object) -> None:
    x = embeddings(seed)
    order = np.array(sorted(range(len(x)), key=lambda _: random.random()))  # type: ignore[attr-defined]
    parts = np.split(x[order], sorted(cuts))
    assert_same(merged(parts).fit(K), Moments.of(x).fit(K))


def test_merge_is_associative_and_commutative_with_a_zero() -> None:
    a, b, c = (Moments.of(embeddings(seed, n)) for seed, n in ((1, 30), (2, 1), (3, 77)))
    for one, other in (
        (a.merge(b).merge(c), a.merge(b.merge(c))),
        (a.merge(b), b.merge(a)),
        (a.merge(Moments.zero()), a),
        (Moments.zero(16).merge(a), a),
    ):
        assert one.count == other.count
        np.testing.assert_allclose(one.mean, other.mean, atol=1e-12)
        np.testing.assert_allclose(one.scatter, other.scatter, atol=1e-9)


def test_new_rows_update_the_fit_without_the_old_ones() -> None:
    old, new = embeddings(4), embeddings(5, n=40)
    stored = Pca.from_bytes(Moments.of(old).fit(K).to_bytes())
    updated = stored.moments.merge(Moments.of(new)).fit(K)
    assert_same(updated, Moments.of(np.concatenate([old, new])).fit(K))


def test_errors_are_what_the_features_leave_out() -> None:
    x, pca = embeddings(10), Moments.of(embeddings(10)).fit(K)
    feature = pca.transform(x)
    back = feature @ pca.components + pca.mean
    np.testing.assert_allclose(pca.errors(x, feature), ((unit_length(x) - back) ** 2).sum(axis=1), atol=1e-6)
    assert pca.mean_error == pytest.approx(pca.errors(x, feature).mean(), abs=1e-6)
    assert pca.errors(embeddings(11), pca.transform(embeddings(11))).mean() > 2 * pca.mean_error


def test_signs_do_not_depend_on_the_rows_signs() -> None:
    components = Moments.of(embeddings(6)).fit(K).components
    assert (components[np.arange(K), np.abs(components).argmax(axis=1)] > 0).all()


def test_survives_storage_bit_by_bit() -> None:
    pca = Moments.of(embeddings(7)).fit(K)
    again = Pca.from_bytes(pca.to_bytes())
    assert again.fingerprint == pca.fingerprint
    np.testing.assert_array_equal(again.moments.scatter, pca.moments.scatter)
    np.testing.assert_array_equal(again.transform(embeddings(8)), pca.transform(embeddings(8)))
    assert Moments.of(embeddings(8)).fit(K).fingerprint != pca.fingerprint


def test_a_zero_embedding_is_projected_and_not_a_nan() -> None:
    pca = Moments.of(embeddings(9)).fit(K)
    assert np.isfinite(pca.transform(np.zeros((1, 16), np.float16))).all()


@pytest.mark.parametrize(("n", "components"), [(5, 5), (100, 17), (100, 0), (1, 1), (0, 1)])
def test_refuses_what_cannot_be_fitted(n: int, components: int) -> None:
    with pytest.raises(TableError):
        Moments.of(embeddings(0, n)).fit(components)


@pytest.mark.parametrize(
    ("classes", "count", "dimensions", "expected"),
    [(0, 1000, 1280, 19), (2, 1000, 1280, 19), (21, 1000, 1280, 19), (45, 1000, 1280, 43), (200, 10**6, 1280, 64),
     (21, 6, 1280, 5), (21, 1000, 8, 8), (60, 30, 1280, 29), (0, 1, 1280, 1)],
)  # fmt: skip
def test_components_follow_the_classes_and_what_can_be_fitted(
    classes: int, count: int, dimensions: int, expected: int
) -> None:
    assert choose_components(classes, count, dimensions) == expected


def test_a_pca_of_few_images_is_outgrown_by_more_and_one_with_fewer_components_on_purpose_is_not() -> None:
    limited, chosen = Moments.of(embeddings(0, 6)).fit(5), Moments.of(embeddings(0, 6)).fit(3)
    assert limited.has_outgrown(0, 7) and not limited.has_outgrown(0, 6) and not chosen.has_outgrown(0, 1000)
    full = Moments.of(embeddings(0, 17)).fit(16)
    assert not full.has_outgrown(0, 1000)  # there are no more dimensions
