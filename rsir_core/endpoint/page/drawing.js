// A rectangle or a polygon drawn on the map's overlay, in pixels of the map.

import { drawable } from "./drag.js";
import { makeSvg } from "./view.js";

const NEAR = 10;  // pixels: a click so near to the first corner closes the polygon

let tool = null;  // what is being drawn: "rectangle" or "polygon"
let corners = [];  // of the polygon, until it is closed
let on = null;  // see `setUpDrawing`

/** Set up once. `onTool` is given the tool that is in use or null, `onDrawn` its corners, [x, y] each. */
export function setUpDrawing({ svg, draft }, { onTool, onDrawn }) {
  on = { svg, draft, onTool, onDrawn };
  drawable(svg, {
    isOn: () => tool === "rectangle",
    onDraw: (drawn) => show(makeSvg("rect", { x: drawn.x0, y: drawn.y0, width: drawn.x1 - drawn.x0, height: drawn.y1 - drawn.y0 })),
    onDone: (drawn) => (drawn ? finish([[drawn.x0, drawn.y0], [drawn.x1, drawn.y1]]) : show()),
  });
  svg.addEventListener("click", (event) => tool === "polygon" && addCorner(event));
  document.addEventListener("keydown", (event) => tool && keys(event));
}

/** Take up a tool, or lay it down if it is in use: of a polygon with corners enough that closes it. */
export function useTool(name) {
  const isDone = tool === "polygon" && name === tool && corners.length >= 3;
  if (isDone) finish(corners);
  else take(tool === name ? null : name);
}

function take(name) {
  tool = name;
  corners = [];
  show();
  on.svg.classList.toggle("on", name !== null);
  on.onTool(name, 0);
}

function addCorner(event) {
  const { left, top } = on.svg.getBoundingClientRect();
  const corner = [event.clientX - left, event.clientY - top];
  const isClose = corners.length >= 3 && Math.hypot(corner[0] - corners[0][0], corner[1] - corners[0][1]) < NEAR;
  if (isClose || (event.detail > 1 && corners.length >= 3)) return finish(corners);
  if (event.detail > 1) return;  // the second click of a double one
  corners.push(corner);
  showCorners();
}

function showCorners() {
  const dots = corners.map(([cx, cy]) => makeSvg("circle", { cx, cy, r: 5 }));
  show(makeSvg("polyline", { points: corners.join(" ") }), ...dots);
  on.onTool(tool, corners.length);
}

/** Escape gives up, Enter closes a polygon, and Backspace takes its last corner back. */
function keys(event) {
  if (event.key === "Escape") take(null);
  else if (tool !== "polygon" || event.target.closest("input, select, button")) return;
  else if (event.key === "Enter" && corners.length >= 3) finish(corners);
  else if (event.key === "Backspace") {
    corners.pop();
    showCorners();
  }
}

function finish(drawn) {
  const name = tool;
  take(null);
  on.onDrawn(name, drawn);
}

const show = (...elements) => on.draft.replaceChildren(...elements);
