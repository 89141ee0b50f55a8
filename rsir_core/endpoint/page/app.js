// The page: asks the endpoint, keeps the address in step, and says in words what goes on.

import { setUpArchive } from "./archive.js";
import { ask } from "./ask.js";
import { setUpBox } from "./box.js";
import { isSamePicture, longest, resultCard } from "./cards.js";
import { readFilters, setUpFilters, showFilters, whyUnsound } from "./filters.js";
import { showOnMap } from "./map.js";
import { marks, setMarks, showMarks, toggleMark } from "./marks.js";
import { picture, queryCaption, thumbnail } from "./picture.js";
import { blank, fromAddress, isAsking, isFiltered, toAddress, toRequest, unfiltered, withoutFile } from "./query.js";
import { askForToken, setUpToken } from "./token.js";
import { $, count, lightTogether, make, percent } from "./view.js";

const narrow = window.matchMedia("(max-width: 48rem)");
const files = new Map();  // uploads by their number in the history, for as long as the page is open

let index = null;  // what is served, once it is known
let asked = null;  // see `blank`
let answered = null;  // what the query was taken for
let shown = [];  // the results
let bars = { scale: 1, rankedBy: "weighted_distance" };  // of them
let underWay = new AbortController();
let waiting = null;  // a file that was chosen before the index was known

function say(words, busy = false) {
  $("status").textContent = words;
  document.body.classList.toggle("busy", busy);
}

function complain(error) {
  $("error").textContent = error?.message ?? "";
  $("error").hidden = !error;
}

function show(view) {
  $("results").hidden = view !== "results";
  $("archive").hidden = view !== "archive";
  $("unlike").hidden ||= view !== "results";
}

/** Ask something else, as a new place in the history. */
function go(changes) {
  asked = { ...asked, ...changes };
  const number = asked.file && ([...files].find(([, file]) => file === asked.file)?.[0] ?? files.size);
  if (asked.file) files.set(number, asked.file);
  history.pushState(asked.file && { file: number }, "", toAddress(asked));
  showFilters(asked);
  if (changes.good) setMarks(asked);
  search();
}

/** Do what the address says. */
function follow() {
  asked = fromAddress(location.search, index);
  const number = history.state?.file;
  asked.file = files.get(number) ?? null;
  const lost = number !== undefined && asked.file === null;
  if (lost) Object.assign(asked, { good: [], bad: [] });  // alone they would be another search
  showFilters(asked);
  setMarks(asked);
  search(lost ? "The picture of that search is no longer here: choose it again." : "");
}

/** Results from `offset` on; null: what went wrong is said; undefined: something else was asked meanwhile. */
async function fetchResults(offset, words) {
  underWay.abort();
  const mine = (underWay = new AbortController());
  complain(null);
  say(words, true);
  try {
    const k = Math.min(asked.k, index.max_k - offset);
    const answer = await ask("search", { ...toRequest(asked, offset, k), signal: mine.signal }, (wait) => say(wait, true));
    document.body.classList.remove("busy");
    $("further").hidden = answer.results.length < k || offset + k >= index.max_k;
    return answer;
  } catch (error) {
    if (mine.signal.aborted) return undefined;  // whatever went wrong, something else is asked now
    say("");
    if (!askForToken(error)) complain(error);
    if ([404, 503].includes(error.status)) await lookAgain();
    return mine.signal.aborted ? undefined : null;
  }
}

