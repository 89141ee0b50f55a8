"""What uploads are described at, over HTTP and bare, for the benchmark of the endpoint."""

import functools
import http.client
import io
import multiprocessing
import statistics
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Self

import numpy as np
import torch
from PIL import Image

from rsir_core.backend.batch import BATCH
from rsir_core.models.allocator import keep_activations
from rsir_core.retrieval.describing import QueryDescriber
from rsir_core.retrieval.served_version import open_version

CLIENTS = 16


class Client:
    """One connection, without more work than it takes: its time counts in both endpoints'."""

    def __init__(self, port: int) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the connection; the next request opens another."""
        self._connection.close()

    def post(self, path: str, body: bytes, kind: str = "application/json") -> tuple[int, bytes]:
        self._connection.request("POST", path, body, {"Content-Type": kind})
        return self._answer()

    def get(self, path: str) -> tuple[int, bytes]:
        self._connection.request("GET", path)
        return self._answer()

    def upload(self, path: str, picture: bytes) -> None:
        head = b'--b\r\nContent-Disposition: form-data; name="image"; filename="i.jpg"\r\n\r\n'
        body = head + picture + b'\r\n--b\r\nContent-Disposition: form-data; name="k"\r\n\r\n10\r\n--b--\r\n'
        status, answer = self.post(path, body, "multipart/form-data; boundary=b")
        assert status == 200, answer

    def _answer(self) -> tuple[int, bytes]:
        response = self._connection.getresponse()
        return response.status, response.read()


def pictures() -> list[bytes]:
    """JPEGs of 256 by 256 pixels, one per client."""
    rng, files = np.random.default_rng(1), []
    for _ in range(CLIENTS):
        out = io.BytesIO()
        pixels = rng.integers(0, 256, (8, 8, 3), np.uint8)
        Image.fromarray(pixels).resize((256, 256), Image.Resampling.BICUBIC).save(out, "JPEG", quality=90)
        files.append(out.getvalue())
    return files


def describer_rates(port: int, index: str, images: int) -> dict[str, float]:
    """Images per second, medians of three turns.

    `served`: of 16 clients that upload. `bare`: of the describer in a loop on one thread, with its pictures decoded,
    while nothing else is asked. `bare_beside`: of the same loop while as many uploads per second as were served go to
    the endpoint that does nothing: what clients, proxy, ingress and one more call leave of the machine.
    """
    files, found = pictures(), dict[str, list[float]](bare=[], served=[], bare_beside=[])
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as process:
        process.submit(bare_rate, index, files, BATCH).result()  # loads
        for _ in range(3):
            found["bare"].append(process.submit(bare_rate, index, files, images).result())
            found["served"].append(served_rate(port, files, images))
            with paced(port, files, found["served"][-1]):
                found["bare_beside"].append(process.submit(bare_rate, index, files, images).result())
    return {name: statistics.median(rates) for name, rates in found.items()}


def bare_rate(index: str, files: list[bytes], images: int) -> float:
    """Images per second of the describer, in a process of its own, as in the endpoint."""
    describer = _describer(index)
    batch = [describer.read(data, None) for data in files[:BATCH]]
    began = time.perf_counter()
    for _ in range(images // BATCH):
        describer.describe(batch, [None] * BATCH)
    return images // BATCH * BATCH / (time.perf_counter() - began)


@functools.cache
def _describer(index: str) -> QueryDescriber:
    torch.set_num_threads(1)
    keep_activations()  # as the describer does
    return QueryDescriber(open_version(index), 10**8)


def served_rate(port: int, files: list[bytes], images: int) -> float:
    """Images per second of clients that upload one after the other."""

    def ask(data: bytes) -> None:
        with Client(port) as client:
            for _ in range(images // CLIENTS):
                client.upload("/search", data)

    with ThreadPoolExecutor(CLIENTS) as pool:
        began = time.perf_counter()
        list(pool.map(ask, files))
        return images // CLIENTS * CLIENTS / (time.perf_counter() - began)


@contextmanager
def paced(port: int, files: list[bytes], rate: float) -> Iterator[None]:
    """While the body runs, so many uploads per second to the endpoint that does nothing."""
    ended = threading.Event()

    def ask(data: bytes) -> None:
        due = time.perf_counter()
        with Client(port) as client:
            while not ended.wait(max(0.0, due - time.perf_counter())):
                client.upload("/nothing/search", data)
                due += CLIENTS / rate

    with ThreadPoolExecutor(CLIENTS) as pool:
        asking = [pool.submit(ask, data) for data in files]
        try:
            yield
        finally:
            ended.set()
        for one in asking:
            one.result()
