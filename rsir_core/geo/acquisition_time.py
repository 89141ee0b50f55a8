"""When an image was taken: by the tags of its file, else by its name."""

import re
from datetime import UTC, datetime
from typing import Any, Final

# 20240115, 2024-01-15 or 2024_01_15, perhaps with a time (T101031, 10:10:31, T1010Z, or the six digits right behind the
# eight of the date), but not in the middle of a longer number.
_HOUR, _MINUTE, _SECOND = "(?:[01]\\d|2[0-3])", "[0-5]\\d", "[0-5]\\d"
_DATE: Final = re.compile(
    r"(?<!\d)(?P<year>(?:19|20)\d\d)(?P<mark>[-_]?)(?P<month>\d\d)(?P=mark)(?P<day>\d\d)"
    rf"(?:(?:[T_-]|(?<=\d{{8}}))(?P<hour>{_HOUR})[:-]?(?P<minute>{_MINUTE})[:-]?(?P<second>{_SECOND})(?:\.\d+)?Z?"
    rf"|T(?P<h>{_HOUR}):?(?P<m>{_MINUTE})Z?)?(?!\d)"
)


def time_of(dataset: Any) -> datetime | None:
    """Read the TIFF's DateTime, which has no zone and counts as UTC; None: there is none that can be read."""
    try:
        return datetime.strptime(dataset.tags().get("TIFFTAG_DATETIME", ""), "%Y:%m:%d %H:%M:%S").replace(tzinfo=UTC)
    except ValueError:
        return None


def time_in(uri: str) -> datetime | None:
    """Find the first date in a file's name, with its time of day if there is one, as UTC; None: there is none.

    As satellites' products and drones' pictures are named: S2A_MSIL1C_20240115T101031_…, LC08_…_20230712_…,
    2023-07-12.tif, DJI_20230712153012_0001_D.jpg.
    """
    path = uri.partition("?")[0] if "://" in uri else uri  # not when a link was signed
    for found in _DATE.finditer(path.rpartition("/")[2]):
        year, month, day = (int(found[part]) for part in ("year", "month", "day"))
        clock = (found["hour"] or found["h"], found["minute"] or found["m"], found["second"])
        hour, minute, second = (int(part or 0) for part in clock)
        try:
            return datetime(year, month, day, hour, minute, second, tzinfo=UTC)
        except ValueError:  # the 40th of a month: some other number
            continue
    return None
