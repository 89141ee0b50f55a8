# ruff: noqa: E501
"""Bodies that no well-meaning client sends: broken pictures, bombs, malformed forms and JSON."""

import json
import struct
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random
from typing import Any, Final, NamedTuple

import numpy as np
from PIL import Image

from tests.support.rasters import gdal_file, pillow_file, scene
from tests.support.serving import LIMITS, ONE

SHARED: Final = Path(__file__).parents[2].parent / "shared" / "data"
BOUNDARY: Final = "----boundary"
FORM: Final = f"multipart/form-data; boundary={BOUNDARY}"
JSON: Final = "application/json"
PNG: Final = b"\x89PNG\r\n\x1a\n"
SMALL: Final = 60_000  # bytes of a real file that is taken as a seed


class Body(NamedTuple):
    kind: str  # of content
    content_type: str
    data: bytes


def pictures() -> dict[str, bytes]:
    """Sound files of every format and of many sample types, drawn here; and real ones, where they are."""
    pixels = scene(48, 64)
    image, bands = Image.fromarray(pixels), pixels.transpose(2, 0, 1)
    deep = (bands.astype(np.uint16) * 200).astype(np.uint16)
    found = {
        **{kind.lower(): pillow_file(image, kind) for kind in ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF")},
        "cmyk.jpeg": pillow_file(image.convert("CMYK"), "JPEG"),
        "progressive.jpeg": pillow_file(image, "JPEG", progressive=True),
        "palette.png": pillow_file(image.convert("P"), "PNG"),
        "alpha.webp": pillow_file(image.convert("RGBA"), "WEBP", lossless=True),
        "animated.gif": pillow_file(image, "GIF", save_all=True, append_images=[image.rotate(90)]),
        "lzw.tiff": pillow_file(image, "TIFF", compression="tiff_lzw"),
        "jpeg.tiff": pillow_file(image, "TIFF", compression="jpeg"),
        "tiled.tiff": gdal_file(bands, tiled=True, blockxsize=16, blockysize=16, compress="deflate", crs="EPSG:32660"),
        "deep.tiff": gdal_file(deep, compress="lzw", predictor=2),
        "float.tiff": gdal_file(bands.astype(np.float32), compress="zstd"),
        "many.tiff": gdal_file(np.repeat(bands, 4, axis=0), interleave="band"),
        "deep.png": gdal_file(deep, "PNG"),
        "jp2": gdal_file(bands, "JP2OpenJPEG"),
        "deep.jp2": gdal_file(deep, "JP2OpenJPEG"),
    }
    real = [*SHARED.glob("odd_images/*"), *SHARED.glob("geotiff/*"), *SHARED.glob("ucmerced/*/*00.jpg")]
    return found | {f.name: f.read_bytes()[:SMALL] for f in real}


def bombs() -> dict[str, bytes]:
    """Small files that claim to be huge, or are."""
    huge, tiff = 2**31 - 1, Image.new("L", (8, 8))
    return {
        "png header": png(huge, huge, b""),
        "png": png(6000, 6000, zlib.compress(bytes(6001 * 6000), 9)),
        "deep png": png(30_000, 30_000, zlib.compress(bytes(1000)), 16),
        "tiff": pillow_file(tiff, "TIFF").replace(struct.pack("<HHII", 256, 4, 1, 8), struct.pack("<HHII", 256, 4, 1, huge)),
        "sparse tiff": gdal_file(np.zeros((1, 8, 8), np.uint8), height=30_000, width=30_000, sparse_ok=True),
        "huge tile": gdal_file(
            np.zeros((1, 8, 8), np.uint8), height=64, width=64, tiled=True, blockxsize=16_000, blockysize=16_000,
            sparse_ok=True,
        ),
        "tiff of many bands": gdal_file(np.zeros((1, 2, 2), np.uint8), sparse_ok=True, interleave="band").replace(
            struct.pack("<HHI", 277, 3, 1), struct.pack("<HHI", 277, 3, 65_535)
        ),
        "webp": b"RIFF\x1e\0\0\0WEBPVP8X\x0a\0\0\0\0\0\0\0" + b"\xff" * 6 + b"VP8L\0\0\0\0",
        "gif": b"GIF89a\xff\xff\xff\xff\0\0\0,\0\0\0\0\xff\xff\xff\xff\0\x08\x01\x01\0;",
        "bmp": b"BM" + struct.pack("<IHHIIiiHHIIiiII", 54, 0, 0, 54, 40, huge, huge, 1, 24, 0, 0, 0, 0, 0, 0),
        "jpeg": b"\xff\xd8\xff\xc0\0\x11\x08\xff\xff\xff\xff\x03\x01\x11\0\x02\x11\0\x03\x11\0\xff\xd9",
        "jpeg of many scans": pillow_file(tiff, "JPEG").replace(b"\xff\xda", b"\xff\xda\0\x08\1\1\0\0\x3f\0" * 101 + b"\xff\xda"),
        "jp2": b"\xff\x4f\xff\x51\0\x29\0\0" + struct.pack(">8IH", huge, huge, 0, 0, huge, huge, 0, 0, 1) + b"\7\1\1",
    }  # fmt: skip


def png(width: int, height: int, data: bytes, depth: int = 8) -> bytes:
    """A grey PNG of given header and data, with true checksums."""

    def chunk(name: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    header = struct.pack(">IIBBBBB", width, height, depth, 0, 0, 0, 0)
    return PNG + chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def bodies(count: int, seed: int) -> Iterator[Body]:
    """So many, of all kinds in turn."""
    random = Random(seed)
    seeds, all_bombs = list(pictures().values()), list(bombs().values())
    makers: dict[str, Callable[[int], Body]] = {
        "picture": lambda i: form(broken(random, seeds[i % len(seeds)], seeds)),
        "picture too": lambda i: form(broken(random, seeds[i % len(seeds)], seeds)),
        "picture again": lambda i: form(broken(random, seeds[i % len(seeds)], seeds)),
        "bomb": lambda i: form(all_bombs[i % len(all_bombs)]),
        "broken bomb": lambda i: form(broken(random, all_bombs[i % len(all_bombs)], seeds)),
        "random": lambda i: form(random.randbytes(random.choice([0, 1, 7, 100, 5000]))),
        "form": lambda i: some_form(random, seeds),
        "broken form": lambda i: Body("", *malformed(random, seeds)),
        "json": lambda i: Body("", JSON, some_json(random)),
        "broken json": lambda i: Body("", JSON, broken(random, some_json(random), seeds)),
        "other type": lambda i: Body("", other_type(random), random.choice([some_json(random), seeds[i % len(seeds)]])),
    }
    kinds = list(makers)
    for i in range(count):
        kind = kinds[i % len(kinds)]
        yield makers[kind](i // len(kinds))._replace(kind=kind)


def broken(random: Random, data: bytes, others: list[bytes]) -> bytes:
    """Cut short, flipped, overwritten, repeated or grafted."""
    raw = bytearray(data)
    if not raw:
        return b""
    for _ in range(random.choice([1, 1, 2])):
        at = random.randrange(min(len(raw), random.choice([64, 512, len(raw)])) or 1)
        match random.randrange(6):
            case 0:
                del raw[at:]
            case 1:
                for _ in range(random.randint(1, 20)):
                    raw[random.randrange(len(raw))] ^= 1 << random.randrange(8)
            case 2:
                raw[at : at + 4] = random.choice([b"\0\0\0\0", b"\xff\xff\xff\xff", b"\x7f\xff\xff\xff", b"\0\0\0\x80"])
            case 3:
                raw[at:at] = raw[at : at + random.randint(1, 200)]
            case 4:
                other = random.choice(others)
                raw[at:] = other[random.randrange(len(other)) :]
            case 5:
                raw[at : at + random.randint(1, 64)] = random.randbytes(random.randint(0, 64))
        if not raw:
            break
    return bytes(raw)


def form(image: bytes, *fields: tuple[str, str]) -> Body:
    texts = [part(f'name="{name}"', value.encode(errors="replace")) for name, value in fields]
    return Body("", FORM, b"".join([part('name="image"; filename="a"', image), *texts, end()]))


def part(disposition: str, value: bytes, more: str = "") -> bytes:
    head = f"--{BOUNDARY}\r\nContent-Disposition: form-data; {disposition}\r\n{more}\r\n"
    return head.encode(errors="replace") + value + b"\r\n"


def end() -> bytes:
    return f"--{BOUNDARY}--\r\n".encode()


TEXTS: Final = ["", "0", "-1", "1e400", "NaN", "9" * 400, "true", "null", "[", "[" * 3000, "[1,2", "[[1]]", "[NaN,1,2,3]",
                '["a"]', "a,b", "\0", "é" * 50, "0,0,1,1", "[0,0,1e308,1]", "0001-01-01T00:00:00+14:00", "2020", '{"a":1}',
                '[["height","in",[1,"a"]]]', '[["height","==",1e30]]', '[["time",">","x"]]', ONE]  # fmt: skip
FIELDS: Final = ["k", "offset", "version", "classes", "bbox", "box", "start", "end", "where", "positive", "negative",
                 "near_duplicates", "preview", "feature", "class_probabilities", "image_id", "uri", "colour"]  # fmt: skip


def some_form(random: Random, seeds: list[bytes]) -> Body:
    """A sound form of unsound fields, with what is hardly a picture."""
    fields = [(random.choice(FIELDS), random.choice(TEXTS)) for _ in range(random.randint(1, 4))]
    return form(random.choice([b"x", PNG, seeds[0][:100]]), *fields)


def malformed(random: Random, seeds: list[bytes]) -> tuple[str, bytes]:
    """A form that is none, and its content type."""
    image = part('name="image"; filename="a.png"', random.choice(seeds)[:2000])
    bodies: list[bytes] = [
        b"",
        image,  # without an end
        image + b"--",
        end(),
        image.replace(b"\r\n", b"\n") + end(),
        b"--" + image + end(),
        part('name="image"', b"x" * 2000) + end(),
        part('name="image"; filename="a"; filename="b"', b"x") * 3 + end(),
        part("", b"x") + end(),
        part('name=""', b"x") + end(),
        part('name="' + "n" * 50_000 + '"', b"x") + end(),
        part('name="image"; filename="a"', b"x", "X: " + "y" * 100_000 + "\r\n") + end(),
        part('name="image"; filename="a"', b"x", "X: y\r\n" * 5000) + end(),
        part('name="image"; filename="\xff\0"', b"x", "Content-Transfer-Encoding: base64\r\n") + end(),
        part('name="k"', b"1") * 3000 + end(),
        part('name="k"', b"\xff\xfe\x80") + end(),
        part('name="_charset_"', b"utf-7") + image + end(),
        random.randbytes(300),
        broken(random, image + end(), seeds),
    ]
    types = [FORM, FORM, FORM, "multipart/form-data", "multipart/form-data; boundary=", FORM + "x",
             "multipart/form-data; boundary=" + "b" * 5000, 'multipart/form-data; boundary="', "multipart/form-data;;;",
             FORM + "; charset=nonsense", FORM + "; charset=utf-16"]  # fmt: skip
    return random.choice(types), random.choice(bodies)


def other_type(random: Random) -> str:
    return random.choice(["", "image/png", "text/plain", "application/x-www-form-urlencoded", "multipart/mixed",
                          "application/jsonx", "APPLICATION/JSON; charset=utf-16", "/", ";", "a" * 5000])  # fmt: skip


def some_json(random: Random) -> bytes:
    """What is JSON, or nearly."""
    if random.random() < 0.25:
        deep = random.choice([50, 1000, 40_000])
        open_, close = random.choice([("[", "]"), ('{"where":', "}"), ('{"image_id":[', "]}")])
        return (open_ * deep + "1" + close * deep).encode()[: LIMITS.max_bytes]
    if random.random() < 0.1:
        texts = ['{"k":NaN}', '{"k":1e999}', '{"feature":[NaN]}', '{"image_id":"\\ud800"}', '{"a":1,"a":2}', "null", "1",
                 '{"k":' + "9" * 5000 + "}", '{"image_id":"' + "a" * 100_000 + '"}', '"', "\ufeff{}",
                 '{"positive":[' + ",".join(['"a"'] * 20_000) + "]}"]  # fmt: skip
        return random.choice(texts).encode()
    asked = {random.choice(FIELDS): value(random, 3) for _ in range(random.randint(0, 4))}
    if random.random() < 0.7:
        asked.setdefault("image_id", ONE)
    return json.dumps(asked).encode()


def value(random: Random, depth: int) -> Any:
    """Any JSON value."""
    plain: list[Any] = [None, True, 0, 1, -1, 3, 2**63, 2**70, 10**300, 0.5, 1e308, -1e308, float("nan"), float("inf"),
                        *TEXTS, "beach", "height", "==", "in", "not in", "time", "object_score"]  # fmt: skip
    if depth == 0 or random.random() < 0.5:
        return random.choice(plain)
    if random.random() < 0.15:
        return {random.choice(FIELDS): value(random, depth - 1)}
    if random.random() < 0.3:
        column = random.choice(["height", "time", "object_score", "class", "bbox", "image_id", "x"])
        return [[column, random.choice(["==", "<", "in", "not in", "~"]), value(random, depth - 1)]]
    return [value(random, depth - 1) for _ in range(random.choice([0, 1, 2, 4, 8]))]
