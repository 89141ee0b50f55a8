"""A server of S3's protocol that does nothing but list a bucket of objects that are not there.

`python -m tests.support.listed_bucket COUNT`; its address is the first line of stdout. Moto takes longer to be given
a thousand objects than this to list a million, and what is measured is who asks.
"""

import sys
from bisect import bisect_left, bisect_right
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

PER_FOLDER = 1000
OBJECT = "<Contents><Key>{}</Key><LastModified>2026-01-01T00:00:00.000Z</LastModified><ETag>&quot;{:032x}&quot;</ETag><Size>65536</Size><StorageClass>STANDARD</StorageClass></Contents>"  # noqa: E501 -- as S3 writes it
FOLDER = "<CommonPrefixes><Prefix>{}</Prefix></CommonPrefixes>"


def key_of(i: int) -> str:
    """In the order of their numbers: a thousand to a folder, fifty folders to one around them."""
    return f"archive/{i // PER_FOLDER // 50:05}/{i // PER_FOLDER:07}/tile{i:010}.jpg"


def page(count: int, asked: dict[str, str]) -> str:
    """The answer to a request of `ListObjectsV2` for a bucket of so many objects."""
    prefix, most, numbers = asked.get("prefix", ""), int(asked.get("max-keys", 1000)), range(count)
    i = max(bisect_left(numbers, prefix, key=key_of), bisect_right(numbers, asked.get("start-after", ""), key=key_of))
    i = int(asked.get("continuation-token", i))
    found: list[str] = []
    while i < count and len(found) < most and (key := key_of(i)).startswith(prefix):
        inside, slash, _ = key[len(prefix) :].partition("/")
        if slash and "delimiter" in asked:
            found.append(FOLDER.format(f"{prefix}{inside}/"))
            i = bisect_left(numbers, f"{prefix}{inside}0", key=key_of)  # 0 comes after the slash
        else:
            found.append(OBJECT.format(key, i))
            i += 1
    goes_on = i < count and key_of(i).startswith(prefix)
    token = f"<NextContinuationToken>{i}</NextContinuationToken>" if goes_on else ""
    state = f"<IsTruncated>{str(goes_on).lower()}</IsTruncated><KeyCount>{len(found)}</KeyCount>{token}"
    return (
        f"<ListBucketResult xmlns='http://s3.amazonaws.com/doc/2006-03-01/'>{state}{''.join(found)}</ListBucketResult>"
    )


def main() -> None:
    """Serve until terminated."""
    count = int(sys.argv[1])

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_HEAD(self) -> None:
            self.send_response(404)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def do_GET(self) -> None:
            asked = {name: values[0] for name, values in parse_qs(urlsplit(self.path).query).items()}
            body = page(count, asked).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/xml")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Nothing: what is written costs time."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    print(f"http://127.0.0.1:{server.server_port}", flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main()
