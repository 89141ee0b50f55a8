"""Whether a GPU describes what a CPU describes, up to half precision, and each finds what the other has indexed."""

import numpy as np
import numpy.typing as npt
import torch

from rsir_core.arrays import Doubles
from rsir_core.models.describe import Describer, Descriptions
from rsir_core.models.pca import Moments, Pca
from rsir_core.models.regions import ObjectRule, Region
from rsir_core.search.distance import candidate_weights, classes, complements, distances, query_weights
from tests.gpu.report import Report
from tests.gpu.setting import Setting

MIN_COSINE = 0.999  # of two embeddings of one region: half precision has 11 bits, of which layers lose some
MAX_PROBABILITY_ERROR = 0.02  # of a class
MIN_SAME_REGIONS = 0.9  # share: two objects may be equally confident up to half precision
MAX_SHIFT = 2  # pixels of a region whose object is the same
MIN_FOUND = 0.99  # share of images that find their own row
DIMENSIONS = 19


def check(setting: Setting, report: Report) -> None:
    """Compare the describer on the device with the one on the CPU."""
    torch.set_num_threads(setting.cores)
    images = [*setting.scenes, *setting.odd, *setting.large]
    cpu, device = Describer(setting.models), Describer(setting.models, str(setting.device))
    ours, reference = device.describe(images), cpu.describe(images)
    _check_regions(report, "region", ours, reference)
    given = [found and found.box for found in reference.objects]
    _check_descriptors(report, device.describe(images, given), reference)
    few = images[:: max(1, len(images) // 16)]
    rules: tuple[ObjectRule, ...] = ("largest", "agreement")
    for rule in rules:
        found, expected = (each.describe(few, rule=rule) for each in (device, cpu))
        _check_regions(report, f"region by the rule {rule}", found, expected)
    alone = [device.describe([image]) for image in few]
    together = device.describe(few)
    cosines = [_cosines(one.embedding, together.embedding[i : i + 1])[0] for i, one in enumerate(alone)]
    report.check(
        "an image's embedding does not depend on its batch", min(cosines) >= MIN_COSINE, f"(cosine ≥ {MIN_COSINE})"
    )
    count = len(setting.scenes)
    _check_index(report, "indexed on the device, asked on the CPU", ours, reference, count)
    _check_index(report, "indexed on the CPU, asked on the device", reference, ours, count)


def _check_regions(report: Report, name: str, found: Descriptions, expected: Descriptions) -> None:
    pairs = list(zip(found.regions, expected.regions, strict=True))
    same = [_shift(ours, theirs) <= MAX_SHIFT for ours, theirs in pairs]
    share, equal = float(np.mean(same)), float(np.mean([ours == theirs for ours, theirs in pairs]))
    report.figure(f"{name}: share that is equal", equal, "")
    report.check(
        f"{name}: within {MAX_SHIFT} pixels", share >= MIN_SAME_REGIONS, f"({share:.3f} of them, ≥ {MIN_SAME_REGIONS})"
    )


def _shift(ours: Region, theirs: Region) -> int:
    return max(abs(a - b) for a, b in zip(ours, theirs, strict=True))


def _check_descriptors(report: Report, found: Descriptions, expected: Descriptions) -> None:
    """Compare what is made of the same regions."""
    cosine = float(_cosines(found.embedding, expected.embedding).min())
    report.figure("embedding of the same region: largest 1 − cosine", 1 - cosine, "")
    report.check("embeddings are equal up to half precision", cosine >= MIN_COSINE, f"(cosine ≥ {MIN_COSINE})")
    error = float(np.abs(found.class_probabilities - expected.class_probabilities).max())
    report.figure("class probability: largest difference", error, "")
    report.check("class probabilities are equal", error <= MAX_PROBABILITY_ERROR, f"(within {MAX_PROBABILITY_ERROR})")


def _check_index(report: Report, name: str, indexed: Descriptions, asked: Descriptions, count: int) -> None:
    """Fit a PCA to some rows, and see that the other descriptions of the same images find them first."""
    pca: Pca = Moments.of(indexed.embedding[:count]).fit(min(DIMENSIONS, count - 1))
    rows, queries = (pca.transform(described.embedding[:count]) for described in (indexed, asked))
    p_rows, p_queries = (described.class_probabilities[:count] for described in (indexed, asked))
    weighted = query_weights(complements(p_queries), classes(p_rows)) * distances(queries, rows)  # queries × rows
    first = (weighted * candidate_weights(complements(p_rows), classes(p_queries))).argmin(axis=1)
    share = float(np.mean(first == np.arange(count)))
    report.check(f"{name}: finds itself first", share >= MIN_FOUND, f"({share:.3f} of {count}, ≥ {MIN_FOUND})")


def _cosines(a: npt.NDArray[np.float16], b: npt.NDArray[np.float16]) -> Doubles:
    x, y = a.astype(np.float64), b.astype(np.float64)
    found: Doubles = (x * y).sum(axis=1) / (np.linalg.norm(x, axis=1) * np.linalg.norm(y, axis=1))
    return found
