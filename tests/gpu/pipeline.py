"""The pipeline from files to descriptors: on Ray Data as the jobs run it, and as a plain loop over PyTorch's loader.

A run begins when the models are loaded: files wait until then to be read, else those that were read while the models
were loaded would count for nothing.
"""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from rsir_core.arrays import Pixels
from rsir_core.imagery.decode import read_in_turn, read_picture
from rsir_core.imagery.picture import Picture
from rsir_core.imagery.reading import Reading, images_of, listing_of
from rsir_core.models.bundle import load_bundle
from rsir_core.models.describe import Describer
from tests.gpu.networks import own_rate
from tests.gpu.report import Report, UnavailableError
from tests.gpu.setting import Setting

READY = "ready"  # file beside the archive's folder: the models are loaded
WARM_UP = 8  # images
LONGEST_LOADING = 60.0  # seconds that reading waits for the models


class Arrangement(NamedTuple):
    """How many actors share the device, and how many images they take at once."""

    actors: int
    batch: int

    def __str__(self) -> str:
        return f"actors: {self.actors}, {self.batch} at once"


def run_pipelines(setting: Setting, report: Report) -> None:
    """Run both, in some arrangements; the shares are of what the device and the cores do alone."""
    own, cores = own_rate(setting, report), report.value("decoding", "read and decode into a table, all cores")
    limits = [limit for limit in (own, cores) if limit is not None]
    if own is not None:
        report.figure("limit: both networks alone on the device", own, "images/s")
    if cores is not None:
        report.figure("limit: reading alone on all cores", cores, "images/s")
    small, middle = setting.size.batches[0], setting.size.middle
    count = int(max(4 * middle, min(limits, default=100.0) * setting.size.pipeline_seconds))
    count = min(setting.size.most, count)
    with report.measuring(f"plain loop, {middle} at once"):
        report.need(2 * setting.size.pipeline_seconds)
        _figure(report, f"plain loop, {middle} at once", plain_loop(setting, middle, count), limits)
    arrangements = [Arrangement(actors, middle) for actors in setting.size.actors] + [Arrangement(1, small)]
    with report.measuring("Ray Data"):
        from jobs.pipeline.cluster import joined  # noqa: PLC0415 -- Ray may be missing

        with joined(None):
            for arrangement in dict.fromkeys(arrangements):
                with report.measuring(f"Ray Data, {arrangement}"):
                    report.need(2 * setting.size.pipeline_seconds)
                    _figure(report, f"Ray Data, {arrangement}", on_ray(setting, arrangement, count), limits)


def _figure(report: Report, name: str, rate: float, limits: Sequence[float]) -> None:
    report.figure(name, rate, "images/s")
    if limits:
        report.figure(f"{name}: share of the lower limit", rate / min(limits), "(wanted: 0.8)")


class Describe:
    """Stage work: describe images with a bundle; yields when each batch was done."""

    def __init__(self, models: str, device: str) -> None:
        torch.set_num_threads(1)
        self._describer = Describer(load_bundle(models), device)
        self._describer.describe([np.zeros((256, 256, 3), np.uint8)] * WARM_UP)
        (Path(models).parent / READY).touch()

    def __call__(self, read: pa.Table) -> pa.Table:
        """Describe one batch."""
        found = self._describer.describe(images_of(read))
        assert np.isfinite(found.embedding).all()
        return pa.table({"images": [len(read)], "ended": [time.time()]})


def read_once_ready(uri: str, max_pixels: int) -> Picture:
    """Read a file, once the models are loaded."""
    ready, end = Path(uri).parents[2] / READY, time.monotonic() + LONGEST_LOADING
    while not ready.exists() and time.monotonic() < end:
        time.sleep(0.01)
    return read_in_turn(uri, max_pixels)


def on_ray(setting: Setting, arrangement: Arrangement, count: int) -> float:
    """Describe files with the jobs' own stage; images per second from the moment that the models are loaded."""
    import ray  # noqa: PLC0415 -- it may be missing

    from jobs.pipeline.rows import rows_of  # noqa: PLC0415 -- as Ray
    from jobs.pipeline.stage import Pool, Stage, build_dataset  # noqa: PLC0415

    assert setting.models
    ready = setting.folder / READY
    ready.unlink(missing_ok=True)
    listing = listing_of([setting.files[i % len(setting.files)] for i in range(count)])
    reading = Reading(100_000_000, 120.0, read_once_ready)
    gpus = 1.0 if ray.cluster_resources().get("GPU") else 0.0
    if setting.device.type == "cuda" and not gpus:
        raise UnavailableError("Ray sees no GPU")
    stage = Stage(reading, Describe, (str(setting.folder / "models"),), gpu=str(setting.device))
    pool = Pool(arrangement.actors, gpus / arrangement.actors, arrangement.batch)
    rows: list[dict[str, Any]] = list(rows_of(build_dataset(stage, pool, listing)))
    assert sum(row["images"] for row in rows) == count
    ended: float = max(row["ended"] for row in rows)
    return count / (ended - ready.stat().st_mtime)


class Files(Dataset[Pixels]):
    """Pictures of files, as the loader's processes read them."""

    def __init__(self, files: Sequence[str]) -> None:
        self._files = files

    def __len__(self) -> int:
        return len(self._files)

    def __getitem__(self, i: int) -> Pixels:
        return read_picture(self._files[i]).pixels


def stack(images: list[npt.NDArray[np.uint8]]) -> Tensor:
    """Stack pictures of one size, which travel to the describing process in shared memory."""
    return torch.from_numpy(np.stack(images))


def plain_loop(setting: Setting, batch: int, count: int) -> float:
    """Describe in this process what the loader's processes read; images per second after the first batch."""
    describer = Describer(setting.models, str(setting.device))
    describer.describe(setting.many(batch))
    files = Files([setting.files[i % len(setting.files)] for i in range(count)])
    loader = DataLoader(
        files, batch, collate_fn=stack, num_workers=setting.cores, multiprocessing_context="spawn", prefetch_factor=4
    )
    began = 0.0
    for images in loader:
        describer.describe(list(images.numpy()))
        began = began or time.perf_counter()  # the processes have started
    return (count - batch) / (time.perf_counter() - began)
