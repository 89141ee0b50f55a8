// What was learned from the marks of a collection: images by their probability, or those that are worth most to mark next.

import { ask } from "./ask.js";
import { markButtons } from "./cards.js";
import { chosenCollection } from "./collection.js";
import { readFilters } from "./filters.js";
import { showMarks, toggleMark } from "./marks.js";
import { picture, thumbnail } from "./picture.js";
import { nameOf } from "./place.js";
import { isFiltered } from "./query.js";
import { say } from "./status.js";
import { $, count, heard, make, percent, readable } from "./view.js";

const PAGE = 24;

let page = null;
let learned = null;  // the collection whose images are listed
let words = "";  // what is said of them
let scroll = 0;  // where the list was left
let shown = 0;
let underWay = new AbortController();  // of the request whose answer is shown; another one ends it

/** Set up once. `page`: { onPick, onError, onLearned, show, onBack }; `onLearned` is told the collection, before `show`. */
export function setUpLearning(given) {
  page = given;
  for (const id of ["learn", "learn-again"]) $(id).addEventListener("click", learn);
  $("learned-order").addEventListener("change", () => list());
  $("threshold").addEventListener("input", sayThreshold);
  $("threshold").addEventListener("change", () => list());
  $("learned-format").addEventListener("change", linkOut);
  $("learned-more").addEventListener("click", () => list(true));
  $("unlearn").addEventListener("click", () => page.onBack());
}

const address = (name) => `collections/${encodeURIComponent(name)}`;

function learn() {
  const name = chosenCollection();
  const post = { method: "POST", headers: { "Content-Type": "application/json" }, body: "{}" };
  return present(name, `${address(name)}/learn`, post, () => page.onLearned(name));
}

/** Return to what was learned from a collection, as the history says; after a reload it is asked for again. */
export async function returnToLearned(name) {
  if (name !== learned) return present(name, `${address(name)}/scorer`);
  page.show();
  say(words);
  window.scrollTo(0, scroll);
}

async function present(name, path, options = {}, onAnswer = () => {}) {
  say("Learning from the marks …", true);
  try {
    const answer = await ask(path, options, (wait) => say(wait, true));
    learned = name;
    $("estimate").textContent = inWords(answer);
    $("learned-title").textContent = `Learned from ${name}`;
    onAnswer();
    page.show();
    await list();
    $("learned-title").focus();
  } catch (error) {
    say("");
    page.onError(error);
  }
}

function inWords({ positives, negatives, estimate }) {
  const from = `From ${positives} good and ${negatives} other images.`;
  if (!estimate) return `${from} Too few to say how well it does: at least 5 of either kind are needed, from different places.`;
  const n = (rate) => Math.round(100 * rate);
  const right = estimate.precision === null ? "it took none for good" : `of 100 that it takes for good, about ${n(estimate.precision)} are`;
  const apart = estimate.separated_by === "cells" ? "of places" : "of scenes";
  return `${from} Tried on marked images ${apart} that it had not learned from: ${right}; of 100 good ones it finds about ${n(estimate.recall)}.`;
}

/** From the first or further on. */
async function list(further = false) {
  underWay.abort();
  const { signal } = (underWay = new AbortController());
  const isBest = $("learned-order").value === "best";
  const offset = further ? shown : 0;
  // Whose answer is sure needs no mark, so the threshold is about the best alone.
  const parameters = new URLSearchParams({ order: $("learned-order").value, threshold: isBest ? $("threshold").value : 0, labelled: isBest, offset, limit: PAGE });
  say("Scoring the images …", true);
  try {
    const answer = await ask(`${address(learned)}/scored?${parameters}`, { signal }, (wait) => say(wait, true));
    if (signal.aborted) return;
    const cards = answer.results.map(card);
    if (further) $("learned-grid").append(...cards);
    else $("learned-grid").replaceChildren(...cards);
    shown = offset + cards.length;
    $("learned-more").hidden = shown >= answer.total;
    words = isBest ? found(answer.total) : `${shown} of ${count(answer.total, "image")}, the least certain first.`;
    if (isFiltered(readFilters())) words += " The filters do not apply here.";
    say(words);
    showMarks();
  } catch (error) {
    if (signal.aborted) return;
    say("");
    page.onError(error);
  }
  sayThreshold();
}

function found(total) {
  const score = percent(Number($("threshold").value));
  return `${count(total, "image")} score${total === 1 ? "s" : ""} at least ${score}; ${shown < total ? `the first ${shown} are` : "all are"} shown.`;
}

function sayThreshold() {
  $("threshold-says").textContent = percent(Number($("threshold").value));
  linkOut();
}

function linkOut() {
  const format = $("learned-format").value;
  $("learned-download").href = `${address(learned)}/scored/download?format=${format}&threshold=${$("threshold").value}`;
}

function card(row) {
  const part = make("i");
  part.style.width = `${100 * row.score}%`;
  const button = make(
    "button",
    { type: "button", className: "card", title: `${row.image_id}\nSearch from this image`, onclick: () => searchFrom(row.image_id) },
    picture(thumbnail(row.image_id), ""),
    make("span", { className: "line" }, heard("Search from "), `${percent(row.score)} good${row.class ? `, ${readable(row.class)}` : ""}`),
    make("span", { className: "bar" }, part),
    make("span", { className: "name", textContent: nameOf(row.image_id) }),
  );
  return make("li", {}, button, make("span", { className: "judge" }, ...markButtons(row.image_id, toggleMark)));
}

function searchFrom(imageId) {
  scroll = window.scrollY;
  page.onPick(imageId);
}
