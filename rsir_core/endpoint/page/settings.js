// How the page looks: theme, size of the cards, boxes, map; kept in this browser.

import { $ } from "./view.js";

const KEY = "rsir.look";
const broad = window.matchMedia("(min-width: 80rem)");  // where the map has a place beside the results

/** Set up once, from what was chosen before. */
export function setUpSettings() {
  const chosen = { theme: "auto", size: null, boxes: true, map: broad.matches, ...read() };
  const change = (changes) => {
    Object.assign(chosen, changes);
    apply(chosen);
    write(chosen);
  };
  apply(chosen);
  $("theme").addEventListener("change", () => change({ theme: $("theme").value }));
  $("size").addEventListener("input", () => change({ size: $("size").valueAsNumber }));
  $("boxes").addEventListener("change", () => change({ boxes: $("boxes").checked }));
  $("show-map").addEventListener("change", () => change({ map: $("show-map").checked }));
}

function apply({ theme, size, boxes, map }) {
  const root = document.documentElement;
  root.style.colorScheme = theme === "auto" ? "" : theme;
  if (size) root.style.setProperty("--card", `${size}rem`);
  document.body.classList.toggle("no-boxes", !boxes);
  $("theme").value = theme;
  if (size) $("size").value = size;
  $("boxes").checked = boxes;
  $("show-map").checked = map;
}

function read() {
  try {
    return JSON.parse(localStorage.getItem(KEY)) ?? {};
  } catch {  // no storage, or not ours
    return {};
  }
}

function write(chosen) {
  try {
    localStorage.setItem(KEY, JSON.stringify(chosen));
  } catch {  // no storage: it holds for as long as the page is open
  }
}