/** Run the query in `asked`; where there is none, say so and offer the index. */
async function search(words = "") {
  showVersion();
  if (!isAsking(asked)) {
    underWay.abort();
    complain(null);
    $("query").hidden = $("draw").hidden = $("undraw").hidden = true;
    say(words);
    show("archive");
    return;
  }
  const unsound = whyUnsound();
  if (unsound) {
    complain(new Error(unsound));
    return;
  }
  const began = performance.now();
  const answer = await fetchResults(0, asked.file ? `Describing ${asked.file.name} …` : "Searching …");
  const seconds = ((performance.now() - began) / 1000).toFixed(2);
  if (answer === null) show("archive");
  if (!answer) return;
  keepVersion(answer.version);
  const n = answer.results.length;
  answered = answer.query;
  shown = [];
  bars = { scale: longest(answer.results, answer.ranked_by), rankedBy: answer.ranked_by };
  $("grid").replaceChildren();
  showQuery(answer.query);
  add(answer.results);
  showMarks();
  show("results");
  explain(answer.ranked_by);
  $("legend").hidden = !n;
  $("unlike").hidden = !isUnlike(answer);
  $("unlike").textContent = isUnlike(answer) ? unlike(answer) : "";
  say(n ? `${unsure(answer)}${copies(answer)}${count(n, "result")} in ${seconds} s, nearest first.` : whyNone() || "The index has no image.");
  if (document.activeElement?.closest(".controls")) return;  // who filters goes on filtering
  $("results-title").focus({ preventScroll: true });
  (narrow.matches ? $("status") : document.body).scrollIntoView();
}

const isUnlike = ({ no_match, results }) => no_match === true && results.length > 0;

/** That what was found is no match, as far as the index can say so. */
const unlike = ({ false_match_rate }) => `Nothing ${isFiltered(asked) ? "that passes the filters" : "in the index"} seems to match this image; these are only the nearest. (Of images of a known class that nothing here was taken for, ${percent(false_match_rate)} would still be called a match.)`;

/** How many of what may be a copy are one, told from pixels. */
function copies({ query, results }) {
  if (!results.some((result) => result.same_picture)) return "";
  const others = results.filter((result) => result.image_id !== query.image_id);
  const n = others.filter(isSamePicture).length;
  if (!others.length) return results.length < asked.k ? `${noCopy(" besides it")} ` : "";
  if (!n) return "None of these is known to be a copy of this picture; they look like it. ";
  return `${n === 1 ? "One of these is a copy" : `${n} of these are copies`} of this picture. `;
}

/** That the class was left out of it, where it was the page's choice. */
function unsure({ ranked_by, query }) {
  if (asked.order !== "auto" || asked.copies || ranked_by !== "distance") return "";
  if (!query.class) return "";  // the index has no classes, which its summary says
  return `Ordered by looks alone: the model is only ${percent(query.probability)} sure of the class. `;
}

/** How the results are to be read. */
function explain(rankedBy) {
  const alone = rankedBy === "distance";
  $("by-both").hidden = alone;
  $("by-looks").hidden = !alone;
  for (const item of document.querySelectorAll("#legend .weight")) item.hidden = alone;
}

function whyNone() {
  if (asked.copies) return noCopy("");
  return isFiltered(asked) ? "No image passes the filters." : "";
}

function noCopy(besides) {
  return `The index has no copy of this picture${besides}${isFiltered({ ...asked, copies: false }) ? " that passes the filters" : ""}.`;
}

/** The next page, after those that are shown. */
async function further() {
  const before = shown.length;
  const answer = await fetchResults(before, "Searching further …");
  if (!answer) return;
  add(answer.results);
  showMarks();
  say(answer.results.length ? `${before + 1} to ${shown.length} are added: ${count(shown.length, "result")}.` : `There are no more than these ${count(before, "result")}.`);
  $("grid").children[before]?.querySelector("button").focus();
}

function add(results) {
  const actions = { onPick: pick, onMark: toggleMark };
  $("grid").append(...results.map((result) => resultCard(result, bars, actions)));
  shown.push(...results);
  showOnMap(shown);
}

function showQuery(query) {
  const source = query.preview ?? (query.image_id === null ? null : thumbnail(query.image_id));
  const name = query.image_id ?? asked.file?.name;
  const frame = source === null ? make("div") : picture(source, `The query: ${name}`, query);
  drawQuery(frame, queryCaption(query, asked, index.has_detector));
  showBox(frame, query, asked.box, index.has_detector);
}

function drawQuery(frame, caption) {
  $("query").hidden = false;
  $("query").replaceChildren(frame, make("figcaption", {}, ...caption));
}

const NEW = { version: null, file: null, image_id: null, descriptor: null, box: null, good: [], bad: [] };

/** Search from an image of the index. */
function pick(imageId) {
  $("file").value = "";
  go({ ...NEW, image_id: imageId });
}

