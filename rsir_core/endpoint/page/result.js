// One result, opened: the image beside the query's, what is known of it, why it has its rank, and what to do with it.

import { boxesOf, hitInWords, KINDS, markButtons } from "./cards.js";
import { copy } from "./copy.js";
import { dateOf, showDates } from "./dates.js";
import { factorBar, factorWords } from "./factors.js";
import { markByKey, showMarks, toggleMark } from "./marks.js";
import { centreOf, nameOf, placeInWords } from "./place.js";
import { fullImage, picture, thumbnail } from "./picture.js";
import { $, make, percent, readable } from "./view.js";

const AROUND = 0.5;  // of a tile's size, on each side
const MOST = 4;  // times: a picture that much smaller than the other is drawn larger, to be seen at all

let opened = null;  // { result, query, source, bars, place, openIn, maxK, date }: the last is put in the query's place

/** Set up once. `onStep` is given -1 or 1, `onSearch` an image id and a box or null, `onClose` that of the result that was open. */
export function setUpResult({ onStep, onSearch, onClose }) {
  const dialog = $("result");
  dialog.addEventListener("close", () => {
    $("pair").replaceChildren();  // nothing more is loaded for it
    onClose(opened.result.image_id);
  });
  dialog.addEventListener("click", (event) => event.target === dialog && dialog.close());  // beside it
  dialog.addEventListener("keydown", (event) => {
    if (event.target.matches("input[type='text']") || event.ctrlKey || event.metaKey || event.altKey) return;
    const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (step) onStep(step);
    if (step || markByKey(event, opened.result.image_id)) event.preventDefault();
  });
  $("close-result").addEventListener("click", () => dialog.close());
  $("previous").addEventListener("click", () => onStep(-1));
  $("next").addEventListener("click", () => onStep(1));
  $("search-from").addEventListener("click", () => onSearch(opened.result.image_id, boxOf(opened.result)));
  for (const id of ["show-region", "show-objects"]) $(id).addEventListener("change", showBoxes);
  for (const id of ["show-around", "show-query"]) $(id).addEventListener("change", drawPair);
  for (const [id, text] of [["copy-id", ({ image_id }) => image_id], ["copy-uri", ({ uri }) => uri], ["copy-place", coordinates]]) {
    $(id).addEventListener("click", async () => {
      const copied = await copy(text(opened.result), $("copied"));
      $("copied-says").textContent = copied ? `Copied: ${text(opened.result)}` : "Copy it from here:";
    });
  }
}

/** Open a result, or show another one in its stead; see `opened`. */
export function openResult(found) {
  opened = found;
  const { result, place: { number, of, isLast } } = found;
  $("result-place").textContent = `${number} of ${of}`;
  $("result-title").textContent = readable(result.class || nameOf(result.image_id));
  $("previous").disabled = number === 1;
  $("next").disabled = isLast;
  $("around").hidden = !result.window;
  $("beside").hidden = !found.source;
  $("copied").hidden = true;
  $("copied-says").textContent = "";
  $("copy-place").hidden = !result.bbox;
  $("judge-result").replaceChildren(...markButtons(result.image_id, toggleMark));
  showMarks();
  drawPair();
  showDates(result, found.maxK, (row) => { opened.date = row; drawPair(); });
  $("facts").replaceChildren(...facts(result).flatMap(([term, text]) => [make("dt", { textContent: term }), make("dd", { textContent: text })]));
  $("why-says").replaceChildren(factorBar(result, found.bars), ...factorWords(result, found.query, found.bars));
  $("whole").href = fullImage(result.image_id);
  linkOut(found);
  if ($("result").open) return;
  $("result").showModal();
  $("result-title").focus();
}

export const closeResult = () => $("result").close();

const UNKNOWN = 256;  // pixels: the side of an image of which nobody read the size

/** The picture and, beside it, the query's: the same number of pixels of the screen for a pixel of each. */
function drawPair() {
  const { result, query, source } = opened;
  const figures = [resultFigure(result)];
  if (opened.date) figures.unshift(dateFigure(opened.date));
  else if (source && $("show-query").checked) figures.unshift(queryFigure(query, source));
  const most = Math.max(...figures.map(({ width }) => width));
  for (const figure of figures) figure.scale = Math.max(1, most / MOST / figure.width);
  const widths = figures.map(({ width, scale }) => width * scale);
  const tallest = Math.max(...figures.map(({ height, scale }) => height * scale));
  $("pair").style.setProperty("--side-by-side", widths.reduce((a, b) => a + b, 0) / tallest);
  $("pair").replaceChildren(...figures.map(({ frame, caption, width, height, scale }, i) => {
    frame.style.aspectRatio = `${width} / ${height}`;
    const words = scale > 1 ? `${caption}, enlarged ${scale.toFixed(1)} times` : caption;
    const figure = make("figure", {}, frame, make("figcaption", { className: "soft", textContent: words }));
    figure.style.setProperty("--width", widths[i]);
    return figure;
  }));
  showBoxes();
}

