"""The files of the search page, of which the map's come from a package of their own."""

from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from fastapi import FastAPI, Request, Response
from starlette.staticfiles import StaticFiles

PAGE: Final = Path(__file__).parent / "page"
MAPLIBRE_FILES: Final = ("maplibre-gl.js", "maplibre-gl.css")


@dataclass(frozen=True)
class PageSettings:
    """Configure what the page shows from elsewhere.

    Attributes:
        open_in: template of a link from a result to another viewer; None: there is none.
        basemap: what the map lies on: a template of raster tiles with {z}, {x} and {y}, or a MapLibre style whose
            sources are on the same host; None: nothing.
    """

    open_in: str | None = None
    basemap: str | None = None

    @property
    def security_headers(self) -> dict[str, str]:
        """The headers that keep the page from loading anything but its own files and the basemap."""
        origin = "" if self.basemap is None else " {0.scheme}://{0.netloc}".format(urlsplit(self.basemap))
        policy = [
            "default-src 'self'", f"connect-src 'self' blob:{origin}", f"img-src 'self' blob: data:{origin}",
            "worker-src blob:",  # MapLibre starts its workers from its own bundle
            "object-src 'none'", "base-uri 'none'",
        ]  # fmt: skip
        return {"Content-Security-Policy": "; ".join(policy), "X-Content-Type-Options": "nosniff"}


ALONE: Final = PageSettings()


def page_files() -> Mapping[str, Path]:
    """Map paths of the endpoint to the page's files."""
    found = {"/" if file.name == "index.html" else f"/{file.name}": file for file in PAGE.iterdir()}
    return found | {f"/maplibre/{name}": _maplibre_folder() / name for name in MAPLIBRE_FILES}


def add_page(app: FastAPI) -> None:
    """Add a route for each file of the page: a mount at `/` would answer other methods by 404 instead of 405."""
    for path, file in page_files().items():
        files = StaticFiles(directory=file.parent)

        async def serve(request: Request, files: StaticFiles = files, name: str = file.name) -> Response:
            response = await files.get_response(name, request.scope)
            response.headers["Cache-Control"] = "no-cache"  # asked for anew each time: files of two releases do not mix
            return response

        app.add_route(path, serve, include_in_schema=False)


def _maplibre_folder() -> Path:
    """Find MapLibre's own files, which the package `maplibre` has, without importing it: it sets up logging."""
    spec = find_spec("maplibre")
    if spec is None or not spec.submodule_search_locations:
        raise ModuleNotFoundError("the package `maplibre` is missing; run `pip install .` again")
    return Path(spec.submodule_search_locations[0]) / "srcjs"
