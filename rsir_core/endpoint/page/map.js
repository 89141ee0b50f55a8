// The map: where the archive has images, where the results are, and tools to search within an area.

import { areaFeatures, resultFiles } from "./layers.js";
import { chosenArea, setArea } from "./area.js";
import { useTool } from "./drawing.js";
import { extentOf, wrapped } from "./geo.js";
import { feed, openMap } from "./mapview.js";
import { nameOf } from "./place.js";
import { popupOf } from "./popup.js";
import { $, light } from "./view.js";

const WORDS = { rectangle: "Drag a rectangle on the map; Escape gives it up.", polygon: "Click the corners of a polygon; Enter, or this button again, closes it." };
const DRAWN = 2000;  // best results that are drawn, so that any number of them lets the page go on
const TOOLS = { rectangle: "draw-rectangle", polygon: "draw-polygon" };

let page = null;  // { index, onChange, onOpen, onSearch }
let map = null;  // MapLibre's, once it is loaded
let opening = null;  // a promise of it
let results = [];
let writing = new AbortController();
let feeding = Promise.resolve();  // until the map has read what it was given
let lit = null;  // rank of the result that is lit
let popup = null;

/** Set up once, for an archive that has footprints. `given`: what is served, and what to do with an area or a result. */
export function setUpMap(given) {
  page = given;
  $("map-setting").hidden = false;
  $("show-map").addEventListener("change", showPanel);
  document.addEventListener("area", drawArea);
  document.addEventListener("light", (event) => lightUp(rankOf(event.detail)));
  for (const [tool, id] of Object.entries(TOOLS)) $(id).addEventListener("click", () => useTool(tool));
  $("within-view").addEventListener("click", () => choose(viewCorners()));
  $("see-archive").addEventListener("click", () => look(page.index.bounds));
  $("see-results").addEventListener("click", () => look(extentOf(placed().map((result) => result.bbox))));
  showPanel();
}

async function showPanel() {
  $("map-panel").hidden = !$("show-map").checked;
  document.body.classList.toggle("mapped", $("show-map").checked);
  if ($("map-panel").hidden || opening) return;
  try {
    opening = openMap(page.index, { onTool: showTool, onDrawn, onPoint: (rank) => light(rank && `result-${rank}`), onRank, onProblem: sayProblem });
    map = await opening;
  } catch {
    $("map-tools").hidden = $("legend").hidden = $("map").hidden = true;
    sayProblem("This browser cannot draw the map: it needs WebGL. An area can be given by its edges, under Place.");
    return;
  }
  drawArea();
  drawResults(true);
}

const sayProblem = (words) => { $("map-problem").textContent = words; };

/** Show where results are; `isNew`: of another search, so that they are looked at. */
export function showOnMap(shown, isNew) {
  results = shown;
  const [places, all] = [placed().length, results.length];
  $("see-results").hidden = places === 0;
  const limit = places > DRAWN ? ` The best ${DRAWN.toLocaleString("en")} are drawn.` : "";
  $("map-says").textContent = all ? `${places.toLocaleString("en")} of ${all.toLocaleString("en")} results have a place.${limit}` : "";
  if (map) drawResults(isNew);
}

const placed = () => results.filter((result) => result.bbox);

async function drawResults(isNew) {
  writing.abort();
  writing = new AbortController();
  if (isNew) popup?.remove();
  const found = placed().slice(0, DRAWN);
  const { signal } = writing;
  const files = await resultFiles(found, signal);
  if (!files) return;
  feeding = feeding.then(() => signal.aborted || feed(map, files));
  const { bbox, polygon } = chosenArea();
  if (isNew && found.length && !bbox && !polygon) look(extentOf(found.map((result) => result.bbox)));
}

function look({ xmin, ymin, xmax, ymax }) {
  map?.fitBounds([[xmin, ymin], [xmin > xmax ? xmax + 360 : xmax, ymax]], { padding: 30, maxZoom: 16, animate: false });
}

function drawArea() {
  map?.getSource("area").setData(areaFeatures(chosenArea()));
}

/** Corners of what the map shows, in pixels. */
const viewCorners = () => [[0, 0], [map.getContainer().clientWidth, map.getContainer().clientHeight]];

/** Degrees of a place on the map, as exact as a pixel. */
function degrees(pixel) {
  const { lng, lat } = map.unproject(pixel);
  const digits = Math.max(0, Math.ceil(Math.log10((512 * 2 ** map.getZoom()) / 360)));
  return [Number(lng.toFixed(digits)), Number(lat.toFixed(digits))];
}

/** Search within the rectangle of two corners in pixels. */
function choose([upperLeft, lowerRight]) {
  const [[west, north], [east, south]] = [degrees(upperLeft), degrees(lowerRight)];
  const sides = east - west >= 360 ? [-180, 180] : [wrapped(west), wrapped(east)];
  setArea({ bbox: [sides[0], south, sides[1], north] });
  page.onChange();
}

function onDrawn(tool, corners) {
  if (tool === "rectangle") return choose(corners);
  const polygon = corners.map(degrees);
  const turns = Math.round(polygon[0][0] / 360);  // the map may show the earth several times, side by side
  for (const corner of polygon) corner[0] -= 360 * turns;
  if (polygon.some(([lon]) => Math.abs(lon) > 180)) {
    $("map-says").textContent = "A polygon cannot go across 180° of longitude; draw a rectangle.";
    return;
  }
  setArea({ polygon });
  page.onChange();
}

/** Say on the tools which of them is in use, and of a polygon whether it can be closed. */
function showTool(tool, corners) {
  for (const [name, id] of Object.entries(TOOLS)) $(id).setAttribute("aria-pressed", String(name === tool));
  $("draw-polygon").textContent = corners >= 3 ? "Close the polygon" : "Draw a polygon";
  $("map-says").textContent = WORDS[tool] ?? "";
}

const rankOf = (same) => Number(same?.match(/^result-(\d+)$/)?.[1]) || null;

function lightUp(rank) {
  if (!map || rank === lit) return;
  for (const source of ["footprints", "middles"]) {
    if (lit) map.removeFeatureState({ source, id: lit });
    if (rank) map.setFeatureState({ source, id: rank }, { lit: true });
  }
  lit = rank;
}

/** Show what a result is, where it is: one that is clicked (its rank), or the next (by 1) or previous one (-1) in order. */
function onRank({ rank, by }) {
  const found = placed();
  const here = found.findIndex((result) => result.rank === (rank ?? lit));
  const result = found[by ? (Math.max(here, by < 0 ? 0 : -1) + by + found.length) % found.length : here];
  popup?.remove();
  if (!result) return;
  popup = popupOf(result, page).addTo(map);
  $("map-says").textContent = `Result ${result.rank}: ${nameOf(result.image_id)}`;
  if (by && !map.getBounds().contains(popup.getLngLat())) map.panTo(popup.getLngLat(), { animate: false });
  light(`result-${result.rank}`);
}
