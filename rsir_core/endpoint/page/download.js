// Results and collections to take away: as a file, and as a command that gets the same file.

import { refusal } from "./ask.js";
import { chosenCollection } from "./collection.js";
import { copy } from "./copy.js";
import { hidden, toRequest, withoutFile } from "./query.js";
import { say } from "./status.js";
import { $, count } from "./view.js";

let getState = null;
let isCountGiven = false;  // by the person, so that other results leave it as it is

const NAMES = { csv: "CSV", geojson: "GeoJSON", gpkg: "GeoPackage", parquet: "GeoParquet" };

/** Set up once. `state` gives { asked, found, index }; `onError` is given what goes wrong. */
export function setUpDownload(state, onError) {
  getState = state;
  $("take-count").addEventListener("input", () => { isCountGiven = true; });  // before it is shown, below
  for (const id of ["format", "take-count", "take-distance"]) $(id).addEventListener("input", showDownload);
  $("take").addEventListener("toggle", () => {
    isCountGiven = false;
    showDownload();
  });
  $("take-results").addEventListener("click", () => whenSound(() => save("download", request(state()), "results", onError)));
  $("take-collection").addEventListener("click", () => save(`collections/${encodeURIComponent(chosenCollection())}/download`, {}, chosenCollection(), onError));
  $("copy-line").addEventListener("click", async () => {
    $("line-says").textContent = (await copy($("line").textContent, $("line-copy"))) ? "The line is copied." : "Copy it from here:";
  });
}

function leftOut({ image_id: imageId, bad, hide }) {
  const n = new Set([...bad, ...hide]).size;
  const out = [imageId !== null && "the image searched from", n && `${count(n, "image")} marked bad`].filter(Boolean);
  return out.length ? `Left out: ${out.join(" and ")}.` : "";
}

function whenSound(act) {
  if ([$("take-count"), $("take-distance")].every((field) => field.reportValidity())) act();
}

/** The search of the page, for a file: an upload by what it was ranked by, and without the images that are not shown. */
function request({ asked, found, index }) {
  const { body } = toRequest(withoutFile(asked, found.query, index.class_names), 0, Number($("take-count").value));
  const { preview, ...fields } = JSON.parse(body);
  const out = hidden(asked);
  if (out.length) fields.where = [["image_id", "not in", out]];
  if ($("take-distance").value) fields.max_distance = Number($("take-distance").value);
  return { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(fields) };
}

/** Let an open form be about the results that are shown: as many of them, unless a person has said how many. */
export function showDownload() {
  if (!$("take").open) return;
  const { asked, found, index } = getState();
  if (!isCountGiven) $("take-count").value = Math.max(1, found.shown.length);
  const format = $("format").value;
  const collection = chosenCollection();
  const { body } = request({ asked, found, index });
  const quoted = (text) => `'${text.replaceAll("'", "'\\''")}'`;
  $("line").textContent = `curl --fail-with-body -o results.${format} --json ${quoted(body)} ${quoted(new URL(`download?format=${format}`, location.href).href)}`;
  $("line-says").textContent = "";
  $("take-collection").hidden = !collection;
  $("take-collection").textContent = `The collection ${collection} as ${NAMES[format]}`;
  const isShown = !$("take-distance").value && $("take-count").valueAsNumber === found.shown.length;
  $("take-results").textContent = `${isShown ? "These" : "Up to"} ${count($("take-count").valueAsNumber || 0, "result")} as ${NAMES[format]}`;
  $("left-out").textContent = leftOut(asked);
}

async function save(path, options, name, onError) {
  const format = $("format").value;
  say("Writing the file …", true);
  try {
    const response = await fetch(`${path}?format=${format}`, options);
    if (!response.ok) throw await refusal(response);
    const link = Object.assign(document.createElement("a"), { href: URL.createObjectURL(await response.blob()), download: `${name}.${format}` });
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
    say(`${name}.${format} is downloaded.`);
  } catch (error) {
    say("");
    onError(error);
  }
}
