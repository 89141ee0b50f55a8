"""URLs that are signed by Microsoft's own package, against a token server and a store on loopback that check them."""

import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import fsspec
import numpy as np
import pystac
import pytest

from rsir_core.archive.hrefs import as_it_lies, href_of, suffix_of
from rsir_core.archive.items import ItemSelection
from rsir_core.archive.kinds import BandChoice
from rsir_core.archive.stac import list_items
from rsir_core.errors import ImageError
from rsir_core.imagery.decode import Pictures, read_picture
from rsir_core.imagery.reading import Reading, listing_of, read_files
from rsir_core.storage.signing import SignedUri, without_signatures
from tests.support.rasters import gdal_file

sas = pytest.importorskip("planetary_computer.sas", reason="planetary-computer is not installed")
HOST = "http://account.blob.core.windows.net/scenes"
RNG = np.random.default_rng(0)


class Store(ThreadingHTTPServer):
    """A proxy that is the token server and the store: each token is good until it is withdrawn."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Answers)
        self.files: dict[str, bytes] = {}
        self.tokens = 0
        self.good: set[str] = set()
        self.refused = 0


class Answers(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Store

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        url = urlsplit(self.path)
        if url.path.startswith("/token/"):
            self.server.tokens += 1
            token = f"se=2030&sig=secret{self.server.tokens}"
            self.server.good.add(f"secret{self.server.tokens}")
            expiry = (datetime.now(UTC) + timedelta(hours=1)).isoformat()
            self.answer(200, f'{{"token": "{token}", "msft:expiry": "{expiry}"}}'.encode())
        elif parse_qs(url.query).get("sig", [""])[0] not in self.server.good:
            self.server.refused += 1
            self.answer(403, b"")
        elif (data := self.server.files.get(url.path)) is None:
            self.answer(404, b"")
        else:
            self.part(data)

    def part(self, data: bytes) -> None:
        asked = self.headers.get("Range")
        if asked is None:
            self.answer(200, data)
            return
        first, last = asked.removeprefix("bytes=").split("-")
        end = min(int(last or len(data) - 1), len(data) - 1)
        self.answer(206, data[int(first) : end + 1], **{"Content-Range": f"bytes {first}-{end}/{len(data)}"})

    def answer(self, status: int, body: bytes, **headers: str) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), "Accept-Ranges": "bytes", **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        """Say nothing."""


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch) -> Iterator[Store]:
    """Whatever is asked of Azure's hosts goes to it, in this process and in those that it starts."""
    server = Store()
    threading.Thread(target=server.serve_forever, daemon=True).start()
    here = f"http://127.0.0.1:{server.server_port}"
    monkeypatch.setenv("PC_SDK_SAS_URL", f"{here}/token")
    for name in ("http_proxy", "HTTP_PROXY"):
        monkeypatch.setenv(name, here)
    monkeypatch.setenv("FSSPEC_HTTP_CLIENT_KWARGS", '{"trust_env": true}')
    monkeypatch.setitem(fsspec.config.conf, "http", {"client_kwargs": {"trust_env": True}})
    sas.Settings.get.cache_clear()
    sas.TOKEN_CACHE.clear()
    yield server
    server.shutdown()
    server.server_close()
    sas.Settings.get.cache_clear()
    sas.TOKEN_CACHE.clear()


@pytest.fixture
def bands(store: Store) -> Any:
    samples = RNG.integers(1, 250, (3, 1500, 1500)).astype(np.uint8)
    for name, band in zip(("B4", "B3", "B2"), samples, strict=True):
        store.files[f"/scenes/s_{name}.tif"] = gdal_file(band[None], tiled=True, blockxsize=64, blockysize=64)
    return samples.transpose(1, 2, 0)


def catalogue(folder: Path, query: str = "") -> str:
    item = pystac.Item("one", None, None, datetime(2024, 1, 1, tzinfo=UTC), {})
    for name, band in (("red", "B4"), ("green", "B3"), ("blue", "B2")):
        item.add_asset(name, pystac.Asset(f"{HOST}/s_{band}.tif{query}", media_type=pystac.MediaType.COG))
    pystac.ItemCollection([item]).save_object(str(folder / "items.json"))
    return str(folder / "items.json")


