"""Options of the endpoint."""

from jobs.command import option
from jobs.options import RayJobConfig


class ServeConfig(RayJobConfig):
    """Answer queries over an index by HTTP until interrupted."""

    index: str = option("URI of the index")
    host: str = option("address to listen on", "127.0.0.1")
    port: int = option("port to listen on; 0: any free one", 8000, ge=0, le=65_535)
    metrics_port: int = option(
        "port of the metrics for Prometheus, on all of this machine's addresses; 0: any free one",
        0,
        ge=0,
        le=65_535,
    )
    num_gpus: float = option("GPUs of the describer; 0 describes on one CPU", 0.0, ge=0)
    partitions: int = option("searchers, each over a share of the index's files", 1, ge=1)
    max_replicas: int = option("most replicas of each searcher, which come and go with the load", 1, ge=1)
    max_describers: int = option("most replicas of the describer", 1, ge=1)
    refresh: float = option("seconds between looks for a newer version of the index", 10.0, ge=0.1)
    tokens: str | None = option(
        "file of `name:sha256` lines: who may ask (python -m jobs.serve_tokens makes them); read when the endpoint is "
        "deployed, so to revoke one deploy with a file of another name; default: everybody",
        None,
    )
    open_in: str | None = option(
        "address of another viewer, to which the page links each result; {lon} {lat} {west} {south} {east} {north} "
        "{uri} {image_id} are filled in, as in https://viewer.example/{lat}/{lon}",
        None,
        pattern="^https?://",
    )
    basemap: str | None = option(
        "what the page's map lies on: raster tiles, as in https://tiles.example/{z}/{x}/{y}.png, or a MapLibre style "
        "with all of its sources on the same host; default: nothing, and the page asks no other host",
        None,
        pattern="^https?://[^/;, ]+/[^; ]+$",
    )
    max_k: int = option(
        "most results per query, over all of its pages; a file to take away has up to 100,000", 10_000, ge=1
    )
    max_bytes: int = option("most bytes per upload", 32_000_000, ge=1)
    max_pixels: int = option("most pixels per upload", 100_000_000, ge=1)
    max_labels: int = option("most labels that one request may save in a collection; 0: none are saved", 1000, ge=0)
    max_concurrency: int = option("queries under way at once; as many again may wait, more are answered 503", 64, ge=1)
