"""Answer queries over an index by HTTP, until interrupted: `python -m jobs.serve`, or on a cluster by Ray Serve."""

import sys
from typing import TYPE_CHECKING, Any

from jobs.command import Job, from_mapping
from jobs.serving.options import ServeConfig
from rsir_core.errors import ConfigError

if TYPE_CHECKING:
    from ray.serve import Application

serve_index = Job("serve", ServeConfig, "jobs.serving.serve:serve_index")


def application(args: dict[str, Any]) -> "Application":
    """Build what `serve run` and `serve deploy` ask for by `import_path: jobs.serve:application`; see `ServeConfig`.

    Raises:
        ConfigError: see `from_mapping`; or an option that only `python -m jobs.serve` has.
    """
    from jobs.serving.deployment import build  # noqa: PLC0415 -- brings Ray

    if odd := sorted({"host", "port", "metrics_port", "address", "json"}.intersection(map(str, args))):
        raise ConfigError(
            f"args: {odd[0]}: the cluster has its own; host and port are under http_options, the metrics' port is Ray's"
        )
    return build(from_mapping(ServeConfig, "args", args))


if __name__ == "__main__":
    sys.exit(serve_index.main())
