"""Options of the export of labels."""

from jobs.command import JobConfig, option


class LabelsConfig(JobConfig):
    """Export a collection's labels as CSV (uri,label), as finetune_classifier takes them; or list the collections."""

    index: str = option("URI of the index")
    collection: str | None = option("name of the collection; default: all are listed", None)
    out: str | None = option("URI of the file to write; default: the labels are printed", None)
