"""What is published already: whether a run has anything to publish, which it finds out without Ray."""

from jobs.indexing.options import IndexConfig
from rsir_core import schemas
from rsir_core.archive.listing import Root, root_of
from rsir_core.index.diff import Plan, anti, semi
from rsir_core.index.index import Index
from rsir_core.index.no_match import has_no_match_threshold


def is_published(index: Index, plan: Plan, config: IndexConfig) -> bool:
    """Tell whether `features` already matches the listing, so that no cluster is needed."""
    published = index.keys("features", [schemas.PCA])
    if len(published) == 0 or config.refit_pca:
        return False
    if not has_no_match_threshold(index, index.version()):
        return False  # the last run was killed just before, or was of an earlier version of this package
    if has_moved(index, archive_root(plan, config)):
        return False
    current = semi(index.keys("embeddings"), plan.listing)
    pca = index.pca(published[schemas.PCA][0].as_py())
    if config.components is None:
        has_components = not pca.has_outgrown(len(index.bundle_settings().classes), len(current))
    else:
        has_components = len(pca.components) == config.components
    is_alike = has_components and config.average_neighbours in (None, pca.neighbours)
    return is_alike and len(anti(current, published)) == len(anti(published, current)) == 0


def archive_root(plan: Plan, config: IndexConfig) -> Root | None:
    """Find the archive's root; None for a catalogue and for vectors, whose images may lie anywhere."""
    has_root = config.item_selection is None and config.vectors is None
    first = plan.listing.slice(0, 1).to_pylist() if has_root else []
    return root_of(first[0][schemas.URI], first[0][schemas.IMAGE_ID]) if first else None


def has_moved(index: Index, root: Root | None) -> bool:
    """Tell whether the archive has moved since it was published; the first row tells, as all rows have one root."""
    if root is None:
        return False
    row = index.first_row(index.feature_files()[0]).select([schemas.URI, schemas.IMAGE_ID]).to_pylist()[0]
    return root_of(row[schemas.URI], row[schemas.IMAGE_ID]) not in (root, None)
