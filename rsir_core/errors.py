"""All errors that users can cause, one class per cause. Every message names the offending value and the remedy."""

from typing import Final, Literal

FailureStage = Literal["list", "read", "decode", "describe"]
FailureKind = Literal[
    "missing",  # listed, but gone when it was read
    "denied",  # the store refuses access
    "empty",  # zero bytes
    "too_large",  # over the byte or pixel limit, found before allocating
    "unsupported",  # a sample type or layout that has no 8-bit RGB meaning (complex, no bands)
    "no_data",  # every pixel is nodata
    "corrupt",  # the decoder refuses it or reads past its end
    "memory",  # the decoder needs more memory than it may have
    "timeout",  # it is not read within its time: the store hangs, or the decoder
    "crash",  # the decoder's process does not survive it
    "error",  # anything else; the message has the details
]
QueryErrorKind = Literal[
    "invalid",  # it asks for what no index, or not this one, can answer
    "unknown",  # it names an image, a class or a version that is not there
    "too_large",  # it has more bytes or pixels than are taken
    "unsupported",  # it is in a format that is not taken
    "unreachable",  # the archive's store refuses or fails
    "busy",  # it may be answered later
]
REFUSED: Final[tuple[FailureKind, ...]] = (
    "denied",
    "error",
)  # at stage `read` a later try may succeed


class RsirError(Exception):
    """Base of all errors that a user can cause and fix; a job prints the message on one line and exits 1."""


class ConfigError(RsirError):
    """A job's configuration has an unknown key or an invalid value; the job exits 2."""


class ArchiveError(RsirError):
    """The archive as a whole cannot be listed or opened."""


class ImageError(RsirError):
    """Report that a file that should be an image cannot become one; it ends as a row in `failures`.

    Attributes:
        stage: the stage that failed.
        kind: the cause, from a closed list, so that failures can be counted.
    """

    def __init__(self, message: str, stage: FailureStage, kind: FailureKind) -> None:
        super().__init__(message, stage, kind)  # all three, so that it survives pickling between workers
        self.message, self.stage, self.kind = message, stage, kind

    @property
    def is_refused(self) -> bool:
        """Tell whether the store failed rather than the file: credentials expire, networks fail."""
        return is_refusal(self.stage, self.kind)

    def __str__(self) -> str:
        return self.message


def is_refusal(stage: str | None, kind: str | None) -> bool:
    """Tell whether a stage and kind mean that the store failed rather than the file."""
    return stage == "read" and kind in REFUSED


class LabelError(RsirError):
    """Labels or boxes for fine-tuning are missing, or contradict the images."""


class WeightsError(RsirError):
    """Model weights cannot be read, or do not fit the architecture."""


class BundleError(RsirError):
    """A model bundle is missing or incomplete, or differs from the one that the index was made with."""


class TableError(RsirError):
    """An index, one of its versions or one of its tables is missing, damaged, or not of our format."""


class LeaseError(RsirError):
    """Another run holds the index's lease, or has taken it over from this run."""


class ConflictError(RsirError):
    """Another writer has committed to a table that this run was about to change."""


class StorageError(RsirError):
    """A store cannot be opened, read or written: it is full, out of reach, or refuses access."""


class ReadOnlyError(StorageError):
    """A store lets an index be read and not be written, as labels would have to be."""


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
