"""Whatever is sent, the endpoint answers in words, keeps its memory, and leaves nothing behind."""

import gc
import http.client
import json
import resource
import socket
import sys
import tempfile
from collections import Counter
from contextlib import closing
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest

from tests.support.bodies import FORM, JSON, Body, bodies, bombs, form, pictures
from tests.support.serving import local_app, serving

COUNT = 5000
ANSWER = {
    "version", "ranked_by", "least_weight", "no_match", "false_match_rate", "false_rejection_rate", "query", "results",
}  # fmt: skip
REFUSED = {404, 413, 415, 422}
GROWTH = 40 * 1024**2  # bytes, of which half is one picture of the limit's size as the models hold it


def resident() -> int:
    """Bytes of this process that are in memory now."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize()


def send(connection: http.client.HTTPConnection, body: Body) -> int:
    headers = {"Content-Type": body.content_type} if body.content_type else {}
    connection.request("POST", "/search", body.data, headers)
    response = connection.getresponse()
    text = response.read()
    if response.status < 500:
        assert set(json.loads(text)) in ({"detail"}, ANSWER), text[:300]
    return response.status


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("temporary")


# Starlette leaves a part's file to the collector where a form ends in an error; the test counts that it is gone.
@pytest.mark.filterwarnings("ignore:.*SpooledTemporaryFile:pytest.PytestUnraisableExceptionWarning")
@pytest.mark.ray
@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="this system does not tell what is in memory")
def test_thousands_of_bodies(index: str, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    statuses: Counter[tuple[str, int]] = Counter()
    wrong: list[tuple[int, Body]] = []
    with serving(local_app(index)) as url:
        monkeypatch.setattr(tempfile, "tempdir", str(place))
        address = urlsplit(url)
        memory = []
        for half in range(2):
            for body in bodies(COUNT // 2, seed=half):
                connection = http.client.HTTPConnection(str(address.hostname), address.port, timeout=60)
                with closing(connection):
                    status = send(connection, body)
                statuses[body.kind, status] += 1
                if status not in {200, *REFUSED}:
                    wrong.append((status, body))
            gc.collect()
            memory.append(resident())
    by_status = Counter[int]()
    for (_, status), count in statuses.items():
        by_status[status] += count
    print(f"\n{statuses.total()} bodies: {dict(sorted(by_status.items()))}; resident {memory[0] >> 20} MiB after half, "
          f"{memory[1] >> 20} MiB at the end", file=sys.__stderr__)  # fmt: skip
    assert not wrong, [(status, body.kind, body.content_type[:80], body.data[:200]) for status, body in wrong[:9]]
    assert {200, 413, 415, 422} <= set(by_status)
    assert memory[1] - memory[0] < GROWTH
    assert not list(place.iterdir())


def test_sound_pictures_are_answered(client: httpx.Client) -> None:
    """What the bodies are made of would be answered, so that it is the breaking that is refused."""
    for name, data in pictures().items():
        if "." in name and name.rpartition(".")[0] not in ("cmyk", "progressive", "palette", "alpha", "animated", "lzw",
                                                           "jpeg", "tiled", "deep", "float", "many"):  # fmt: skip
            continue  # a real one, cut
        body = form(data)
        response = client.post("/search", content=body.data, headers={"Content-Type": body.content_type})
        assert response.status_code == 200, (name, response.text)


def test_bombs_are_refused(client: httpx.Client) -> None:
    for name, data in bombs().items():
        body = form(data)
        response = client.post("/search", content=body.data, headers={"Content-Type": body.content_type})
        assert response.status_code in (413, 415, 422), (name, response.text[:200])


@pytest.mark.parametrize(
    "head",
    [
        f"Content-Type: {JSON}\r\nContent-Length: 100000",  # more than comes
        f"Content-Type: {FORM}\r\nContent-Length: 100000",
        f"Content-Type: {JSON}\r\nContent-Length: 1",  # less
        f"Content-Type: {JSON}\r\nContent-Length: -1",
        f"Content-Type: {JSON}\r\nContent-Length: 1e3",
        f"Content-Type: {JSON}\r\nContent-Length: 99999999999999999999999",
        f"Content-Type: {JSON}\r\nContent-Length: 2\r\nContent-Length: 3",
        f"Content-Type: {JSON}\r\nTransfer-Encoding: chunked",  # which the body is not
        "Content-Length: 2\r\nX-Long: " + "x" * 200_000,
    ],
)
def test_lengths_that_are_not_true(url: str, client: httpx.Client, head: str) -> None:
    address = urlsplit(url)
    with socket.create_connection((str(address.hostname), address.port or 80), timeout=30) as connection:
        connection.sendall(f'POST /search HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{head}\r\n\r\n{{"k":'.encode())
        connection.shutdown(socket.SHUT_WR)
        answer = b"".join(iter(lambda: connection.recv(65_536), b""))
    status = int(answer.split()[1]) if answer else None  # None: closed without a word to who has left
    assert status is None or 400 <= status < 500, answer[:200]
    assert client.get("/healthz").status_code == 200
