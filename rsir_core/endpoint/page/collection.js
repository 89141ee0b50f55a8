// The collection that marks are kept in: in the index, for everybody who searches it. Its name is kept in this browser.

import { ask } from "./ask.js";
import { $, count, make } from "./view.js";

const KEY = "rsir.collection";
const NEW = "/";  // no name of a collection has a slash
const PAGE = 10_000;  // labels in one answer

let name = "";  // of the collection; empty: marks are not kept
let saved = new Map();  // image id → label, as far as is known here
let doings = [];  // what can be undone: { imageId, before } each
let unsaved = 0;  // labels on their way
let saving = Promise.resolve();  // one request after the other, so that the last word of a person counts
let page = null;

export const chosenCollection = () => name;

export const savedLabel = (imageId) => saved.get(imageId);

/** Set up once. `page`: { marked, onChange, onUndo, onError }; `marked` gives the marks of this search, image id → label. */
export async function setUpCollection(index, given) {
  page = given;
  if (!index.max_labels) return;
  $("keeping").hidden = false;
  $("collection").addEventListener("change", chosen);
  $("name-collection").addEventListener("submit", create);
  $("no-collection").addEventListener("click", () => show(name));
  $("undo").addEventListener("click", undo);
  window.addEventListener("beforeunload", (event) => unsaved && event.preventDefault());
  document.addEventListener("visibilitychange", () => document.visibilityState === "visible" && read());  // others mark, too
  try {
    const { collections } = await ask("collections");
    $("collection").append(...collections.map((one) => option(one.name)), make("option", { value: NEW, textContent: "a new collection …" }));
  } catch (error) {
    page.onError(error);
    return;
  }
  await choose(remembered(), false);  // a link may have brought marks, which are not this person's
}

const option = (text) => make("option", { value: text, textContent: text });

function chosen() {
  if ($("collection").value !== NEW) return choose($("collection").value);
  $("name-collection").hidden = false;
  $("collection-name").value = "";
  $("collection-name").focus();
}

function create(event) {
  event.preventDefault();
  const given = $("collection-name").value.trim();
  if (!given) return;
  choose(given);
  $("collection").focus();
}

/** Keep marks there from now on; those that were kept nowhere, too, where a person has chosen it. */
async function choose(given, isChosen = true) {
  const homeless = name || !isChosen ? [] : [...page.marked()];
  name = given;
  saved = new Map();
  doings = [];
  remember(given);
  show(given);
  await read();
  for (const [imageId, label] of homeless) if (name === given && saved.get(imageId) !== label) keepLabel(imageId, label);
}

/** Read what the collection has now. */
async function read() {
  const mine = name;
  if (!mine) return changed();
  await saving;
  try {
    const found = new Map();
    for (let total = 1; found.size < total; ) {
      const answer = await ask(`${address()}?offset=${found.size}&limit=${PAGE}`);
      for (const { image_id: imageId, label } of answer.labels) found.set(imageId, label);
      total = answer.labels.length ? answer.total : 0;
    }
    if (mine === name) saved = found;
  } catch (error) {
    page.onError(error);
  }
  changed();
}

const address = () => `collections/${encodeURIComponent(name)}`;

/** Keep an image's label, or withdraw it (null); where marks are not kept, do nothing. */
export function keepLabel(imageId, label, canUndo = true) {
  if (!name) return;
  const before = saved.get(imageId) ?? null;
  if (canUndo) doings.push({ imageId, before });
  unsaved += 1;
  set(imageId, label);
  const [where, labels] = [`${address()}/labels`, [{ image_id: imageId, label }]];
  const whose = name;
  saving = saving.then(async () => {
    try {
      await ask(where, { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify({ labels }) });
    } catch (error) {
      if (whose === name) set(imageId, before);
      page.onError(error);
    }
    unsaved -= 1;
    changed();
  });
}

function set(imageId, label) {
  if (label === null) saved.delete(imageId);
  else saved.set(imageId, label);
  changed();
}

function undo() {
  const { imageId, before } = doings.pop();
  keepLabel(imageId, before, false);
  page.onUndo(imageId, before);
  if (!doings.length) $("collection").focus();
}

function changed() {
  const counts = new Map();
  for (const label of saved.values()) counts.set(label, (counts.get(label) ?? 0) + 1);
  const words = [...counts].sort().map(([label, n]) => `${n} ${label}`).join(", ");
  $("collection-says").textContent = name ? `${count(saved.size, "image")}${words ? `: ${words}` : ""}${unsaved ? "; saving …" : ""}` : "";
  $("undo").hidden = !doings.length;
  $("learn").hidden = !counts.has("good") || counts.size < 2;  // it takes both kinds
  page.onChange();
}

/** Let the choice say which collection it is. */
function show(given) {
  if (![...$("collection").options].some(({ value }) => value === given)) $("collection").lastChild.before(option(given));
  $("collection").value = given;
  $("name-collection").hidden = true;
}

function remembered() {
  try {
    return localStorage.getItem(KEY) ?? "";
  } catch {  // no storage
    return "";
  }
}

function remember(given) {
  try {
    localStorage.setItem(KEY, given);
  } catch {  // no storage: it holds for as long as the page is open
  }
}
