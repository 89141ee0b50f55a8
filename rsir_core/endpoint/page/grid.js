// A grid of cards that is one tab stop: arrows go from card to card, Home and End to the first and the last.

import { addToLists, clearLists, itemAt, itemOf } from "./lists.js";
import { markByKey } from "./marks.js";
import { $ } from "./view.js";

const cards = () => [...$("grid").querySelectorAll(".card")];

/** Set up once. G and B mark the image of the card that has the keyboard. */
export function setUpGrid() {
  $("grid").addEventListener("focusin", (event) => {
    if (event.target.matches(".card")) makeCurrent(event.target);
  });
  $("grid").addEventListener("keydown", (event) => {
    const card = event.target.closest(".card");
    if (!card || event.ctrlKey || event.metaKey || event.altKey) return;
    const marks = markByKey(event, card.closest("li").dataset.imageId);
    const next = nextOf(card, event.key);
    if (marks || next) event.preventDefault();
    next?.focus();
  });
}

const SLICE = 100;  // cards that are drawn without a pause
let round = 0;  // counts searches, so that cards of an earlier one are not drawn any more
let filling = null;  // until the cards are drawn that were given

/** Draw the cards of results, made by `toCard`, after those that are there or, `isNew`, in their stead; `onDrawn` is called with each slice of items. */
export function fillGrid(results, toCard, isNew, onDrawn) {
  if (isNew) {
    round += 1;
    filling = null;
    clearLists(toCard, (items) => {
      keepTabStop();
      onDrawn(items);
    });
  }
  const mine = round;
  const fill = async () => {
    for (let i = 0; i < results.length; i += SLICE) {
      if (i) await new Promise((go) => { setTimeout(go); });
      if (mine !== round) return;
      addToLists(results.slice(i, i + SLICE));
    }
    if (mine === round) filling = null;
  };
  if (filling) filling = filling.then(fill);
  else if (results.length > SLICE) filling = fill();
  else fill();
}

/** Make the first card the tab stop, unless one is. */
function keepTabStop() {
  if (!$("grid").querySelector('.card[tabindex="0"]')) cards()[0]?.setAttribute("tabindex", "0");
}

/** Let the tab key come to this card, and no other. */
function makeCurrent(card) {
  for (const other of $("grid").querySelectorAll('.card[tabindex="0"]')) other.setAttribute("tabindex", "-1");
  card.setAttribute("tabindex", "0");
}

/** Bring the keyboard to the card of an image. */
export const focusCard = (imageId) => itemOf(imageId)?.querySelector(".card").focus();

function nextOf(card, key) {
  if (key === "Home" || key === "End") return itemAt(key === "End" ? -1 : 0).querySelector(".card");
  const all = cards();
  const place = all.indexOf(card);
  const across = all.filter((one) => one.getBoundingClientRect().top === all[0].getBoundingClientRect().top).length;
  const step = { ArrowRight: 1, ArrowLeft: -1, ArrowDown: across, ArrowUp: -across }[key];
  return step === undefined ? null : (all[place + step] ?? card);
}
