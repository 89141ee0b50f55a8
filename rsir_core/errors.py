"""What can go wrong, by whose doing. Every message names the offending value and the remedy."""

from typing import Final, Literal

FailureStage = Literal["list", "read", "decode", "describe"]
FailureKind = Literal[
    "missing",  # listed, gone when it was read
    "denied",  # the store refuses access
    "empty",  # zero bytes
    "too_large",  # over the byte or pixel limit, found before allocating
    "unsupported",  # a sample type or layout that has no 8-bit RGB meaning (complex, no bands)
    "no_data",  # every pixel is nodata
    "corrupt",  # the decoder refuses it or reads past its end
    "memory",  # the decoder needs more memory than it may have
    "timeout",  # it is not read within its time: the store hangs, or the decoder
    "crash",  # the decoder's process does not survive it
    "error",  # anything else; the message says what
]
QueryErrorKind = Literal[
    "invalid",  # it asks for what no index, or not this one, can answer
    "unknown",  # it names an image, a class or a version that is not there
    "too_large",  # it has more bytes or pixels than are taken
    "unsupported",  # it is in a format that is not taken
    "unreachable",  # the archive's store refuses or fails
    "busy",  # it may be answered later
]
REFUSED: Final[tuple[FailureKind, ...]] = ("denied", "error")  # at stage `read`: by the store, so a later try may do


class RsirError(Exception):
    """Base of all errors a user can cause and mend; a job prints the message as one line and exits 1."""


class ConfigError(RsirError):
    """A job's configuration has an unknown key or a value that it does not take; exit code 2."""


class ArchiveError(RsirError):
    """The archive as a whole cannot be listed or opened."""


class ImageError(RsirError):
    """Report that a file that should be an image cannot become one; it ends as a row in `failures`.

    Attributes:
        stage: where it was found out.
        kind: what is wrong, from a closed list, so that failures can be counted.
    """

    def __init__(self, message: str, stage: FailureStage, kind: FailureKind) -> None:
        super().__init__(message, stage, kind)  # all three, so that it survives pickling between workers
        self.message, self.stage, self.kind = message, stage, kind

    @property
    def is_refused(self) -> bool:
        """Tell whether the failure is the store's and not the file's: credentials expire, networks fail."""
        return is_refusal(self.stage, self.kind)

    def __str__(self) -> str:
        return self.message


def is_refusal(stage: str | None, kind: str | None) -> bool:
    """Say whether a failure tells of the store rather than of the file: credentials expire, networks fail."""
    return stage == "read" and kind in REFUSED


class LabelError(RsirError):
    """Labels or boxes for fine-tuning are missing or contradict the images."""


class WeightsError(RsirError):
    """Model weights cannot be had, or do not fit the architecture."""


class BundleError(RsirError):
    """A model bundle is missing, incomplete, or not the one that an index was made with."""


class TableError(RsirError):
    """An index, a version of it or one of its tables is missing or was written by something else."""


class LeaseError(RsirError):
    """Another run is changing the index, or has taken it over from this one."""


class ConflictError(RsirError):
    """Somebody else has changed a table that this run was about to change."""


class StorageError(RsirError):
    """A store cannot be opened, or does not take what is written: it is full, out of reach, or refuses."""


class QueryError(RsirError):
    """Report that a query cannot be answered as asked.

    Attributes:
        kind: what is wrong, from a closed list.
    """

    def __init__(self, message: str, kind: QueryErrorKind = "invalid") -> None:
        super().__init__(message, kind)  # both, so that it survives pickling between workers
        self.message, self.kind = message, kind

    def __str__(self) -> str:
        return self.message
