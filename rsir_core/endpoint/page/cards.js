// Images as cards; of results also why they have their rank, and whether they are marked.

import { picture, thumbnail } from "./picture.js";
import { make, number, percent, readable } from "./view.js";

const FACTORS = [["query_weight", "query-weight"], ["candidate_weight", "candidate-weight"], ["distance", "distance"]];
const KINDS = {  // what a result may be to the query's picture, where that was looked at
  identical: "the same picture",
  "re-encoded": "the same picture, saved or scaled anew",
  different: "another picture",
};
const MARKS = [["good", "✓", "Good"], ["bad", "✗", "Bad"]];

/** The factors of what ranks: of the weighted distance all three. */
const factorsOf = (rankedBy) => FACTORS.filter(([key]) => rankedBy === "weighted_distance" || key === rankedBy);

/** By how many powers of ten each factor makes what ranks smaller: 0 or more. */
export const shares = (result, rankedBy) => factorsOf(rankedBy).map(([key]) => Math.max(0, -Math.log10(result[key])));

/** A bar's length in powers of ten; a distance of exactly 0, infinitely many of them, counts as two. */
const length = (result, rankedBy) => shares(result, rankedBy).reduce((sum, share) => sum + (Number.isFinite(share) ? share : 2), 0);

/** The scale of all bars: the longest one fills its card. */
export const longest = (results, rankedBy) => Math.max(1, ...results.map((result) => length(result, rankedBy)));

function bar(result, scale, rankedBy) {
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

export const isSamePicture = ({ same_picture: kind }) => kind === "identical" || kind === "re-encoded";

/** A name that breaks between its parts. */
const named = (name) => make("span", { className: "name" }, ...name.split(/(?<=[/_-])/).flatMap((part) => [part, make("wbr")]));

/** One result: a button that searches from it, and two that mark it. */
export function resultCard(result, { scale, rankedBy }, { onPick, onMark }) {
  const value = number(result[rankedBy]);
  const factors = factorsOf(rankedBy).map(([key]) => number(result[key])).join(" × ");
  const kind = KINDS[result.same_picture];
  const card = make(
    "button",
    { type: "button", className: "card", title: `${result.image_id}\nSearch from this image`, onclick: () => onPick(result.image_id) },
    picture(thumbnail(result.image_id), "", { ...result, objects: result.object_box ? [{ box: result.object_box }] : [] }),
    make(
      "span",
      { className: "line" },
      make("span", {}, make("span", { className: "rank", textContent: result.rank }), readable(result.class)),
      make("span", { className: "percent", textContent: result.class && percent(result.probability) }),
    ),
    bar(result, scale, rankedBy),
    make("span", { className: "product", textContent: rankedBy === "distance" ? `distance ${value}` : `${value} = ${factors}` }),
    ...(kind ? [make("span", { className: `kind ${isSamePicture(result) ? "same" : ""}`, textContent: kind })] : []),
    named(result.image_id),
    ...(result.time ? [make("span", { className: "time", textContent: result.time.slice(0, 10) })] : []),
  );
  const acquired = result.time ? `, acquired ${result.time.slice(0, 10)}` : "";
  card.setAttribute(
    "aria-label",
    `Rank ${result.rank}: ${result.class && `${readable(result.class)}: `}${result.image_id}, ${result.class && `${percent(result.probability)} probable, `}` +
      `${rankedBy.replace("_", " ")} ${value}${rankedBy === "distance" ? "" : ` = ${factors}`}${kind ? `, ${kind}` : ""}${acquired}. Search from it`,
  );
  const item = make("li", {}, card, make("span", { className: "judge" }, ...MARKS.map((mark) => markButton(result.image_id, mark, onMark))));
  item.dataset.same = `result-${result.rank}`;
  return item;
}

function markButton(imageId, [kind, sign, word], onMark) {
  const button = make("button", { type: "button", className: `mark ${kind}`, onclick: () => onMark(imageId, kind) });
  button.append(make("span", { textContent: `${sign} ` }), word);
  button.firstChild.setAttribute("aria-hidden", "true");
  button.setAttribute("aria-label", `${word}: ${imageId}`);
  button.setAttribute("aria-pressed", "false");
  Object.assign(button.dataset, { kind, imageId });
  return button;
}

/** One image of the index: a button that searches from it. */
export function imageCard(image, onPick) {
  const name = image.image_id.split("/").at(-1);
  const card = make(
    "button",
    { type: "button", className: "card", title: `${image.image_id}\nSearch from this image`, onclick: () => onPick(image.image_id) },
    picture(thumbnail(image.image_id), ""),
    make("span", { className: "name", textContent: name }),
  );
  card.setAttribute("aria-label", `Search from ${image.image_id}${image.class && `, ${readable(image.class)}`}`);
  return make("li", {}, card);
}
