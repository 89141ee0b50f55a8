"""Which results are wanted and in which order, as users write it on the command line, in a request or in Python."""

from typing import Annotated, Final, Literal

from pydantic import Field, FiniteFloat

from rsir_core.search.filter_options import FilterOptions

DistanceName = Literal["weighted", "plain", "auto"]  # auto: see `Ranking.settled`
RegionsName = Literal["auto", "key", "objects", "all"]  # auto: see `Ranking.of`
COMPARED: Final = 20  # nearest results whose pixels are compared


class RankingOptions(FilterOptions):
    """Say which rows are ranked, by what, and how many of the best are wanted."""

    k: Annotated[int, Field(ge=1, description="how many results")] = 20
    near_duplicates: Annotated[
        bool,
        Field(
            description="only images within Euclidean distance 0.2, where copies saved or scaled anew usually lie; "
            f"look-alikes can lie there too, so `same_picture` compares the pixels of the first {COMPARED}"
        ),
    ] = False
    distance: Annotated[
        DistanceName,
        Field(
            description="the order: weighted (distance × class weights), plain (Euclidean), or auto (weighted if the "
            "classes fit the archive and the query's nearest rows are probably of its class, with weights of at least "
            "0.1; else plain)"
        ),
    ] = "auto"
    regions: Annotated[
        RegionsName,
        Field(
            description="which regions of the images are searched: key (key regions), objects (those around further "
            "objects, which an index made with --regions has), all (both, as far as there are), or auto (all for a "
            "drawn box, else key)"
        ),
    ] = "auto"
    max_distance: Annotated[
        FiniteFloat | None, Field(ge=0, description="only results up to this distance, of the one that ranks them")
    ] = None
