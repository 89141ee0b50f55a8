// Which images are ranked, and how many are shown: the form's fields.

import { chosenArea, setArea, setUpArea } from "./area.js";
import { isFiltered } from "./query.js";
import { $, make, readable } from "./view.js";

const wide = window.matchMedia("(min-width: 48.01rem)");
const AFTER = 600;  // milliseconds without a change to a date: it is typed in parts

/** Set up once, by what the index has. `onChange` is called when a person has changed something. */
export function setUpFilters(index, onChange) {
  $("k").max = index.max_k;
  $("regions").closest(".field").hidden = index.regions === 1;
  $("filter").hidden = $("order").closest(".field").hidden = !index.class_names.length;
  for (const [name, images] of Object.entries(index.classes)) {
    const box = make("input", { type: "checkbox", value: name });
    $("classes").append(make("label", {}, box, readable(name), make("span", { textContent: images })));
  }
  const changed = () => {
    say();
    if (!whyUnsound()) onChange();
  };
  for (const id of ["k", "order", "regions", "classes", "copies"]) $(id).addEventListener("change", changed);
  $("clear").addEventListener("click", () => {
    tick([]);
    changed();
  });
  if (index.times) {
    $("dates").hidden = false;
    $("times-say").textContent = `Images were acquired from ${index.times[0].slice(0, 10)} to ${index.times[1].slice(0, 10)} (UTC).`;
    let timer;
    const later = () => {
      clearTimeout(timer);
      timer = setTimeout(changed, AFTER);
    };
    for (const id of ["from", "to"]) $(id).addEventListener("change", later);
  }
  if (index.bounds) setUpArea(changed);
  setUpFlyouts();
}

/** Beside the form a filter lies over the results: Escape and a click elsewhere fold it away. */
function setUpFlyouts() {
  const opened = () => document.querySelector(".controls details[open]");
  document.querySelector(".controls").addEventListener("keydown", (event) => {
    const details = opened();
    if (event.key !== "Escape" || !details) return;
    details.open = false;
    details.querySelector("summary").focus();
  });
  document.addEventListener("pointerdown", (event) => {
    const details = opened();
    if (details && wide.matches && !details.contains(event.target)) details.open = false;
  });
}

const boxes = () => [...$("classes").querySelectorAll("input")];

function tick(classes) {
  for (const box of boxes()) box.checked = classes.includes(box.value);
}

/** What the fields say. */
export const readFilters = () => ({
  k: Number($("k").value),
  classes: boxes().filter((box) => box.checked).map((box) => box.value),
  from: $("from").value,
  to: $("to").value,
  ...chosenArea(),
  copies: $("copies").checked,
  regions: $("regions").value,
  order: $("order").value,
});

/** Let the fields say what a query does. */
export function showFilters(query) {
  for (const id of ["k", "order", "regions", "from", "to"]) $(id).value = query[id];
  tick(query.classes);
  $("copies").checked = query.copies;
  setArea(query);
  say();
}

/** Why the fields cannot be asked with, in words that are shown beside the field, too; empty: they can. */
export function whyUnsound() {
  const wrong = $("from").value && $("to").value && $("to").value < $("from").value;
  $("to").setCustomValidity(wrong ? "The last day is before the first" : "");
  if (wrong) $("dates").open = true;  // a field that is not shown cannot say it
  return ["k", "from", "to"].map($).find((field) => !field.reportValidity())?.validationMessage ?? "";
}

function say() {
  const { classes, from, to } = readFilters();
  $("filter-says").textContent = classes.length ? classes.map(readable).join(", ") : "all";
  $("dates-say").textContent = from || to ? [from && `from ${from}`, to && `to ${to}`].filter(Boolean).join(" ") : "any time";
  $("order").disabled = $("regions").disabled = $("copies").checked;  // which are those nearest by looks, as whole scenes
  $("reset").hidden = !isFiltered(readFilters());
}
