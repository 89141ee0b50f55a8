// The result that is open, as a place in the history: Back closes it.

import { focusCard } from "./grid.js";
import { closeResult, openResult, setUpResult } from "./result.js";

let page = null;

/** Set up once. `page`: { found, openIn, maxK, sourceOf, further, onSearch }, the first three as functions of nothing. */
export function setUpOpened(given) {
  page = given;
  setUpResult({ onStep: step, onSearch: page.onSearch, onClose: closed });
}

/** Open a result. */
export function open(imageId) {
  history.pushState({ ...history.state, open: imageId }, "", location.href);
  showOpened();
}

/** Show what the place in the history says, if it is among the results. */
export function showOpened() {
  const { open: imageId } = history.state ?? {};
  if (!imageId) return closeResult();
  const found = page.found();
  const i = found.shown.findIndex((result) => result.image_id === imageId);
  if (i < 0) return;
  openResult({
    result: found.shown[i],
    query: found.query,
    source: page.sourceOf(found.query),
    bars: found.bars,
    place: { number: i + 1, of: found.shown.length, isLast: found.isDone && i + 1 === found.shown.length },
    openIn: page.openIn(),
    maxK: page.maxK(),
  });
}

/** To the next result (1) or the one before (-1). */
async function step(by) {
  const { shown } = page.found();
  const i = shown.findIndex((result) => result.image_id === history.state?.open) + by;
  if (i === shown.length) await page.further();
  if (!shown[i] || !history.state?.open) return;
  history.replaceState({ ...history.state, open: shown[i].image_id }, "", location.href);
  showOpened();
}

/** The keyboard goes to the card of what was open. */
function closed(imageId) {
  if (history.state?.open) history.back();  // else it was closed by that
  focusCard(imageId);
}
