// Cards of results in lists, of which only those near the view are filled: what a browser does for a card that is added,
// shown or marked grows with those that are there, and a search may have a hundred thousand.

import { $, make } from "./view.js";

const FULL = 420;  // cards of a list: whole lines, of up to 7 cards
const NEAR = 2000;  // pixels from the view within which a list is filled

let lists = [];  // { element, results, isFilled }
let toCard = null;
let onDrawn = null;
const watch = new IntersectionObserver((entries) => entries.forEach(follow), { rootMargin: `${NEAR}px 0px` });
window.addEventListener("resize", () => lists.filter((list) => !list.isFilled).forEach(reserve));

/** Begin anew. `make` makes the item of a result; `drawn` is called with items whenever some are drawn. */
export function clearLists(make, drawn) {
  watch.disconnect();
  [lists, toCard, onDrawn] = [[], make, drawn];
  $("grid").replaceChildren();
}

/** Add results after the last, in a further list once it is full. */
export function addToLists(results) {
  let rest = results;
  while (rest.length) {
    const list = lists.at(-1)?.results.length < FULL ? lists.at(-1) : begin();
    const taken = rest.slice(0, FULL - list.results.length);
    list.results.push(...taken);
    if (list.isFilled) draw(list, taken);
    else reserve(list);
    rest = rest.slice(taken.length);
  }
}

/** The item of an image, which is drawn if it is not; undefined: it is not among the results. */
export function itemOf(imageId) {
  const list = lists.find(({ results }) => results.some((result) => result.image_id === imageId));
  if (!list) return undefined;
  fill(list);
  return [...list.element.children].find((item) => item.dataset.imageId === imageId);
}

/** The first item (0) or the last one (-1), which is drawn if it is not. */
export function itemAt(place) {
  const list = lists.at(place);
  fill(list);
  return [...list.element.children].at(place);
}

function begin() {
  const element = make("ol", { className: "grid", start: lists.length * FULL + 1 });
  const list = { element, results: [], isFilled: lists.length === 0 };
  lists.push(list);
  $("grid").append(element);
  watch.observe(element);
  return list;
}

function follow({ target, isIntersecting }) {
  const list = lists.find(({ element }) => element === target);
  if (!list || !target.checkVisibility()) return;  // while another section is shown, all stays as it is
  if (isIntersecting) fill(list);
  else if (list.isFilled && !target.contains(document.activeElement)) empty(list);
}

function draw(list, results) {
  const items = results.map(toCard);
  list.element.append(...items);
  onDrawn(items);
}

function fill(list) {
  if (list.isFilled) return;
  list.isFilled = true;
  list.element.style.blockSize = "";
  draw(list, list.results);
}

function empty(list) {
  list.isFilled = false;
  list.element.style.blockSize = `${list.element.offsetHeight}px`;
  list.element.replaceChildren();
}

/** Let a list that is not filled be as high as its cards will be, by those of one that is. */
function reserve({ element, results }) {
  const { element: other, results: its } = lists.find((list) => list.isFilled) ?? {};
  if (!other) return;
  const columns = getComputedStyle(other).gridTemplateColumns.split(" ").length;
  const lines = (n) => Math.ceil(n / columns);
  element.style.blockSize = `${(other.offsetHeight / lines(its.length)) * lines(results.length)}px`;
}