WANTED = ItemSelection(bands=BandChoice(("red", "green", "blue")), sign="planetary-computer")


def test_bands_are_read_by_signed_urls_that_nobody_sees(tmp_path: Path, store: Store, bands: Any) -> None:
    (file,) = list_items(catalogue(tmp_path), WANTED)
    assert file.uri == f"planetary-computer+{HOST}/s_{{band}}.tif#band=B4,B3,B2"
    assert file.size == sum(map(len, store.files.values()))
    np.testing.assert_array_equal(read_picture(file.uri).pixels, bands)
    assert store.tokens == 1  # kept while it is good
    sas.TOKEN_CACHE.clear()  # another day, another signature
    (again,) = list_items(catalogue(tmp_path, "?sig=secret0&se=2020"), WANTED)
    assert again == file and store.tokens == 2
    store.files["/scenes/s_B3.tif"] += b"\0"
    (changed,) = list_items(catalogue(tmp_path), WANTED)
    assert changed.etag != file.etag
    assert "sig" not in str([file, again, changed]) and "secret" not in str([file, again, changed])


def test_an_expired_signature_is_renewed(tmp_path: Path, store: Store, bands: Any) -> None:
    (file,) = list_items(catalogue(tmp_path), WANTED)
    store.good.clear()  # before anything is opened
    np.testing.assert_array_equal(read_picture(f"{file.uri}#xywh=0,0,64,64").pixels, bands[:64, :64])
    assert store.refused and store.tokens == 2
    with Pictures() as pictures:  # and while a scene is open
        pictures.read(f"{file.uri}#xywh=0,0,64,64")
        store.good.clear()
        found = pictures.read(f"{file.uri}#xywh=1400,1400,64,64").pixels
    np.testing.assert_array_equal(found, bands[1400:1464, 1400:1464])
    store.good.clear()
    whole = f"planetary-computer+{HOST}/s_B4.tif"
    np.testing.assert_array_equal(read_picture(whole).pixels[..., 0], bands[..., 0])


def test_a_store_that_refuses_says_no_secret(store: Store, bands: Any) -> None:
    uris = [f"planetary-computer+{HOST}/{name}" for name in ("s_B4.tif", "none.tif", "s_B4.tif#number=1")]
    store.good = Nothing()
    for uri in uris:
        with pytest.raises(ImageError) as refused:
            read_picture(uri)
        assert (refused.value.stage, refused.value.kind) == ("read", "denied")
        assert "secret" not in str(refused.value) and refused.value.__cause__ is None
    store.good = set()
    with pytest.raises(ImageError) as missing:
        read_picture(uris[1])
    assert missing.value.kind == "missing" and "secret" not in str(missing.value)


class Nothing(set[str]):
    """No token is good."""

    def add(self, _: str) -> None:
        """Do not."""


@pytest.mark.slow
def test_sandboxed_readers_sign_too(tmp_path: Path, store: Store, bands: Any) -> None:
    (file,) = list_items(catalogue(tmp_path), WANTED)
    read = read_files(listing_of([f"{file.uri}#xywh=0,0,64,64"]), Reading(10_000_000, 60))
    assert read["message"].to_pylist() == [None] and "secret" not in str(read.drop(["pixels"]).to_pylist())


def test_names_of_signed_files() -> None:
    uri = "planetary-computer+https://a.blob.core.windows.net/c/x%20y.tif"
    assert SignedUri.parse(uri) == ("planetary-computer", uri.removeprefix("planetary-computer+"))
    assert SignedUri.parse("https://a/b.tif") is SignedUri.parse("git+https://a/b.tif") is None
    assert href_of(uri) == uri.removeprefix("planetary-computer+") and as_it_lies(uri) == uri
    assert suffix_of(uri) == ".tif"
    said = "403, message='Forbidden', url='https://a/b.tif?sv=1&sig=x%2B' (https://c/d?sig=y)"
    assert without_signatures(said) == "403, message='Forbidden', url='https://a/b.tif' (https://c/d)"
