// What goes on and what went wrong, in words.

import { $ } from "./view.js";

export function say(words, busy = false) {
  $("status").textContent = words;
  document.body.classList.toggle("busy", busy);
}

export const isBusy = () => document.body.classList.contains("busy");

/** Say what went wrong, wherever on the page one is; null: nothing is wrong any more. */
export function complain(error) {
  $("error").textContent = error?.message ?? "";
  $("error").hidden = $("problem").hidden = !error;
}
