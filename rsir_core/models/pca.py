"""PCA of unit-length embeddings by mergeable moments: exact, in float64, independent of order and partitioning."""

import hashlib
from dataclasses import dataclass
from functools import cached_property
from typing import Final

import numpy as np
import numpy.typing as npt
from safetensors.numpy import load, save

from rsir_core.arrays import Doubles, Floats
from rsir_core.errors import TableError

Matrix = Doubles

FEWEST_COMPONENTS: Final = 19  # the paper's, for 21 classes
MOST_COMPONENTS: Final = 64  # which bounds memory and time of the search


def unit_length(embedding: npt.NDArray[np.floating]) -> Matrix:
    """Divide the rows of (n, D) by their L2 norm, float64; a zero row stays zero."""
    x = np.asarray(embedding, np.float64)
    norm = np.linalg.norm(x, axis=1, keepdims=True)
    return x / np.where(norm == 0, 1, norm)


def choose_components(classes: int, count: int, dimensions: int) -> int:
    """Choose how many components suit an archive: the number of classes less 2, from 19 to 64.

    Embeddings of a fine-tuned classifier differ in C − 1 directions above all, about equally in each, so leaving
    several of these out takes classes for each other.

    Args:
        classes: C of the classifier; 0: it has none.
        count: of embeddings; one less can be fitted.
        dimensions: of the embeddings, the most that can be fitted.
    """
    return max(min(max(classes - 2, FEWEST_COMPONENTS), MOST_COMPONENTS, count - 1, dimensions), 1)


@dataclass(frozen=True)
class Moments:
    """Count, mean and scatter of rows; a monoid under `merge` with the identity `Moments.zero`.

    Attributes:
        count: rows n.
        mean: (D,).
        scatter: (D, D), the sum of (x − mean)(x − mean)ᵀ.
    """

    count: int
    mean: Matrix
    scatter: Matrix

    @classmethod
    def zero(cls, dimensions: int = 0) -> "Moments":
        """Return the moments of no rows; they merge with moments of any dimension."""
        return cls(0, np.zeros(dimensions), np.zeros((dimensions, dimensions)))

    @classmethod
    def of(cls, embedding: npt.NDArray[np.floating]) -> "Moments":
        """Compute the moments of (n, D) embeddings at unit length. O(n·D²) time, O(n·D + D²) memory."""
        x = unit_length(embedding)  # n×D
        if len(x) == 0:
            return cls.zero(x.shape[1])
        mean = x.mean(axis=0)
        x -= mean
        return cls(len(x), mean, x.T @ x)

    def merge(self, other: "Moments") -> "Moments":
        """Merge with the moments of other rows (Chan, Golub and LeVeque 1979, equation 2.1, for vectors)."""
        if other.count == 0 or self.count == 0:
            return other if self.count == 0 else self
        count = self.count + other.count
        delta = other.mean - self.mean
        mean = self.mean + delta * (other.count / count)
        scatter = self.scatter + other.scatter + np.outer(delta, delta) * (self.count * other.count / count)
        return Moments(count, mean, scatter)

    def to_bytes(self) -> bytes:
        """Encode count, mean and the upper triangle of the symmetric scatter."""
        upper = self.scatter[np.triu_indices(len(self.mean))]
        data: bytes = save({"count": np.array([self.count], np.int64), "mean": self.mean, "scatter": upper})
        return data

    @classmethod
    def from_bytes(cls, data: bytes) -> "Moments":
        """Decode the inverse of `to_bytes`."""
        t = load(data)
        d = len(t["mean"])
        scatter = np.zeros((d, d))
        scatter[np.triu_indices(d)] = t["scatter"]
        return cls(int(t["count"][0]), t["mean"], scatter + np.triu(scatter, 1).T)

    def fit(self, components: int) -> "Pca":
        """Fit the first K principal components, those of `sklearn.decomposition.PCA` on the same rows.

        Each component's sign is the one that makes its entry of largest magnitude positive.

        Raises:
            TableError: fewer rows or dimensions than components.
        """
        from scipy.linalg import eigh  # noqa: PLC0415 -- which only fitting needs

        most = min(self.count - 1, len(self.mean))
        if not 1 <= components <= most:
            raise TableError(
                f"{components} components cannot be fitted to {self.count} images of {len(self.mean)} dimensions; "
                f"pass --components 1 to {most}" if most >= 1 else
                f"a PCA needs at least 2 images, and {self.count} could be described; index more"
            )  # fmt: skip
        d = len(self.mean)
        variance, vectors = eigh(self.scatter / (self.count - 1), subset_by_index=(d - components, d - 1))  # ascending
        rows = vectors[:, ::-1].T  # K×D
        largest = np.abs(rows).argmax(axis=1)
        rows = rows * np.sign(rows[np.arange(components), largest])[:, None]
        explained = np.maximum(variance[::-1], 0)
        return Pca(self.mean, rows, explained, float(np.trace(self.scatter)) / (self.count - 1), self)


