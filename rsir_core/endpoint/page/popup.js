// A result on the map: its picture, its rank, and what to do with it.

import { thumbnail } from "./picture.js";
import { centreOf, nameOf } from "./place.js";
import { make, readable } from "./view.js";

/** A popup over the middle of a result's footprint. */
export function popupOf(result, { onOpen, onSearch }) {
  const { lon, lat } = centreOf(result.bbox);
  const button = (textContent, act) => make("button", { type: "button", textContent, onclick: () => act(result.image_id) });
  const content = make(
    "div",
    { className: "popup" },
    make("img", { src: thumbnail(result.image_id), alt: "" }),
    make("div", {}, make("strong", { textContent: `${result.rank} ` }), readable(result.class), make("p", { className: "soft", textContent: nameOf(result.image_id), title: result.image_id })),
    make("div", { className: "buttons" }, button("Open", onOpen), button("Search from here", onSearch)),
  );
  return new window.maplibregl.Popup({ maxWidth: "17rem", focusAfterOpen: false }).setLngLat([lon, lat]).setDOMContent(content);
}
