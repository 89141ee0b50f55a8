// MapLibre with the page's layers: opened once, and what a person does on it.

import { ask } from "./ask.js";
import { setUpDrawing } from "./drawing.js";
import { addLayers, densityFeatures, densityUntil, styleOf } from "./layers.js";
import { loadMapLibre } from "./maplibre.js";
import { coverMap } from "./overlay.js";

const KEYS = "Map: arrows move it, + and − zoom, N and P go from result to result";
const REACH = 4;  // pixels around the pointer

/**
 * Open the map of an archive; an Error where there is no WebGL. `on`: what is called when something is drawn, pointed at,
 * clicked or wrong.
 */
export async function openMap({ bounds: { xmin, ymin, xmax, ymax }, basemap }, on) {
  const maplibre = await loadMapLibre();
  const map = new maplibre.Map({
    container: "map",
    style: styleOf(basemap),
    bounds: [[xmin, ymin], [xmax, ymax]],
    fitBoundsOptions: { padding: 20, maxZoom: 16 },
    attributionControl: basemap ? { compact: true } : false,
    minZoom: -1,
    dragRotate: false,
    pitchWithRotate: false,
    touchPitch: false,
    locale: { "Map.Title": KEYS },
  });
  map.keyboard.disableRotation();
  map.touchZoomRotate.disableRotation();
  map.addControl(new maplibre.NavigationControl({ showCompass: false }), "top-right");
  map.addControl(new maplibre.ScaleControl(), "bottom-right");
  let isStyled = false;
  map.on("error", ({ error }) => {
    if (!basemap || error?.name === "AbortError") return;
    if (!isStyled && !basemap.includes("{z}")) map.setStyle(styleOf(null), { diff: false });
    on.onProblem(`The basemap does not load from ${new URL(basemap).hostname}.`);
  });
  await new Promise((loaded) => { map.once("style.load", loaded); });
  isStyled = true;
  addLayers(map);
  setUpDrawing(coverMap(map, !basemap), on);
  listen(map, on);
  ask("density").then((density) => showDensity(map, density)).catch((error) => on.onProblem(error.message));
  return map;
}

/** Let the map read files of outlines and middles; over once it has, as a second file before that would leave it waiting for the first. */
export async function feed(map, files) {
  const sources = ["footprints", "middles"].map((id) => map.getSource(id));
  const addresses = files.map((file) => URL.createObjectURL(file));
  sources.forEach((source, i) => source.setData(addresses[i]));
  await new Promise((read) => {
    const events = ["sourcedata", "error"];
    const look = () => {
      if (!sources.every((source) => source.loaded())) return;
      for (const event of events) map.off(event, look);
      read();
    };
    for (const event of events) map.on(event, look);
  });
  addresses.forEach(URL.revokeObjectURL);
}

function showDensity(map, density) {
  if (!density.degrees) return;
  map.getSource("density").setData(densityFeatures(density));
  map.setLayerZoomRange("density", 0, densityUntil(density.degrees));
}

/** Pointing at results and clicking them, and keys that go from one to the next. */
function listen(map, on) {
  const bestAt = ({ x, y }) => {
    const found = map.queryRenderedFeatures([[x - REACH, y - REACH], [x + REACH, y + REACH]], { layers: ["middles", "footprints"] });
    return found.length ? Math.min(...found.map(({ id }) => id)) : null;
  };
  let pointer = null;  // where it was last, until that is looked at
  const lookThere = () => {
    const rank = bestAt(pointer);
    pointer = null;
    map.getCanvas().style.cursor = rank ? "pointer" : "";
    on.onPoint(rank);
  };
  map.on("mousemove", ({ point }) => {
    if (!pointer) requestAnimationFrame(lookThere);
    pointer = point;
  });
  map.on("click", ({ point }) => on.onRank({ rank: bestAt(point) ?? NaN }));
  map.getCanvas().addEventListener("keydown", (event) => {
    const by = { n: 1, p: -1 }[event.key.toLowerCase()];
    if (by && !event.ctrlKey && !event.metaKey && !event.altKey) on.onRank({ by });
  });
}