function resultFigure(result) {
  const around = result.window && $("show-around").checked ? AROUND : 0;
  const frame = picture(fullImage(result.image_id, around), `Result ${result.rank}: ${result.image_id}`, boxesOf(result));
  const [width, height] = [(result.width || UNKNOWN) * (1 + 2 * around), (result.height || UNKNOWN) * (1 + 2 * around)];
  frame.querySelector("svg").setAttribute("viewBox", `${-around * result.width} ${-around * result.height} ${width} ${height}`);
  const image = frame.querySelector("img");
  if (!around) image.style.backgroundImage = `url("${thumbnail(result.image_id)}")`;  // until it is there
  return { frame, width, height, caption: `Result${opened.date ? `, ${dateOf(result)}` : ""}${around ? ", with its surroundings" : ""}` };
}

function dateFigure(row) {
  const around = $("show-around").checked ? AROUND : 0;
  const frame = picture(fullImage(row.image_id, around), `The same place, ${dateOf(row)}`);
  return { frame, width: row.width * (1 + 2 * around), height: row.height * (1 + 2 * around), caption: dateOf(row) };
}

function queryFigure(query, source) {
  const frame = picture(source, "The query", query);
  return { frame, width: query.width || UNKNOWN, height: query.height || UNKNOWN, caption: "Query" };
}

function showBoxes() {
  $("pair").classList.toggle("no-region", !$("show-region").checked);
  $("pair").classList.toggle("no-objects", !$("show-objects").checked);
}

/** The box of the object that was found, inside the image; null: its key region was found. */
function boxOf({ region_number: number, object_box: box, width, height }) {
  if (!number) return null;
  const inside = (edge, most) => Math.min(Math.max(Math.round(edge), 0), most);
  return [inside(box.x0, width - 1), inside(box.y0, height - 1), Math.max(inside(box.x1, width), 1), Math.max(inside(box.y1, height), 1)];
}

const coordinates = ({ bbox }) => {
  const { lat, lon } = centreOf(bbox);
  return `${lat.toFixed(6)}, ${lon.toFixed(6)}`;
};

function facts(result) {
  const { window, object_class: objectClass } = result;
  return [
    result.class && ["Class", `${readable(result.class)}, ${percent(result.probability)} sure`],
    objectClass && ["Object", `${readable(objectClass)}, ${percent(result.object_score)} sure`],
    hitInWords(result) && ["Region", `${hitInWords(result)}, object ${result.region_number} of this image: ${result.region.width}×${result.region.height} pixels`],
    KINDS[result.same_picture] && ["To the query", KINDS[result.same_picture]],
    result.time && ["Acquired", `${result.time.slice(0, 16).replace("T", " ")} UTC`],
    result.bbox && ["Place", `${placeInWords(centreOf(result.bbox))}${result.crs ? ` (stored in ${result.crs})` : ""}`],
    result.width && ["Size", `${result.width}×${result.height} pixels`],
    result.cell && ["Cell", `${result.cell}${result.covered < 1 ? `, ${percent(result.covered)} of it with data` : ""}`],
    window && ["Tile", `${window.width}×${window.height} pixels from column ${window.x} and row ${window.y} of its scene`],
    ["Id", result.image_id],
    ["URI", result.uri],
  ].filter(Boolean);
}

/** Link to another viewer, where one is configured and shows this result. */
function linkOut({ result, openIn }) {
  const place = result.bbox && { ...centreOf(result.bbox), west: result.bbox.xmin, south: result.bbox.ymin, east: result.bbox.xmax, north: result.bbox.ymax };
  const values = { uri: result.uri, image_id: result.image_id, ...place };
  const address = openIn?.replace(/\{(\w+)\}/g, (field, name) => (name in values ? encodeURIComponent(values[name]) : field));
  $("open-in").hidden = !address || /\{(lon|lat|west|south|east|north)\}/.test(address);  // it has no place
  if ($("open-in").hidden) return;
  $("open-in").href = address;
  $("open-in").textContent = `Open in ${new URL(address).hostname}`;
}
