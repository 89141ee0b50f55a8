"""What lies in an S3 bucket below a prefix: a thousand keys to a request, several requests at a time.

fsspec lists folder by folder, which takes a request for each at least. S3 itself knows no folders: it lists keys in the
order of their bytes, from any one on. So the keys are parted where folders begin, and each part is listed flat.
"""

from collections import deque
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import Any, Final, NamedTuple

PAGE: Final = 1000  # keys of a request; S3 gives no more
REQUESTS: Final = 16  # at once; as many pages are held
PARTS: Final = 32  # of the keys, at most; for each, one last page is fetched that belongs in part to the next
LOOKS: Final = 64  # requests, at most, that look for the folders in one

Entry = Mapping[str, Any]  # name, size and ETag, as fsspec calls them


class Part(NamedTuple):
    """Keys in a row that are still to be listed, without both ends.

    Attributes:
        after: a key.
        before: a key; None: all that come.
        token: of the store, to go on with.
    """

    after: str
    before: str | None
    token: str | None = None


Page = tuple[list[Entry], Part | None]  # and what of its part comes after it


def quick(fs: Any) -> Any:
    """Make an s3fs file system that leaves times as text: parsing them takes longer than all else of a page."""
    from aiobotocore.session import AioSession  # noqa: PLC0415 -- of the extra `s3`; who has such an `fs` has it

    session = AioSession(**fs.kwargs)  # as s3fs makes it
    session.get_component("response_parser_factory").set_parser_defaults(timestamp_parser=str)
    return type(fs)(**{**fs.storage_options, "session": session, "skip_instance_cache": True})


class Bucket:
    """Part of a bucket.

    Args:
        fs: an s3fs file system.
        root: bucket and prefix.
    """

    def __init__(self, fs: Any, root: str) -> None:
        self._fs = fs
        self._name, key, _ = fs.split_path(root)
        self._prefix = f"{key}/" if key else ""

    def entries(self) -> Iterator[Entry]:
        """List every object, once, in an order that is the same each time; a few pages are held, never the listing."""
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
        """Split what is left after these keys into several parts; into one where the store has no order of keys.

        S3's directory buckets have none, nor can they start after a key.
        """
        level, edges = [self._prefix] * (listed == sorted(listed)), list[str]()
        while level and len(edges) < REQUESTS:
            level = [folder for prefix in level for folder in self._folders(prefix)]
            edges += level
        edges = sorted(edge for edge in edges if edge > max(listed, default=""))
        edges = edges[:: max(1, -(-len(edges) // PARTS))]
        ends = [*edges, None]
        return [rest._replace(before=ends[0]), *(Part(*between) for between in zip(edges, ends[1:], strict=True))]

    def _folders(self, prefix: str) -> list[str]:
        """List folders directly in a prefix; not all where they are very many, none where it begins with files only."""
        found: list[str] = []
        go_on: dict[str, str] = {}
        for _ in range(LOOKS):
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
