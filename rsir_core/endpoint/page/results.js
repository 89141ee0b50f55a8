// The results of a query: pages of them, and those of earlier queries, to which Back returns.

import { ask } from "./ask.js";
import { hidden, toRequest } from "./query.js";

const AT_ONCE = 1000;  // results of a request, however many are wanted at a time: more come as one scrolls
const KEPT = 20;  // answers that Back returns to without asking again
const kept = new Map();  // by what was asked

export const recall = (key) => kept.get(key);

export function keep(answer) {
  kept.delete(answer.key);
  kept.set(answer.key, answer);
  if (kept.size > KEPT) kept.delete(kept.keys().next().value);
}

/**
 * Ask for the next results and add them to `into`: { shown, next, isDone }, of which `next` counts rows of the endpoint.
 *
 * The query itself and images marked bad are left out; others take their places.
 */
export async function addPage(into, asked, maxK, signal, onWait) {
  const out = hidden(asked);
  const wanted = Math.min(asked.k, AT_ONCE);
  const k = Math.min(wanted + out.length, maxK - into.next);
  const answer = await ask("search", { ...toRequest(asked, into.next, k), signal }, onWait);
  const rows = answer.results.filter(({ image_id }) => !out.includes(image_id));
  const taken = rows.slice(0, wanted).map((row, i) => ({ ...row, place: row.rank, rank: into.shown.length + i + 1 }));
  const isAll = taken.length === rows.length;
  into.next = isAll ? into.next + answer.results.length : taken.at(-1).place;
  into.isDone = (isAll && answer.results.length < k) || into.next >= maxK;
  into.shown.push(...taken);
  return { answer, taken };
}
