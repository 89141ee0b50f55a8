// Results that are marked good or bad: kept over pages, until they are cleared; and in a collection, if one is chosen.

import { chosenCollection, keepLabel, savedLabel } from "./collection.js";
import { $, heard, make } from "./view.js";

let marked = new Map();  // image id → "good" or "bad"
let applied = new Map();  // those that the results shown are refined by

const ids = (kind) => [...marked].filter(([, its]) => its === kind).map(([id]) => id);

export const marks = () => ({ good: ids("good"), bad: ids("bad") });

/** Take over those that a search was refined by. */
export function setMarks({ good, bad }) {
  marked = new Map([...good.map((id) => [id, "good"]), ...bad.map((id) => [id, "bad"])]);
  applied = new Map(marked);
  showMarks();
}

/** Set up once. `go` is called with the marks to search again with. */
export function setUpMarks(go) {
  $("refine").addEventListener("click", () => go(marks()));
  $("unmark").addEventListener("click", () => {
    const refined = applied.size > 0;
    setMarks({ good: [], bad: [] });
    if (refined) go(marks());
  });
}

/** The marks of this search, image id → label; a collection may have more. */
export const marksOfSearch = () => marked;

const kindOf = (imageId) => marked.get(imageId) ?? savedLabel(imageId);

/** Mark an image, or take that mark away again. */
export function toggleMark(imageId, kind) {
  const label = kindOf(imageId) === kind ? null : kind;
  setMark(imageId, label);
  keepLabel(imageId, label);
}

/** Mark an image in this search alone, or take that mark away (null). */
export function setMark(imageId, kind) {
  if (kind === "good" || kind === "bad") marked.set(imageId, kind);
  else marked.delete(imageId);
  showMarks();
}

/** Mark an image by a key, G or B; returns whether it was one of them. */
export function markByKey(event, imageId) {
  const kind = { g: "good", b: "bad" }[event.key.toLowerCase()];
  if (kind) toggleMark(imageId, kind);
  return Boolean(kind);
}

const unchanged = () => marked.size === applied.size && [...marked].every(([id, kind]) => applied.get(id) === kind);

/** Show on chips and cards what is marked. */
export function showMarks() {
  $("marks").hidden = marked.size === 0 && applied.size === 0;
  $("chips").replaceChildren(...[...marked].map(([id, kind]) => make("li", {}, chip(id, kind))));
  $("refine").disabled = unchanged();
  const refining = unchanged() ? "The results are refined by these." : "Refine searches again: more like the good ones, less like the bad ones.";
  $("marks-say").textContent = marked.size === 0 ? "No image is marked any more." : `${refining}${!$("keeping").hidden && !chosenCollection() ? " To learn from them, keep them in a collection." : ""}`;
  showMarksOn([document]);
}

/** Show what is marked on cards, without a look at all the others. */
export function showMarksOn(items) {
  for (const button of items.flatMap((item) => [...item.querySelectorAll(".mark")])) {
    const { kind, imageId } = button.dataset;
    button.setAttribute("aria-pressed", String(kindOf(imageId) === kind));
  }
}

function chip(id, kind) {
  const button = make("button", {
    type: "button",
    className: `chip ${kind}`,
    title: `${id}\nTake the mark away`,
    onclick: () => {
      toggleMark(id, kind);
      ($("chips").querySelector("button") ?? $("refine")).focus();
    },
  });
  button.append(heard(`Take the mark ${kind} away from `), make("span", { className: "one-line", textContent: id.split("/").at(-1) }));
  button.dataset.kind = kind;
  return button;
}
