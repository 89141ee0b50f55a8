// A small map: the graticule, what the archive spans, the results' footprints, and a box that filters them.

import { drawable } from "./drag.js";
import { extentOf, projection, spans, ticks } from "./geo.js";
import { $, makeSvg } from "./view.js";

const [WIDTH, HEIGHT] = [320, 220];
const LEAST = 7;  // units that a footprint is shown with at least
const FIELDS = ["west", "south", "east", "north"];

let archive = null;  // its bounds
let results = [];
let view = null;  // what the map shows
let bbox = null;  // the filter
let projected = null;

/** Set up once, for an archive that has footprints. `onChange` is called when another box is chosen. */
export function setUpMap(bounds, onChange) {
  archive = view = bounds;
  $("place").hidden = false;
  drawable($("map"), {
    onDraw: (drawn) => {
      $("map").querySelector(".chosen")?.remove();
      $("map").append(makeSvg("g", { class: "chosen" }, rect(drawn)));
    },
    onDone: (drawn) => {
      if (drawn) setBbox(degrees(drawn));
      else draw();
      if (drawn) onChange();
    },
  });
  $("map").addEventListener("keydown", walk);
  $("map").addEventListener("click", (event) => toCard(event.target.closest(".footprint")));
  for (const name of FIELDS) $(name).addEventListener("change", () => fromFields() && onChange());
  $("unplace").addEventListener("click", () => {
    setBbox(null);
    onChange();
  });
  $("see-archive").addEventListener("click", () => look(archive));
  $("see-results").addEventListener("click", () => look(extentOf(placed().map((result) => result.bbox))));
  setBbox(null);
}

export const chosenBbox = () => bbox;

export function setBbox(chosen) {
  bbox = chosen;
  FIELDS.forEach((name, i) => { $(name).value = chosen ? chosen[i] : ""; });
  $("unplace").hidden = !chosen;
  $("place-says").textContent = chosen ? inWords(chosen) : "anywhere";
  if (archive) draw();
}

/** Show where results are. */
export function showOnMap(shown) {
  results = shown;
  if (archive) draw();
}

const placed = () => results.filter((result) => result.bbox);

function look(extent) {
  view = extent;
  draw();
}

/** The box of the fields, once all four are given. */
function fromFields() {
  const values = FIELDS.map((name) => $(name).valueAsNumber);
  $("north").setCustomValidity(values[3] < values[1] ? "North must not be less than south" : "");
  if (values.some(Number.isNaN) || !FIELDS.every((name) => $(name).reportValidity())) return false;
  setBbox(values);
  return true;
}

function degrees({ x0, y0, x1, y1 }) {
  const [corner, opposite] = [projected.from(x0, y1), projected.from(x1, y0)];
  return [corner.lon, corner.lat, opposite.lon, opposite.lat].map((value) => Number(value.toFixed(projected.digits)));
}

function inWords([west, south, east, north]) {
  const side = (value, [positive, negative]) => `${Math.abs(value)}°${value ? ` ${value < 0 ? negative : positive}` : ""}`;
  return `${side(west, "EW")} to ${side(east, "EW")}, ${side(south, "NS")} to ${side(north, "NS")}`;
}

function draw() {
  projected = projection(view, WIDTH, HEIGHT);
  const lit = $("map").querySelector(".footprint.lit")?.dataset.same;
  const { lines, labels } = graticule();
  const groups = [lines, boxes("archive", archive)];
  if (bbox) groups.push(boxes("chosen", { xmin: bbox[0], ymin: bbox[1], xmax: bbox[2], ymax: bbox[3] }));
  const footprints = placed().map(footprint).reverse();  // the best on top
  footprints.at(-1)?.setAttribute("tabindex", "0");
  $("map").replaceChildren(...groups, labels, ...footprints);
  if (lit) $("map").querySelector(`[data-same="${lit}"]`)?.classList.add("lit");
  $("see-results").hidden = placed().length === 0;
  $("map-says").textContent = results.length ? `${placed().length} of ${results.length} results have a place.` : "";
}

function graticule() {
  const [low, high] = [projected.from(0, HEIGHT), projected.from(WIDTH, 0)];
  const [lines, labels] = [makeSvg("g"), makeSvg("g", { "aria-hidden": "true" })];
  const label = (x, y, text, anchor) => {
    const element = makeSvg("text", { x, y, "text-anchor": anchor });
    element.textContent = text;
    labels.append(element);
  };
  for (const { value, label: text } of ticks(low.lon, high.lon, "EW")) {
    const { x } = projected.at(value, 0);
    lines.append(makeSvg("line", { x1: x, x2: x, y1: 0, y2: HEIGHT }));
    if (x > 40 && x < WIDTH - 16) label(x, HEIGHT - 4, text, "middle");
  }
  for (const { value, label: text } of ticks(low.lat, high.lat, "NS")) {
    const { y } = projected.at(0, value);
    lines.append(makeSvg("line", { x1: 0, x2: WIDTH, y1: y, y2: y }));
    if (y > 12 && y < HEIGHT - 16) label(3, y - 3, text, "start");
  }
  return { lines, labels };
}

function boxes(name, box) {
  return makeSvg("g", { class: name }, ...spans(box).map(([west, east]) => {
    const [a, b] = [projected.at(west, box.ymax), projected.at(east, box.ymin)];
    return rect({ x0: a.x, y0: a.y, x1: b.x, y1: b.y });
  }));
}

function rect({ x0, y0, x1, y1 }, least = 0) {
  const [width, height] = [Math.max(x1 - x0, least), Math.max(y1 - y0, least)];
  return makeSvg("rect", { x: (x0 + x1 - width) / 2, y: (y0 + y1 - height) / 2, width, height });
}

function footprint(result) {
  const group = boxes("footprint", result.bbox);
  group.replaceChildren(...[...group.children].map((one) => {
    const [x, y, width, height] = ["x", "y", "width", "height"].map((name) => Number(one.getAttribute(name)));
    return rect({ x0: x, y0: y, x1: x + width, y1: y + height }, LEAST);
  }));
  const name = `Rank ${result.rank}: ${result.image_id}. Go to it`;
  for (const [key, value] of Object.entries({ role: "button", tabindex: "-1", "aria-label": name })) group.setAttribute(key, value);
  group.dataset.same = `result-${result.rank}`;
  const title = makeSvg("title");
  title.textContent = `${result.rank}: ${result.image_id}`;
  group.append(title);
  return group;
}

/** Arrows go from footprint to footprint in order of rank, Enter to the result's card. */
function walk(event) {
  const footprints = [...$("map").querySelectorAll(".footprint")].reverse();
  const here = footprints.indexOf(document.activeElement);
  const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
  if (here < 0 || (!step && event.key !== "Enter")) return;
  event.preventDefault();
  if (!step) return toCard(footprints[here]);
  const next = footprints[(here + step + footprints.length) % footprints.length];
  footprints[here].setAttribute("tabindex", "-1");
  next.setAttribute("tabindex", "0");
  next.focus();
}

function toCard(group) {
  if (group) document.querySelector(`#grid [data-same="${group.dataset.same}"] .card`)?.focus();
}
