"""The paper's tables, filled with what was scored; the paper's own figures beside it on the paper's own archive."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Final

from rsir_core.evaluation import paper
from rsir_core.evaluation.arms import FIXED, Arm, CentreRule, Variation
from rsir_core.evaluation.evaluation import ClassScores, Evaluation, Spread, named
from rsir_core.models.frozen import FROZEN

Cells = dict[str, Spread]
MEASURES: Final = ("map", "anmrr")
FEWEST: Final = 3  # sizes or regions that make a row of figures


@dataclass(frozen=True)
class PaperTable:
    """Hold one table in the form of the paper's.

    Attributes:
        name: of its file.
        title: with its number in the paper.
        groups: of columns, each an mAP and an ANMRR: key in files, heading.
        rows: heading, and the cells by key (`{group}_map`, `{group}_anmrr`); a row may lack some.
        marked: place of the row that is the method's own; None: none is.
    """

    name: str
    title: str
    first: str
    groups: Mapping[str, str]
    rows: list[tuple[str, Cells]]
    marked: int | None = None

    def lines(self) -> list[dict[str, str | float | None]]:
        """Format the lines of a CSV: deviations in columns of their own, where there are several seeds."""
        keys = [f"{group}_{measure}" for group in self.groups for measure in MEASURES]
        wanted = dict.fromkeys(key for _, cells in self.rows for k in keys if k in cells for key in named(k, cells[k]))
        lines: list[dict[str, str | float | None]] = []
        for heading, cells in self.rows:
            found = {key: value for k, cell in cells.items() for key, value in named(k, cell).items()}
            lines.append({self.first: heading, **{key: found.get(key) for key in wanted}})
        return lines


@dataclass(frozen=True)
class Tables:
    """Make those tables that the arms of an evaluation fill."""

    evaluation: Evaluation

    @cached_property
    def comparable(self) -> bool:
        """Tell whether this is the paper's archive."""
        return paper.comparable(self.evaluation.runs[0].labels)

    def all(self) -> list[PaperTable]:
        """Make all tables, by number."""
        found = (
            self.table3(), self.figure4(), self.table4(), self.table5(), self.objects(),
            self.objects_per_class(), self.views(), self.baseline(), self.unseen(),
        )  # fmt: skip
        return [table for table in found if table is not None]

    def table3(self) -> PaperTable | None:
        """Make the table by size of the key region."""
        own, K = self.evaluation.main.variation, self.evaluation.main.components
        taus = sorted({arm.variation.tau for arm in self.evaluation.arms if self._same_but_tau(arm.variation)})
        if len(taus) < FEWEST:
            return None
        groups = {"plain": "all dimensions, plain", "weighted": f"PCA {K}, weighted"}
        rows = []
        for tau in taus:
            cut = own._replace(tau=tau)
            cells = {**self._of("plain", Arm(cut, None, "plain")), **self._of("weighted", Arm(cut, K, "weighted"))}
            rows.append(
                (self._marked(f"{tau:g}", Arm(cut, K, "weighted")), cells | self._paper(paper.TABLE_3.get(tau)))
            )
        title = "Table 3 · Size of the key region"
        return PaperTable("table3", title, "tau", self._with_paper(groups), rows, taus.index(own.tau))

    def figure4(self) -> PaperTable | None:
        """Make the table by dimensions of the features."""
        main = self.evaluation.main
        own = [arm for arm in self.evaluation.arms if arm.variation == main.variation]
        sizes = sorted({arm.components for arm in own if arm.components is not None})
        if len(sizes) < FEWEST:
            return None
        rows = []
        for size in (*sizes, None):
            plain, weighted = (Arm(main.variation, size, distance) for distance in FIXED)
            heading = str(size) if size else f"no PCA ({self.evaluation.dimensions(plain)})"
            heading = self._marked(heading, plain)
            cells = self._of("plain", plain) | self._of("weighted", weighted) | self._paper(paper.FIGURE_4.get(size))
            rows.append((heading, cells))
        groups = self._with_paper({"plain": "plain", "weighted": "weighted"})
        marked = sizes.index(main.components) if main.components in sizes else None
        return PaperTable("figure4", "Figure 4 · Dimensions of the features", "K", groups, rows, marked)

    def table4(self) -> PaperTable | None:
        """Make the table by class: the whole image against the key region."""
        main = self.evaluation.main
        whole = main.variation._replace(tau=1.0)
        arms = {
            "whole_plain": (Arm(whole, None, "plain"), "whole image, plain"),
            "whole": (Arm(whole, main.components, "weighted"), "whole image, weighted"),
            "key_region": (main, "key region, weighted"),
        }
        if main.variation == whole or not all(arm in self.evaluation.arms for arm, _ in arms.values()):
            return None
        per_class = {group: self.evaluation.per_class(arm) for group, (arm, _) in arms.items()}
        rows = []
        for label in per_class["key_region"]:
            cells = {key: cell for group in arms for key, cell in _cells(group, per_class[group][label]).items()}
            rows.append((label, cells | self._both(paper.TABLE_4.get(label))))
        mean = {key: cell for group, (arm, _) in arms.items() for key, cell in self._of(group, arm).items()}
        rows.append(("mean", mean | self._both(paper.TABLE_4_AVERAGE)))
        groups = {group: heading for group, (_, heading) in arms.items()}
        if self.comparable:
            groups |= {"paper_whole": "paper, Org_pic", "paper": "paper, KeyR_pic"}
        return PaperTable("table4", "Table 4 · Classes", "class", groups, rows, len(rows) - 1)

    def classes(self) -> PaperTable:
        """Make the table by class, of the main arm alone, beside the paper's key regions; the hardest first."""
        main = self.evaluation.main
        found = sorted(self.evaluation.per_class(main).items(), key=lambda item: (item[1].map.mean, item[0]))
        rows = [
            (label, _cells("key_region", scores) | self._paper(paper.TABLE_4.get(label, (None, None))[1]))
            for label, scores in found
        ]
        groups = {"key_region": self.evaluation.name(main)} | ({"paper": "paper, KeyR_pic"} if self.comparable else {})
        return PaperTable("classes", "Classes", "class", groups, rows)

    def objects(self) -> PaperTable | None:
        """Make the table by what the key region is centred on."""
        return self._ways("objects", "The representative object", "centred by", lambda v: v.centre)

    def objects_per_class(self) -> PaperTable | None:
        """Compare by class: image centre against the most confident object; the class that gains most first."""
        main = self.evaluation.main
        centres: tuple[CentreRule, CentreRule] = ("image", "confidence")
        arms = [Arm(main.variation._replace(centre=centre), main.components, "weighted") for centre in centres]
        if not all(arm in self.evaluation.arms for arm in arms):
            return None
        image, confident = (self.evaluation.per_class(arm) for arm in arms)
        order = sorted(image, key=lambda label: (image[label].map.mean - confident[label].map.mean, label))
        rows = [(label, _cells("image", image[label]) | _cells("object", confident[label])) for label in order]
        groups = {"image": "image's centre, weighted", "object": "the most confident object, weighted"}
        return PaperTable("objects_per_class", "The representative object · Classes", "class", groups, rows)

    def views(self) -> PaperTable | None:
        """Make the table by how many views of each key region are averaged."""
        return self._ways("views", "Turned views", "views", lambda v: v.views)

    def _ways(
        self, name: str, title: str, heading: str, way_of: Callable[[Variation], object | None]
    ) -> PaperTable | None:
        """Make a table by one thing in which variations differ; None: no arm says which."""
        ways = {arm.variation: way for arm in self.evaluation.arms if (way := way_of(arm.variation)) is not None}
        if not ways:
            return None
        components = self.evaluation.main.components
        rows = [
            (
                str(way),
                self._of("plain", Arm(v, None, "plain")) | self._of("weighted", Arm(v, components, "weighted")),
            )
            for v, way in ways.items()
        ]
        groups = {"plain": "all dimensions, plain", "weighted": f"PCA {components}, weighted"}
        return PaperTable(name, title, heading, groups, rows)

    def table5(self) -> PaperTable | None:
        """Make the table by what each part of the method brings, beside other whole-image descriptions."""
        main = self.evaluation.main
        parts = {
            "plain": Arm(main.variation, None, "plain"),
            "pca": Arm(main.variation, main.components, "plain"),
            "pca weighted": main,
        }
        if main.distance != "weighted" or not all(arm in self.evaluation.arms for arm in parts.values()):
            return None
        peers = [arm for arm in self.evaluation.arms if arm.variation.peer not in (None, FROZEN)]
        rows, named = [], list[Arm]()
        for backbone, layer in (("vgg16", "fc7"), ("resnet50", "pool5")):
            given = [arm for arm in peers if arm.distance == "weighted" and arm.variation.backbone == backbone]
            named += given[:1]
            if given or self.comparable:
                cells = self._of("ours", given[0]) if given else {}
                heading = f"whole image, {backbone} {layer}, weighted"
                rows.append((heading, cells | self._paper(paper.TABLE_5[backbone])))
        rows += [(self.evaluation.name(arm), self._of("ours", arm)) for arm in peers if arm not in named]
        for part, arm in parts.items():
            rows.append((self.evaluation.name(arm), self._of("ours", arm) | self._paper(paper.TABLE_5[part])))
        groups = self._with_paper({"ours": "ours"})
        return PaperTable("table5", "Table 5 · What each part brings", "method", groups, rows, len(rows) - 1)

    def baseline(self) -> PaperTable | None:
        """Make the table from what ImageNet alone gives to the method, as far as the steps between them were scored."""
        main = self.evaluation.main
        frozen = [arm for arm in self.evaluation.arms if arm.variation.peer == FROZEN]
        if not frozen or main in frozen:
            return None
        ways = [Arm(v, None, "plain") for v in (main.variation._replace(tau=1.0), main.variation)]
        steps = dict.fromkeys((*frozen, *ways, replace(main, distance="plain"), main))
        rows = [(self.evaluation.name(arm), self._of("ours", arm)) for arm in steps if arm in self.evaluation.arms]
        title = "The baseline · What ImageNet alone gives"
        return PaperTable("baseline", title, "method", {"ours": "ours"}, rows, len(rows) - 1)

    def unseen(self) -> PaperTable | None:
        """Make the table of images of classes that the classifier has never seen, and of the others."""
        found = self.evaluation.findings.get("unseen")
        if found is None:
            return None
        groups = {name: name for name in ("plain", "weighted", "auto")}
        rows = [
            (f"{words} ({found[kind]['queries']:.0f} queries)", self._unseen(kind, groups))
            for kind, words in (("unseen", "classes never seen"), ("known", "classes trained on"), ("mixed", "both"))
            if found.get(kind) is not None
        ]
        return PaperTable("unseen", "Classes that the classifier has never seen", "images of", groups, rows)

    def _unseen(self, kind: str, ways: Iterable[str]) -> Cells:
        """Fill the cells of one kind of images, which every run has."""
        runs = [run.findings["unseen"][kind] for run in self.evaluation.runs]
        return {f"{way}_{m}": Spread.of([found[way][m] for found in runs]) for way in ways for m in MEASURES}

    def _same_but_tau(self, variation: Variation) -> bool:
        return variation._replace(tau=self.evaluation.main.variation.tau) == self.evaluation.main.variation

    def _marked(self, heading: str, arm: Arm) -> str:
        """Say in a row's heading that its features are averaged, where those of the other rows are not."""
        return f"{heading}, averaged" if self.evaluation.is_averaged(arm) else heading

    def _of(self, group: str, arm: Arm) -> Cells:
        """Fill an arm's cells; none where it was not scored."""
        if arm not in self.evaluation.arms:
            return {}
        return {f"{group}_map": self.evaluation.map(arm), f"{group}_anmrr": self.evaluation.anmrr(arm)}

    def _with_paper(self, groups: dict[str, str]) -> dict[str, str]:
        return groups | ({"paper": "paper"} if self.comparable else {})

    def _paper(self, published: paper.Published | None, group: str = "paper") -> Cells:
        if published is None or not self.comparable:
            return {}
        return {f"{group}_map": Spread(published.map / 100, None), f"{group}_anmrr": Spread(published.anmrr, None)}

    def _both(self, published: tuple[paper.Published, paper.Published] | None) -> Cells:
        whole, key_region = published or (None, None)
        return self._paper(whole, "paper_whole") | self._paper(key_region)


def _cells(group: str, scores: ClassScores) -> Cells:
    return {f"{group}_map": scores.map, f"{group}_anmrr": scores.anmrr}
