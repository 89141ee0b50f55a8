// What the map shows: its style, and places as GeoJSON.

const RANKS = ["#e8590c", "#ae3ec9", "#1971c2"];  // best to last: told apart on light and dark ground, and by the colour-blind
const LIT = "#ffd23f";
const AREA = "#d98200";
const DENSE = "#2b8a3e";
const SMALL = 9;  // pixels: a footprint that is smaller is a dot
const LARGEST_CELL = 120;  // pixels: where a cell is larger, how many images it has says little
const WORLD = 512;  // pixels that 360° take at zoom 0
const AT_ONCE = 2000;  // results that are written without a pause, some milliseconds

export const EMPTY = { type: "FeatureCollection", features: [] };

/** MapLibre's style: of another host, or of nothing but a basemap of tiles, if there is one. The ground is the page's. */
export function styleOf(basemap) {
  if (basemap && !basemap.includes("{z}")) return basemap;
  const basemaps = basemap ? { basemap: { type: "raster", tiles: [basemap], tileSize: 256, attribution: new URL(basemap).hostname } } : {};
  return { version: 8, sources: basemaps, layers: basemap ? [{ id: "basemap", type: "raster", source: "basemap" }] : [] };
}

/** Add the page's own layers, best results on top. */
export function addLayers(map) {
  for (const id of ["density", "area", "footprints", "middles"]) map.addSource(id, { type: "geojson", data: EMPTY });
  const lit = (whenLit, otherwise) => ["case", ["boolean", ["feature-state", "lit"], false], whenLit, otherwise];
  const colour = lit(LIT, ["interpolate", ["linear"], ["get", "share"], 0, RANKS[0], 0.5, RANKS[1], 1, RANKS[2]]);
  const best = ["*", -1, ["get", "rank"]];
  const add = (id, type, source, paint, more = {}) => map.addLayer({ id, type, source, paint, ...more });
  add("density", "fill", "density", { "fill-color": DENSE, "fill-antialias": false, "fill-opacity": ["get", "opacity"] });
  add("area", "fill", "area", { "fill-color": AREA, "fill-opacity": 0.12 });
  add("area-edge", "line", "area", { "line-color": AREA, "line-width": 2 });
  add("footprints", "fill", "footprints", { "fill-color": colour, "fill-opacity": lit(0.7, 0.3) }, { layout: { "fill-sort-key": best } });
  add("footprint-edges", "line", "footprints", { "line-color": colour, "line-width": lit(4, 1.5) }, { layout: { "line-sort-key": best } });
  const dot = { "circle-color": colour, "circle-radius": lit(8, 5), "circle-stroke-color": "#ffffff", "circle-stroke-width": 1 };
  add("middles", "circle", "middles", dot, { layout: { "circle-sort-key": best }, filter: ["<", ["zoom"], ["get", "until"]] });
}

const ring = (west, south, east, north) => [[west, south], [east, south], [east, north], [west, north], [west, south]];

/** A bounding box as a ring; across ±180° it goes on to the east. */
const ringOf = ({ xmin, ymin, xmax, ymax }) => ring(xmin, ymin, xmin > xmax ? xmax + 360 : xmax, ymax);

const feature = (type, coordinates, properties = {}, id = undefined) => ({ type: "Feature", id, properties, geometry: { type, coordinates } });

/** The area that is searched within. */
export function areaFeatures({ bbox, polygon }) {
  if (!bbox && !polygon) return EMPTY;
  const [xmin, ymin, xmax, ymax] = bbox ?? [];
  return feature("Polygon", [bbox ? ringOf({ xmin, ymin, xmax, ymax }) : [...polygon, polygon[0]]]);
}

/** Counts by cells, as squares that are the denser the more images there are, by their logarithm. */
export function densityFeatures({ degrees, cells }) {
  const most = Math.log1p(Math.max(...cells.map(({ images }) => images)));
  const square = ({ west, south, images }) => feature("Polygon", [ring(west, south, west + degrees, south + degrees)], { images, opacity: 0.12 + (0.48 * Math.log1p(images)) / most });
  return { type: "FeatureCollection", features: cells.map(square) };
}

/** From which zoom on something of so many degrees takes more than so many pixels. */
const zoomAt = (degrees, pixels) => Math.log2((pixels * 360) / (WORLD * Math.max(degrees, 1e-9)));

export const densityUntil = (degrees) => Math.min(Math.max(zoomAt(degrees, LARGEST_CELL), 1), 24);

function featuresOf({ rank, bbox, geometry }, share) {
  const [[west, south], , [east, north]] = ringOf(bbox);
  const until = zoomAt(Math.max(east - west, north - south), SMALL);
  const middle = feature("Point", [(west + east) / 2, (south + north) / 2], { rank, share, until }, rank);
  const outline = { type: "Feature", id: rank, properties: { rank, share }, geometry: geometry ?? { type: "Polygon", coordinates: [ringOf(bbox)] } };
  return [JSON.stringify(outline), JSON.stringify(middle)];
}

/**
 * Places of results that have one, as two files: outlines, and middles for where these are small. Written with pauses,
 * and read by MapLibre's workers, so that a hundred thousand do not stop the page. `signal` ends it: null.
 */
export async function resultFiles(results, signal) {
  const parts = [[], []];
  for (let i = 0; i < results.length; i += AT_ONCE) {
    if (i) await new Promise((go) => { setTimeout(go); });
    if (signal.aborted) return null;
    const written = results.slice(i, i + AT_ONCE).map((result, j) => featuresOf(result, (i + j) / Math.max(results.length - 1, 1)));
    parts.forEach((part, which) => part.push(written.map((pair) => pair[which]).join(",")));
  }
  return parts.map((part) => new Blob(['{"type":"FeatureCollection","features":[', part.join(","), "]}"], { type: "application/geo+json" }));
}
