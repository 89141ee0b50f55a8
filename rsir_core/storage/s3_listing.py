"""List the objects of an S3 bucket below a prefix: a thousand keys per request, several requests at once.

fsspec lists folder by folder, at least one request each. S3 itself has no folders: it lists keys in byte order,
starting after any key. So the key space is partitioned where folders begin, and each part is listed flat.
"""

from collections import deque
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import Any, Final, NamedTuple

PAGE: Final = 1000  # keys per request, S3's maximum
REQUESTS: Final = 16  # concurrent requests, and pages held
MAX_PARTS: Final = 32  # of the key space; the last page of each overlaps the next part
MAX_FOLDER_REQUESTS: Final = 64  # to find the folders in one

Entry = Mapping[str, Any]  # name, size and ETag, in fsspec's terms


class Part(NamedTuple):
    """Hold a range of keys that remains to be listed; both ends are exclusive.

    Attributes:
        after: key before the range.
        before: key after the range; None: no end.
        token: the store's continuation token.
    """

    after: str
    before: str | None
    token: str | None = None


Page = tuple[list[Entry], Part | None]  # and what remains of its part


def quick(fs: Any) -> Any:
    """Build an s3fs file system that does not parse times, which would take longer than the rest of a page."""
    from aiobotocore.session import AioSession  # noqa: PLC0415 -- of the extra `s3`, as is s3fs

    session = AioSession(**fs.kwargs)  # as s3fs makes it
    session.get_component("response_parser_factory").set_parser_defaults(timestamp_parser=str)
    return type(fs)(**{**fs.storage_options, "session": session, "skip_instance_cache": True})


class Bucket:
    """List part of a bucket.

    Args:
        fs: an s3fs file system.
        root: bucket and prefix.
    """

    def __init__(self, fs: Any, root: str) -> None:
        self._fs = fs
        self._name, key, _ = fs.split_path(root)
        self._prefix = f"{key}/" if key else ""

    def entries(self) -> Iterator[Entry]:
        """Yield every object once, in a reproducible order; only a few pages are held in memory."""
        first, rest = self._list(Part("", None))
        yield from first
        if rest is None:
            return
        parts = iter(self._parted(rest, [entry["name"][len(self._name) + 1 :] for entry in first]))
        pool = ThreadPoolExecutor(REQUESTS, "listing")
        try:
            pages: deque[Future[Page]] = deque(pool.submit(self._list, part) for part in islice(parts, REQUESTS))
            while pages:
                page, more = pages.popleft().result()
                if (part := more or next(parts, None)) is not None:
                    pages.append(pool.submit(self._list, part))
                yield from page
        finally:
            pool.shutdown(cancel_futures=True)

    def _list(self, part: Part) -> Page:
        go_on = {"ContinuationToken": part.token} if part.token else {"StartAfter": part.after} if part.after else {}
        found = self._ask(self._prefix, go_on)
        objects = found.get("Contents", [])
        entries: list[Entry] = [
            {"name": f"{self._name}/{o['Key']}", "size": o["Size"], "ETag": o["ETag"]}
            for o in objects
            if part.after < o["Key"] and (part.before is None or o["Key"] < part.before)
        ]
        is_past = bool(objects) and part.before is not None and objects[-1]["Key"] >= part.before
        is_over = is_past or not found["IsTruncated"]
        return entries, None if is_over else part._replace(token=found["NextContinuationToken"])

    def _parted(self, rest: Part, listed: list[str]) -> list[Part]:
        """Split the rest after the listed keys into parts; into one part if the store does not order keys.

        S3's directory buckets do not, nor can they start after a key.
        """
        level, edges = [self._prefix] * (listed == sorted(listed)), list[str]()
        while level and len(edges) < REQUESTS:
            level = [folder for prefix in level for folder in self._folders(prefix)]
            edges += level
        edges = sorted(edge for edge in edges if edge > max(listed, default=""))
        edges = edges[:: max(1, -(-len(edges) // MAX_PARTS))]
        ends = [*edges, None]
        return [rest._replace(before=ends[0]), *(Part(*between) for between in zip(edges, ends[1:], strict=True))]

    def _folders(self, prefix: str) -> list[str]:
        """List the folders directly below a prefix; not all if there are very many, none if files come first."""
        found: list[str] = []
        go_on: dict[str, str] = {}
        for _ in range(MAX_FOLDER_REQUESTS):
            page = self._ask(prefix, {"Delimiter": "/", **go_on})
            names = [folder["Prefix"] for folder in page.get("CommonPrefixes", [])]
            found += names
            if not names or not page["IsTruncated"]:
                break
            go_on = {"ContinuationToken": page["NextContinuationToken"]}
        return found

    def _ask(self, prefix: str, more: Mapping[str, str]) -> Mapping[str, Any]:
        found: Mapping[str, Any] = self._fs.call_s3(
            "list_objects_v2", Bucket=self._name, Prefix=prefix, MaxKeys=PAGE, **more
        )
        return found
