"""Options of the evaluation."""

from jobs.command import option
from jobs.options import DescribingConfig
from rsir_core.search.filter_options import Names


class EvaluateConfig(DescribingConfig):
    """Score retrieval over an index, or over one per seed: mAP and ANMRR per arm and class."""

    index: str = option("URI of the index; with --seeds, `{seed}` in it stands for each")
    report: str = option("folder for metrics.json, tables, plots and report.html")
    split: str | None = option(
        "CSV `uri,label,split`: only `test` rows are queries and database; may hold {seed}", None
    )
    arms: Names = option(
        "comma-separated: key_region, whole_image, the paper's table3, table4, table5, figure4, figure5, objects (the "
        "rules for the representative object), views (how many are averaged) and frozen (what ImageNet alone gives); "
        "all but key_region and figure4 describe the images again; possible duplicates are always read again",
        ("key_region", "whole_image"),
    )
    peers: Names | None = option("for table5: comma-separated URIs of bundles to compare with; may hold {seed}", None)
    weights: str | None = option(
        "for frozen: URI of a state dict (.safetensors, .pth) to start from; default: what the backbone ships", None
    )
    seeds: Names | None = option("comma-separated: evaluate the index of each, and give means and deviations", None)
