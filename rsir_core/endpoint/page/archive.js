// The images of the index, to pick one from.

import { ask } from "./ask.js";
import { imageCard } from "./cards.js";
import { $, make, readable } from "./view.js";

const PAGE = 48;  // images shown at a time

let shown = 0;
let listing = 0;  // counts listings, so that a late one does not overwrite a newer

/** Set up once. `onPick` is given an image id, `onError` what goes wrong. */
export function setUpArchive(index, onPick, onError) {
  $("of-class").closest(".field").hidden = !index.class_names.length;
  for (const [name, images] of Object.entries(index.classes)) {
    $("of-class").append(make("option", { value: name, textContent: `${readable(name)} (${images})` }));
  }
  const list = (further = false) => listImages(further, onPick).catch(onError);
  $("find").addEventListener("submit", (event) => event.preventDefault());
  $("contains").addEventListener("input", () => list());
  $("of-class").addEventListener("change", () => list());
  $("more").addEventListener("click", () => list(true));
  list();
}

/** From the first or further on. */
async function listImages(further, onPick) {
  const mine = ++listing;
  const offset = further ? shown : 0;
  const parameters = new URLSearchParams({ contains: $("contains").value, offset, limit: PAGE });
  if ($("of-class").value) parameters.set("class", $("of-class").value);
  const { total, images } = await ask(`images?${parameters}`);
  if (mine !== listing) return;
  const cards = images.map((image) => imageCard(image, onPick));
  if (further) $("images").append(...cards);
  else $("images").replaceChildren(...cards);
  shown = offset + images.length;
  $("more").hidden = shown >= total;
  $("archive-says").textContent = total ? `${shown} of ${total} images` : "No image of the index is like that.";
}
