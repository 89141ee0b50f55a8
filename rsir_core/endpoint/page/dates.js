// The same place at other dates: a strip of what all scenes show of a result's cell, one of which is put beside it.

import { ask } from "./ask.js";
import { picture, thumbnail } from "./picture.js";
import { $, count, heard, make } from "./view.js";

const MOST = 100;

let wanted = null;  // the image id whose dates are shown or on their way

/** Show the dates of a result, if it has a place on the grid; `onPick` is given the row to put beside it, or null. */
export async function showDates({ image_id: imageId, cell }, maxK, onPick) {
  wanted = imageId;
  $("same-place").hidden = true;
  if (!cell) return;
  const body = JSON.stringify({ image_id: imageId, same_place: true, k: Math.min(MOST, maxK) });
  const found = await ask("search", { method: "POST", headers: { "Content-Type": "application/json" }, body }).catch(() => null);
  if (wanted !== imageId || !found || found.results.length < 2) return;  // another is open, or the index has changed
  const { results } = found;
  $("same-place-says").textContent = `The same place, ${count(results.length, "image")}`;
  $("same-place-list").replaceChildren(...results.map((row) => make("li", {}, dateButton(row, imageId, onPick))));
  $("same-place").hidden = false;
  const [list, here] = [$("same-place-list"), $("same-place-list").querySelector(":disabled")];
  list.scrollLeft = here.offsetLeft - (list.clientWidth - here.clientWidth) / 2;
}

/** When a row was acquired, in words. */
export const dateOf = ({ time }) => (time ? time.slice(0, 10) : "no date");

function dateButton(row, imageId, onPick) {
  const isOpen = row.image_id === imageId;
  const moved = isOpen ? "this one" : `moved ${row.distance.toFixed(2)}`;
  const says = [make("span", { textContent: dateOf(row) }), make("span", { className: "soft", textContent: moved })];
  const button = make("button", { type: "button", className: "card", title: row.image_id, disabled: isOpen }, picture(thumbnail(row.image_id), ""), ...says);
  if (isOpen) return button;
  button.append(heard(", show it beside the result"));
  button.setAttribute("aria-pressed", "false");
  button.addEventListener("click", () => {
    const isPicked = button.getAttribute("aria-pressed") === "false";
    for (const other of $("same-place-list").querySelectorAll("[aria-pressed]")) other.setAttribute("aria-pressed", String(isPicked && other === button));
    onPick(isPicked ? row : null);
  });
  return button;
}
