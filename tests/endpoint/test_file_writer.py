"""Files to take away leave nothing behind, whenever the client leaves."""

import asyncio
import tempfile
import threading
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from rsir_core import schemas
from rsir_core.endpoint.downloads import CONCURRENT, FileWriter
from rsir_core.export.formats import write_file

IDS = [f"{i:06}.jpg" for i in range(50_000)]
PLACES = {name: pa.nulls(len(IDS), schemas.FEATURES.field(name).type) for name in (schemas.BBOX, schemas.GEOMETRY)}
ROWS = pa.table({"image_id": IDS, **PLACES})
SCOPE = {"type": "http", "method": "GET", "headers": []}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


async def rows() -> pa.Table:
    return ROWS


async def until(condition: Any) -> None:
    while not condition():
        await asyncio.sleep(0.01)


def test_a_client_that_leaves_while_its_file_is_written_leaves_nothing(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    may_write = threading.Event()

    def slowly(*given: Any) -> None:
        assert may_write.wait(30)
        write_file(*given)

    async def check() -> None:
        writer = FileWriter()
        tasks = [asyncio.create_task(writer.respond(rows, "results", "csv")) for _ in range(CONCURRENT)]
        await until(lambda: len(list(folder.iterdir())) == CONCURRENT)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        late = asyncio.create_task(writer.respond(rows, "results", "csv"))
        await asyncio.sleep(0)
        assert len(list(folder.iterdir())) == CONCURRENT  # the threads go on, so it is nobody else's turn
        may_write.set()
        (await late)._folder.cleanup()  # type: ignore[attr-defined]
        await until(lambda: not list(folder.iterdir()))

    monkeypatch.setattr("rsir_core.endpoint.downloads.write_file", slowly)
    asyncio.run(asyncio.wait_for(check(), 60))


@pytest.mark.parametrize("leaves", [False, True])
def test_the_file_goes_when_it_is_sent_or_the_client_has_left(folder: Path, leaves: bool) -> None:
    sent = bytearray()

    async def send(message: dict[str, Any]) -> None:
        sent.extend(message.get("body", b""))
        if leaves and sent:
            raise asyncio.CancelledError

    async def receive() -> dict[str, Any]:
        await asyncio.Event().wait()
        raise AssertionError

    async def check() -> None:
        response = await FileWriter().respond(rows, "results", "csv")
        assert len(list(folder.iterdir())) == 1
        try:
            await response(SCOPE, receive, send)  # type: ignore[arg-type]
        except asyncio.CancelledError:
            assert leaves

    asyncio.run(asyncio.wait_for(check(), 60))
    assert not list(folder.iterdir())
    assert sent.startswith(b'"image_id"') and (leaves or sent.count(b"\n") == len(ROWS) + 1)


def test_what_cannot_be_found_gives_its_turn_back(folder: Path) -> None:
    async def nothing() -> pa.Table:
        raise ValueError

    async def check() -> None:
        writer = FileWriter()
        for _ in range(CONCURRENT + 1):
            with pytest.raises(ValueError):
                await writer.respond(nothing, "results", "csv")
        (await writer.respond(rows, "results", "csv"))._folder.cleanup()  # type: ignore[attr-defined]

    asyncio.run(asyncio.wait_for(check(), 60))
    assert not list(folder.iterdir())
