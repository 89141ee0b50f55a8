// What is said of an answer.

import { isSamePicture } from "./cards.js";
import { isFiltered } from "./query.js";
import { count, percent } from "./view.js";

/** What is searched. */
export function about({ images, class_names: names, version, has_detector: hasDetector, has_backbone: hasBackbone }) {
  const classes = names.length ? `of ${names.length} classes` : "without classes, so they are ordered by looks alone";
  const regions = hasDetector ? "" : "; no detector, so every key region is centred on its image";
  const lacks = hasBackbone ? regions : "; made of embeddings without their model, so ask with its own images";
  return `${count(images, "image")} ${classes}, version ${version}${lacks}`;
}

/** What further results were found: so many are shown where there were `before`. */
export function added(before, total) {
  if (total === before) return `There are no more than these ${count(before, "result")}.`;
  return `${before + 1} to ${total} are added: ${count(total, "result")}.`;
}

/** How many are found, how fast, in which order. */
export function inWords({ shown, isDone, query, rankedBy, seconds }, asked, classesFit) {
  if (!shown.length && asked.copies) return noCopy(query, asked);
  if (!shown.length) return isFiltered(asked) ? "No image passes the filters." : "The index has no other image.";
  return `${copies(shown, query, asked)}${isDone ? "" : "The first "}${count(shown.length, "result")} in ${seconds.toFixed(2)} s, nearest first${order(rankedBy, query, asked, classesFit)}.`;
}

/** That the class was left out of it, where it was the page's choice; an index without classes says so itself. */
const order = (rankedBy, query, asked, classesFit) => (query.class && asked.order === "auto" && !asked.copies && rankedBy === "distance" ? ` by looks alone, as ${classesFit ? "the class is unsure" : "the classes do not fit these images"}` : "");

/** How many of what may be a copy are one, told from pixels. */
function copies(shown, query, asked) {
  if (!shown.some((result) => result.same_picture)) return "";
  const n = shown.filter(isSamePicture).length;
  if (!n) return `${noCopy(query, asked)} These look like it: `;
  return `${n === 1 ? "One of these is a copy" : `${n} of these are copies`} of this picture. `;
}

function noCopy(query, asked) {
  const filtered = isFiltered({ ...asked, copies: false });
  return `The index has no ${query.image_id ? "other " : ""}copy of this picture${filtered ? " that passes the filters" : ""}.`;
}

/** That what was found is probably no match; empty: it may be one, or nobody can say. */
export function unlike({ no_match: noMatch }, asked) {
  if (noMatch !== true) return "";
  return isFiltered(asked) ? "Probably not among the images that pass the filters. The closest:" : "Probably not in this index. The closest images:";
}

/** How far to trust that, once and in plain words. */
export function trust({ false_match_rate: falseMatch, false_rejection_rate: falseRejection }) {
  const n = (rate) => Math.round(100 * rate);
  const some = (rate, one, more) => (n(rate) < 1 ? `fewer than 1 ${one}` : `about ${n(rate)} ${n(rate) === 1 ? one : more}`);
  const missing = `Of 100 pictures of a class that the index lacks, ${some(falseMatch, "passes as found", "pass as found")}.`;
  if (falseRejection === null) return missing;
  return `Of 100 of its own images, with the image itself left out, ${some(falseRejection, "gets", "get")} this message all the same. ${missing}`;
}
