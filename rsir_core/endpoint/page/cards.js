// Images as cards: what is found, and what there is to pick from.

import { nearness } from "./factors.js";
import { picture, thumbnail } from "./picture.js";
import { centreOf, nameOf, placeInWords } from "./place.js";
import { heard, make, readable } from "./view.js";

export const KINDS = {  // what a result may be to the query's picture, where that was looked at
  identical: "the same picture",
  "re-encoded": "the same picture, saved or scaled anew",
  different: "another picture",
};
const MARKS = [["good", "✓", "Good"], ["bad", "✗", "Bad"]];

export const isSamePicture = ({ same_picture: kind }) => kind === "identical" || kind === "re-encoded";

/** Which region of a result was found, in words; empty: its key region. */
export const hitInWords = ({ region_number: number, object_class: kind }) => (number ? `found by its ${readable(kind)}` : "");

/** A result's boxes, as `picture` takes them. */
export const boxesOf = (result) => ({ ...result, objects: result.object_box ? [{ box: result.object_box }] : [] });

function bar(result, bars) {
  const share = Math.round(100 * nearness(result, bars));
  const part = make("i");
  part.style.width = `${share}%`;
  return make("span", { className: "bar" }, part, heard(`, nearness ${share} of 100`));
}

/** One result: a button that opens it, and two that mark it; these are no tab stops, as G and B do the same. */
export function resultCard(result, bars, { onOpen, onMark }) {
  const kind = KINDS[result.same_picture];
  const card = make(
    "button",
    { type: "button", className: "card", title: result.image_id, tabIndex: -1, onclick: () => onOpen(result.image_id) },
    picture(thumbnail(result.image_id), "", boxesOf(result)),
    make(
      "span",
      { className: "line" },
      heard("Result "),
      make("span", { className: "rank", textContent: result.rank }),
      make("span", { className: "class", textContent: ` ${readable(result.class)}` }),
    ),
    bar(result, bars),
    ...(kind ? [make("span", { className: `kind ${isSamePicture(result) ? "same" : ""}`, textContent: kind })] : []),
    ...(hitInWords(result) ? [make("span", { className: "kind", textContent: hitInWords(result) })] : []),
    make("span", { className: "name", textContent: nameOf(result.image_id) }),
    ...(result.time ? [make("span", { className: "time", textContent: result.time.slice(0, 10) })] : []),
    ...(result.bbox ? [make("span", { className: "place", textContent: placeInWords(centreOf(result.bbox), 3) })] : []),
  );
  card.setAttribute("aria-haspopup", "dialog");
  card.setAttribute("aria-keyshortcuts", "G B");
  const item = make("li", {}, card, make("span", { className: "judge" }, ...markButtons(result.image_id, onMark)));
  for (const button of item.querySelectorAll(".mark")) button.tabIndex = -1;
  item.dataset.same = `result-${result.rank}`;
  item.dataset.imageId = result.image_id;
  return item;
}

/** Two buttons that mark an image. */
export function markButtons(imageId, onMark) {
  return MARKS.map(([kind, sign, word]) => {
    const symbol = make("span", { textContent: `${sign} ` });
    symbol.setAttribute("aria-hidden", "true");
    const button = make("button", { type: "button", className: `mark ${kind}`, onclick: () => onMark(imageId, kind) }, symbol, word, heard(`: ${imageId}`));
    button.setAttribute("aria-pressed", "false");
    Object.assign(button.dataset, { kind, imageId });
    return button;
  });
}

/** One image of the index: a button that searches from it. */
export function imageCard(image, onPick) {
  const name = nameOf(image.image_id.split("/").at(-1));
  const card = make(
    "button",
    { type: "button", className: "card", title: `${image.image_id}\nSearch from this image`, onclick: () => onPick(image.image_id) },
    picture(thumbnail(image.image_id), ""),
    heard("Search from "),
    make("span", { className: "name", textContent: name }),
    ...(image.class ? [heard(`, ${readable(image.class)}`)] : []),
  );
  return make("li", {}, card);
}
