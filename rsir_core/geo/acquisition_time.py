"""Acquisition times, read from a file's tags or from its name."""

import re
from datetime import UTC, datetime
from typing import Any, Final

# 20240115, 2024-01-15 or 2024_01_15, optionally followed by a time (T101031, 10:10:31, T1010Z, or six digits directly
# after the eight of the date), but not in the middle of a longer number.
_HOUR, _MINUTE, _SECOND = "(?:[01]\\d|2[0-3])", "[0-5]\\d", "[0-5]\\d"
_DATE: Final = re.compile(
    r"(?<!\d)(?P<year>(?:19|20)\d\d)(?P<mark>[-_]?)(?P<month>\d\d)(?P=mark)(?P<day>\d\d)"
    rf"(?:(?:[T_-]|(?<=\d{{8}}))(?P<hour>{_HOUR})[:-]?(?P<minute>{_MINUTE})[:-]?(?P<second>{_SECOND})(?:\.\d+)?Z?"
    rf"|T(?P<h>{_HOUR}):?(?P<m>{_MINUTE})Z?)?(?!\d)"
)


def time_of(dataset: Any) -> datetime | None:
    """Read a TIFF's DateTime tag, which has no zone and is taken as UTC; None if it is absent or malformed."""
    try:
        return datetime.strptime(dataset.tags().get("TIFFTAG_DATETIME", ""), "%Y:%m:%d %H:%M:%S").replace(tzinfo=UTC)
    except ValueError:
        return None


def time_in(uri: str) -> datetime | None:
    """Find the first date in a file's name, with its time of day if it has one, as UTC; None if there is no date.

    Satellite products and drones name files so: S2A_MSIL1C_20240115T101031_…, LC08_…_20230712_…, 2023-07-12.tif,
    DJI_20230712153012_0001_D.jpg.
    """
    path = uri.partition("?")[0] if "://" in uri else uri  # a signed URL's query string has dates of its own
    for found in _DATE.finditer(path.rpartition("/")[2]):
        year, month, day = (int(found[part]) for part in ("year", "month", "day"))
        clock = (found["hour"] or found["h"], found["minute"] or found["m"], found["second"])
        hour, minute, second = (int(part or 0) for part in clock)
        try:
            return datetime(year, month, day, hour, minute, second, tzinfo=UTC)
        except ValueError:  # month 13 or day 40: the digits are no date
            continue
    return None
