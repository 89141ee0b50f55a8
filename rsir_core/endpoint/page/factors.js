// Why a result has its rank: the factors of what ranks, as bars and in words.

import { make, number, percent, readable } from "./view.js";

const FACTORS = [["query_weight", "query-weight"], ["candidate_weight", "candidate-weight"], ["distance", "distance"]];

/** The factors of what ranks: of the weighted distance all three. */
const factorsOf = (rankedBy) => FACTORS.filter(([key]) => rankedBy === "weighted_distance" || key === rankedBy);

/** By how many powers of ten each factor makes what ranks smaller: 0 or more. */
export const shares = (result, rankedBy) => factorsOf(rankedBy).map(([key]) => Math.max(0, -Math.log10(result[key])));

/** A bar's length in powers of ten; a distance of exactly 0, infinitely many of them, counts as two. */
const length = (result, rankedBy) => shares(result, rankedBy).reduce((sum, share) => sum + (Number.isFinite(share) ? share : 2), 0);

/** The scale of all bars: the longest one fills its card. */
export const longest = (results, rankedBy) => Math.max(1, ...results.map((result) => length(result, rankedBy)));

/** How near a result is, from 0 to 1, where 1 is the nearest. */
export const nearness = (result, { scale, rankedBy }) => Math.min(1, length(result, rankedBy) / scale);

/** A bar of one part for each factor. */
export function factorBar(result, { scale, rankedBy }) {
  const element = make("span", { className: "bar" });
  shares(result, rankedBy).forEach((share, i) => {
    const part = make("i", { className: factorsOf(rankedBy)[i][1] });
    // A distance of exactly 0 is infinitely many powers of ten: it takes what is left.
    if (Number.isFinite(share)) part.style.width = `${(100 * share) / scale}%`;
    else part.style.flex = "1";
    element.append(part);
  });
  return element;
}

/** How probable a class is, by its weight; a weight that is the least one says no more than "at least". */
const sure = (weight, least) => `${weight <= least ? "at least " : ""}${percent(1 - weight)} sure`;

/** The factors in words, as elements. */
export function factorWords(result, query, { rankedBy, leastWeight }) {
  const line = (kind, name, words) => make("li", {}, make("i", { className: `part ${kind}` }), make("strong", { textContent: name }), ` ${words}`);
  const looks = line("distance", "Looks:", `the two regions are ${number(result.distance)} apart (0: the same; from 1 on: unlike).`);
  if (rankedBy === "distance") {
    return [make("p", { textContent: "The order is that of the looks alone: how alike the two regions are." }), make("ul", { className: "factors" }, looks)];
  }
  return [
    make("p", { textContent: "Three things are multiplied. The longer a part of the bar, the more it brings this image forward." }),
    make(
      "ul",
      { className: "factors" },
      line("query-weight", "Query:", `${sure(result.query_weight, leastWeight)} that the query shows ${readable(result.class)}, as this image does.`),
      line("candidate-weight", "Result:", `${sure(result.candidate_weight, leastWeight)} that this image shows ${readable(query.class)}, as the query does.`),
      looks,
    ),
  ];
}
