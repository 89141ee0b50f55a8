// Within which area is searched: a rectangle, given by its edges or drawn on the map, or a polygon that is drawn.

import { $ } from "./view.js";

const FIELDS = ["west", "south", "east", "north"];

let area = { bbox: null, polygon: null };  // at most one of them

/** Set up once, for an archive that has footprints. `onChange` is called when a person has changed the area. */
export function setUpArea(onChange) {
  $("place").hidden = false;
  for (const name of FIELDS) $(name).addEventListener("change", () => fromFields() && onChange());
  $("unplace").addEventListener("click", () => {
    setArea({});
    onChange();
  });
  setArea({});
}

/** What is searched within: { bbox, polygon }, which are null where it is not one of them. */
export const chosenArea = () => area;

export function setArea({ bbox = null, polygon = null }) {
  area = { bbox, polygon };
  FIELDS.forEach((name, i) => { $(name).value = bbox ? bbox[i] : ""; });
  $("unplace").hidden = !bbox && !polygon;
  $("place-says").textContent = bbox ? inWords(bbox) : polygon ? `a polygon of ${polygon.length} corners` : "anywhere";
  document.dispatchEvent(new CustomEvent("area"));
}

/** The box of the fields, once all four are given. */
function fromFields() {
  const values = FIELDS.map((name) => $(name).valueAsNumber);
  $("north").setCustomValidity(values[3] < values[1] ? "North must not be less than south" : "");
  if (values.some(Number.isNaN) || !FIELDS.every((name) => $(name).reportValidity())) return false;
  setArea({ bbox: values });
  return true;
}

function inWords([west, south, east, north]) {
  const side = (value, [positive, negative]) => `${Math.abs(value)}°${value ? ` ${value < 0 ? negative : positive}` : ""}`;
  return `${side(west, "EW")} to ${side(east, "EW")}, ${side(south, "NS")} to ${side(north, "NS")}`;
}
