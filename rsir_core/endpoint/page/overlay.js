// What lies over the map as SVG: lines of longitude and latitude, and what is being drawn.

import { ticks } from "./geo.js";
import { makeSvg } from "./view.js";

/** Cover a map with an SVG of its size in pixels, which lets everything through unless something is drawn. */
export function coverMap(map, isBare) {
  const lines = makeSvg("g", { "aria-hidden": "true" });
  const draft = makeSvg("g", { class: "draft" });
  const svg = makeSvg("svg", { class: "overlay" }, lines, draft);
  map.getCanvasContainer().after(svg);
  const fit = () => {
    const { clientWidth: width, clientHeight: height } = map.getContainer();
    svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
    if (isBare) lines.replaceChildren(...graticule(map, width, height));
  };
  for (const event of ["move", "resize"]) map.on(event, fit);
  fit();
  return { svg, draft };
}

/** Lines with their labels, few of each direction; on a basemap nobody needs them. */
function graticule(map, width, height) {
  const at = (lon, lat) => map.project([lon, lat]);
  const bounds = map.getBounds();
  const parts = [];
  const label = (x, y, text, anchor) => {
    const element = makeSvg("text", { x, y, "text-anchor": anchor });
    element.textContent = text;
    parts.push(element);
  };
  for (const { value, label: text } of ticks(bounds.getWest(), bounds.getEast(), "EW")) {
    const { x } = at(value, map.getCenter().lat);
    parts.push(makeSvg("line", { x1: x, x2: x, y1: 0, y2: height }));
    if (x > 30 && x < width - 90) label(x, height - 5, text, "middle");
  }
  for (const { value, label: text } of ticks(bounds.getSouth(), bounds.getNorth(), "NS")) {
    const { y } = at(map.getCenter().lng, value);
    parts.push(makeSvg("line", { x1: 0, x2: width, y1: y, y2: y }));
    if (y > 14 && y < height - 22) label(4, y - 4, text, "start");
  }
  return parts;
}
