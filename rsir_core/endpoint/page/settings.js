// How the page looks: theme, size of the cards, boxes; kept in this browser.

import { $ } from "./view.js";

const KEY = "rsir.look";

/** Set up once, from what was chosen before. */
export function setUpSettings() {
  const chosen = { theme: "auto", size: null, boxes: true, ...read() };
  const change = (changes) => {
    Object.assign(chosen, changes);
    apply(chosen);
    write(chosen);
  };
  apply(chosen);
  $("theme").addEventListener("change", () => change({ theme: $("theme").value }));
  $("size").addEventListener("input", () => change({ size: $("size").valueAsNumber }));
  $("boxes").addEventListener("change", () => change({ boxes: $("boxes").checked }));
}

function apply({ theme, size, boxes }) {
  const root = document.documentElement;
  root.style.colorScheme = theme === "auto" ? "" : theme;
  if (size) root.style.setProperty("--card", `${size}rem`);
  document.body.classList.toggle("no-boxes", !boxes);
  $("theme").value = theme;
  if (size) $("size").value = size;
  $("boxes").checked = boxes;
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