/** Search from a file of the user's. */
function take(file) {
  if (!index) waiting = file;
  if (!file || !index) return;
  complain(null);
  if (file.size > index.max_bytes) {
    complain(new Error(`${file.name} has ${Math.ceil(file.size / 1e6)} MB; this endpoint takes up to ${Math.floor(index.max_bytes / 1e6)} MB. Choose a smaller image.`));
    return;
  }
  const url = URL.createObjectURL(file);
  const frame = picture(url, `The query: ${file.name}`);
  const image = frame.firstChild;
  image.onload = () => URL.revokeObjectURL(url);
  image.onerror = () => image.remove();  // a format that browsers cannot show; the answer brings a preview
  drawQuery(frame, [make("p", { className: "soft", textContent: file.name })]);
  $("draw").hidden = true;
  go({ ...NEW, file });
}

/** A search stays with the version that it was made on. */
function keepVersion(version) {
  if (asked.version === null) {
    asked.version = version;
    history.replaceState(history.state, "", toAddress(asked));
  }
  if (version > index.version) lookAgain();
}

function showVersion() {
  const old = asked.version !== null && asked.version !== index.version;
  $("old").hidden = !old;
  if (old) $("old-says").textContent = `This search is of version ${asked.version} of the index; the newest is ${index.version}.`;
}

/** Versions come and go while the page is open. */
async function lookAgain() {
  index = await ask("index").catch(() => index);
  showVersion();
}

async function share() {
  const lacks = asked.file ? " It searches as the uploaded picture did, and does not show it." : "";
  $("link").value = new URL(toAddress(withoutFile(asked, answered, index.class_names)), location.href).href;
  try {
    await navigator.clipboard.writeText($("link").value);
    $("link-says").textContent = `The link is copied.${lacks}`;
  } catch {  // no permission, or not served over https
    $("link").hidden = false;
    $("link").select();
    $("link-says").textContent = `Copy the link from here.${lacks}`;
  }
}

async function start() {
  try {
    index = await ask("index", {}, (wait) => say(wait, true));
  } catch (error) {
    $("about").textContent = "";
    show("nothing");
    if (!askForToken(error)) complain(error);
    return;
  }
  say("");
  complain(null);
  asked = blank(index);
  $("about").textContent = `${count(index.images, "image")} ${index.class_names.length ? `of ${Object.keys(index.classes).length} classes` : "without classes, so they are ordered by looks alone"}, version ${index.version}` +
    (index.has_detector ? "" : "; no detector, so every key region is centred on its image");
  $("of-object").hidden = !index.has_detector;
  setUpFilters(index, () => go(readFilters()));
  $("legend").open = !narrow.matches;
  follow();
  setUpArchive(index, pick, complain);
  take(waiting);
}

setUpToken(() => (index ? search() : start()), complain);
const showBox = setUpBox((box) => go({ box }));
$("skip").addEventListener("click", (event) => {
  event.preventDefault();  // a fragment would be another place in the history, which has no upload
  $("main").focus();
});
$("form").addEventListener("submit", (event) => event.preventDefault());
$("file").addEventListener("change", () => take($("file").files[0]));
$("browse").addEventListener("click", () => {
  show("archive");
  $("contains").focus();
});
$("reset").addEventListener("click", () => go(unfiltered(asked)));
$("further").addEventListener("click", further);
$("refine").addEventListener("click", () => go(marks()));
$("unmark").addEventListener("click", () => {
  const refined = asked.good.length + asked.bad.length > 0;
  setMarks({ good: [], bad: [] });
  if (refined) go(marks());
});
$("newest").addEventListener("click", () => go({ version: null }));
$("share").addEventListener("click", share);
lightTogether(document.body);
window.addEventListener("popstate", follow);
window.addEventListener("paste", (event) => take(event.clipboardData.files[0]));
window.addEventListener("dragover", (event) => {
  event.preventDefault();
  document.body.classList.add("dragging");
});
window.addEventListener("dragleave", (event) => {
  if (!event.relatedTarget) document.body.classList.remove("dragging");
});
window.addEventListener("drop", (event) => {
  event.preventDefault();
  document.body.classList.remove("dragging");
  take(event.dataTransfer.files[0]);
});
start();
