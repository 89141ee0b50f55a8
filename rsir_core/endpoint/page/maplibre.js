// Loads MapLibre GL once it is needed: a megabyte, which the endpoint serves from the package that has it.

import { make } from "./view.js";

let loading = null;

/** MapLibre's module; an Error where it cannot be had. */
export function loadMapLibre() {
  loading ??= new Promise((resolve, reject) => {
    const failed = () => reject(new Error("The map's program does not load."));
    document.head.prepend(make("link", { rel: "stylesheet", href: "maplibre/maplibre-gl.css" }));  // before the page's own
    document.head.append(make("script", { src: "maplibre/maplibre-gl.js", onload: () => resolve(window.maplibregl), onerror: failed }));
  });
  return loading;
}