@dataclass(frozen=True)
class Pca:
    """Hold a fitted PCA.

    Attributes:
        mean: (D,) float64.
        components: (K, D) float64, orthonormal rows.
        explained_variance: (K,) float64.
        total_variance: sum over all D dimensions.
        moments: of the rows it was fitted to, so that new rows can be merged in without reading the old ones.
        neighbours: nearest rows that each projected feature is averaged with; 0: it is not.
    """

    mean: Matrix
    components: Matrix
    explained_variance: Matrix
    total_variance: float
    moments: Moments
    neighbours: int = 0

    @cached_property
    def fingerprint(self) -> str:
        """Hash of the mean, the components and the neighbours: equal fingerprints make equal features."""
        data = np.ascontiguousarray(self.mean).tobytes() + np.ascontiguousarray(self.components).tobytes()
        data += b"" if not self.neighbours else f"neighbours {self.neighbours}".encode()
        return hashlib.sha256(data).hexdigest()[:16]

    def has_outgrown(self, classes: int, count: int) -> bool:
        """Tell whether it has few components because there were few embeddings, and there are more now.

        Args:
            classes: of the classifier.
            count: of the embeddings that there are now.
        """
        limited = len(self.components) == self.moments.count - 1
        return limited and len(self.components) < choose_components(classes, count, len(self.mean))

    def transform(self, embedding: npt.NDArray[np.floating]) -> Floats:
        """Normalise embeddings (n, D) to unit length and project them to features (n, K), float32."""
        return ((unit_length(embedding) - self.mean) @ self.components.T).astype(np.float32)

    def errors(self, embedding: npt.NDArray[np.floating], feature: Floats) -> Matrix:
        """Compute squared reconstruction errors (n,) of unit-length embeddings (n, D) from their features (n, K)."""
        away = unit_length(embedding) - self.mean
        kept = np.square(feature, dtype=np.float64).sum(axis=1)
        errors: Matrix = np.maximum(np.square(away).sum(axis=1) - kept, 0)
        return errors

    @property
    def mean_error(self) -> float:
        """The mean of `errors` over the rows that the PCA was fitted to."""
        unexplained = self.total_variance - float(self.explained_variance.sum())
        return max(unexplained, 0) * (self.moments.count - 1) / self.moments.count

    def to_bytes(self) -> bytes:
        """Encode as one safetensors file."""
        data: bytes = save(
            {
                "mean": self.mean,
                "components": np.ascontiguousarray(self.components),
                "explained_variance": self.explained_variance,
                "total_variance": np.array([self.total_variance]),
                "moments": np.frombuffer(self.moments.to_bytes(), np.uint8),
                "neighbours": np.array([self.neighbours], np.int64),
            }
        )
        return data

    @classmethod
    def from_bytes(cls, data: bytes) -> "Pca":
        """Decode the inverse of `to_bytes`."""
        t = load(data)
        moments = Moments.from_bytes(t["moments"].tobytes())
        neighbours = int(t["neighbours"][0]) if "neighbours" in t else 0  # files of earlier versions lack them
        return cls(
            t["mean"], t["components"], t["explained_variance"], float(t["total_variance"][0]), moments, neighbours
        )
