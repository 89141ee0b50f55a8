"""Uploads per second and their latency in the endpoint's describer, without HTTP and Ray Serve."""

import asyncio
import statistics
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch

from rsir_core.arrays import Pixels
from rsir_core.backend.batch import BATCH, GPU_BATCH, Batcher
from rsir_core.imagery.decode import decode
from rsir_core.models.describe import Describer
from tests.gpu.report import Report
from tests.gpu.setting import Setting

CONCURRENT_DECODES = 2  # as in `rsir_core.backend.describer_worker`, which needs an index


class UploadDescriber:
    """Describe uploads as `describer_worker.DescriberWorker` does: those that come together in one batch."""

    def __init__(self, describer: Describer, largest: int) -> None:
        self._describer = describer
        self._thread, self._decoders = ThreadPoolExecutor(1), ThreadPoolExecutor(CONCURRENT_DECODES)
        self._decoding = asyncio.Semaphore(CONCURRENT_DECODES)
        self._batch: Batcher[Pixels, Any] = Batcher(self._together, largest)
        self.batches: list[int] = []

    async def describe(self, data: bytes) -> Any:
        """Describe one upload."""
        async with self._decoding:
            picture = await asyncio.get_running_loop().run_in_executor(self._decoders, decode, data, "an upload")
        return await self._batch(picture.pixels)

    def close(self) -> None:
        """End the threads."""
        self._thread.shutdown()
        self._decoders.shutdown()

    async def _together(self, images: list[Pixels]) -> list[Any]:
        self.batches.append(len(images))
        found = await asyncio.get_running_loop().run_in_executor(self._thread, self._describer.describe, images)
        return list(found.embedding)


def serve_uploads(setting: Setting, report: Report) -> None:
    """Let clients upload one picture after another."""
    torch.set_num_threads(1)
    files = [Path(file).read_bytes() for file in setting.files]
    describer = Describer(setting.models, str(setting.device))
    for size in (1, 2, 4, BATCH, GPU_BATCH):  # the first of each size is slow
        describer.describe(setting.many(min(size, setting.size.batches[-1])))
    for clients in setting.size.clients:
        for largest in (BATCH, GPU_BATCH) if clients > BATCH else (BATCH,):
            name = f"{clients} clients, at most {largest} at once"
            with report.measuring(name):
                report.need(4 * setting.seconds)
                worker = UploadDescriber(describer, largest)
                began = time.perf_counter()
                latencies = asyncio.run(ask(worker, files, clients, 3 * setting.seconds))
                worker.close()
                report.figure(name, len(latencies) / (time.perf_counter() - began), "uploads/s")
                report.figure(f"{name}: median latency", 1000 * statistics.median(latencies), "ms")
                report.figure(f"{name}: mean size of a batch", statistics.mean(worker.batches), "uploads")


async def ask(worker: UploadDescriber, files: list[bytes], clients: int, seconds: float) -> list[float]:
    """Upload from so many clients for a time; returns the seconds that each upload took."""
    latencies, end = list[float](), time.perf_counter() + seconds

    async def client(number: int) -> None:
        turn = number
        while not latencies or time.perf_counter() < end:
            began = time.perf_counter()
            await worker.describe(files[turn % len(files)])
            latencies.append(time.perf_counter() - began)
            turn += clients

    await asyncio.gather(*(client(number) for number in range(clients)))
    return latencies
