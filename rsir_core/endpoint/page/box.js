// A box on the query's picture, to look for what is in it: dragged on it, or given by its edges in pixels.

import { drawable } from "./drag.js";
import { drawBox } from "./picture.js";
import { $ } from "./view.js";

const FIELDS = ["box-left", "box-top", "box-right", "box-bottom"];
const fields = () => FIELDS.map($);

let svg = null;  // over the picture
let outlines = [];

/** Set up once. `onBox` is given { box: [x0, y0, x1, y1] to search with, or null: the detector's } or { as: what a box is }. */
export function setUpBox(onBox) {
  for (const field of fields()) field.addEventListener("input", () => drawDraft(box()));
  $("box-search").addEventListener("click", () => isSound() && onBox({ box: box() }));
  $("box-fields").addEventListener("keydown", (event) => {
    if (event.key === "Enter" && isSound()) onBox({ box: box() });
  });
  $("undraw").addEventListener("click", () => onBox({ box: null }));
  $("box-as").addEventListener("change", () => onBox({ as: $("box-as").value }));
  return (frame, query, asked, hasDetector) => show(frame, query, asked, hasDetector, onBox);
}

function show(frame, query, { box: drawn, as, file, image_id: imageId }, hasDetector, onBox) {
  svg = frame.querySelector("svg");
  outlines = [];
  $("draw").hidden = !svg;
  $("boxed").hidden = !drawn;
  $("box-as").value = as;
  $("box-as").disabled = !file && imageId === null;  // a link has no picture to describe otherwise
  $("undraw").textContent = hasDetector ? "Use the detector again" : "Take the box away";
  if (!svg) return;
  const { width, height, region, objects } = query;
  const start = objects[0]?.box ?? { x0: region.x, y0: region.y, x1: region.x + region.width, y1: region.y + region.height };
  FIELDS.forEach((id, i) => { $(id).max = i % 2 ? height : width; });
  fill(drawn ?? [start.x0, start.y0, start.x1, start.y1]);
  drawable(svg, {
    // A finger that moves over the picture scrolls the page, unless a box is about to be drawn.
    isOn: (event) => event.pointerType !== "touch" || $("draw").open,
    onDraw: ({ x0, y0, x1, y1 }) => {
      fill([x0, y0, x1, y1]);
      drawDraft(box());
    },
    onDone: (rectangle) => {
      if (rectangle && isSound()) onBox({ box: box() });
      else drawDraft(null);
    },
  });
}

const box = () => fields().map((field) => field.valueAsNumber);

function fill(edges) {
  edges.forEach((edge, i) => { $(FIELDS[i]).value = Math.round(edge); });
}

function drawDraft(edges) {
  for (const outline of outlines) outline.remove();
  if (!svg || !edges || edges.some(Number.isNaN)) return;
  const [x0, y0, x1, y1] = edges;
  if (x0 < x1 && y0 < y1) outlines = drawBox(svg, "draft", { x0, y0, x1, y1 });
}

function isSound() {
  const [x0, y0, x1, y1] = box();
  $("box-right").setCustomValidity(x1 <= x0 ? "Right must be greater than left" : "");
  $("box-bottom").setCustomValidity(y1 <= y0 ? "Bottom must be greater than top" : "");
  return fields().every((field) => field.reportValidity());
}
