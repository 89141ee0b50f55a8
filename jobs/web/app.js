// The page: asks the endpoint, keeps the address in step, and says in words what goes on.

import { imageCard, longest, make, picture, queryCaption, readable, resultCard, thumbnail } from "./view.js";

const PAGE = 48;  // images of the index shown at a time
const $ = (id) => document.getElementById(id);
const narrow = window.matchMedia("(max-width: 48rem)");

let index = null;  // what is served, once it is known
let asked = null;  // { file } or { image_id }
let underWay = new AbortController();
let shown = 0;  // images of the index
let listing = 0;  // counts listings, so that a late one does not overwrite a newer

/** An answer's JSON; throws an Error whose message is for people. */
async function ask(path, options = {}) {
  let response;
  try {
    response = await fetch(path, options);
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Error("The endpoint does not answer. Is it still running?");
  }
  if (response.ok) return response.json();
  if (response.status === 503) throw new Error("The endpoint is busy. Try again in a moment.");
  const body = await response.json().catch(() => ({}));
  throw new Error(body.detail ?? `The endpoint failed (status ${response.status}); its log says why.`);
}

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
}

const tickedClasses = () => [...$("classes").querySelectorAll("input:checked")].map((box) => box.value);

function request() {
  const k = Number($("k").value);
  const classes = tickedClasses();
  if (asked.image_id !== undefined) {
    const body = { image_id: asked.image_id, k, ...(classes.length && { classes }) };
    return { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body) };
  }
  const body = new FormData();
  body.append("image", asked.file);
  body.append("k", k);
  body.append("preview", "true");
  if (classes.length) body.append("classes", JSON.stringify(classes));
  return { method: "POST", body };
}

/** Run the query in `asked`. */
async function search() {
  if (!asked || !$("k").reportValidity()) return;
  underWay.abort();
  const mine = (underWay = new AbortController());
  complain(null);
  say(asked.file ? `Describing ${asked.file.name} …` : "Searching …", true);
  const began = performance.now();
  try {
    const answer = await ask("search", { ...request(), signal: mine.signal });
    render(answer);
    const n = answer.results.length;
    say(`${n} ${n === 1 ? "result" : "results"} in ${((performance.now() - began) / 1000).toFixed(2)} s, nearest first.` + (n ? "" : " No image is of the classes ticked."));
  } catch (error) {
    if (error.name === "AbortError") return;
    say("");
    complain(error);
  }
}

function render({ query, results }) {
  const source = query.preview ?? thumbnail(query.image_id);
  const name = query.image_id ?? asked.file.name;
  drawQuery(picture(source, `The query: ${name}`, { ...query, object: query.object?.box }), queryCaption(query, name));
  const scale = longest(results);
  $("grid").replaceChildren(...results.map((result) => resultCard(result, scale, pick)));
  show("results");
  $("results-title").focus({ preventScroll: true });
  (narrow.matches ? $("status") : document.body).scrollIntoView();
}

function drawQuery(frame, caption) {
  $("query").hidden = false;
  $("query").replaceChildren(frame, make("figcaption", {}, ...caption));
}

/** Search from an image of the index. */
function pick(imageId) {
  asked = { image_id: imageId };
  $("file").value = "";
  keepAddress("pushState");
  search();
}

/** Search from a file of the user's. */
function take(file) {
  if (!file) return;
  complain(null);
  if (index && file.size > index.max_bytes) {
    complain(new Error(`${file.name} has ${Math.ceil(file.size / 1e6)} MB; this endpoint takes up to ${Math.floor(index.max_bytes / 1e6)} MB. Choose a smaller image.`));
    return;
  }
  asked = { file };
  const url = URL.createObjectURL(file);
  const frame = picture(url, `The query: ${file.name}`);
  const image = frame.firstChild;
  image.onload = () => URL.revokeObjectURL(url);
  image.onerror = () => image.remove();  // a format that browsers cannot show; the answer brings a preview
  drawQuery(frame, [make("p", { className: "soft", textContent: file.name })]);
  if (location.search) history.pushState(null, "", location.pathname);
  search();
}

function keepAddress(how) {
  const parameters = new URLSearchParams({ image_id: asked.image_id, k: $("k").value });
  for (const name of tickedClasses()) parameters.append("class", name);
  history[how](null, "", `?${parameters}`);
}

/** Do what the address says. */
function follow() {
  const parameters = new URLSearchParams(location.search);
  const imageId = parameters.get("image_id");
  if (imageId === null) {
    underWay.abort();
    asked = null;
    $("query").hidden = true;
    say("");
    complain(null);
    show("archive");
    return;
  }
  if (parameters.has("k")) $("k").value = parameters.get("k");
  const classes = parameters.getAll("class");
  for (const box of $("classes").querySelectorAll("input")) box.checked = classes.includes(box.value);
  sayFilter();
  asked = { image_id: imageId };
  search();
}

function sayFilter() {
  const classes = tickedClasses();
  $("filter-says").textContent = classes.length ? classes.map(readable).join(", ") : "all";
}

function changed() {
  sayFilter();
  if (asked?.image_id !== undefined) keepAddress("replaceState");
  search();
}

/** List images of the index, from the first or further on. */
async function list(further = false) {
  const mine = ++listing;
  const offset = further ? shown : 0;
  const parameters = new URLSearchParams({ contains: $("contains").value, offset, limit: PAGE });
  if ($("of-class").value) parameters.set("class", $("of-class").value);
  try {
    const { total, images } = await ask(`images?${parameters}`);
    if (mine !== listing) return;
    const cards = images.map((image) => imageCard(image, pick));
    if (further) $("images").append(...cards);
    else $("images").replaceChildren(...cards);
    shown = offset + images.length;
    $("more").hidden = shown >= total;
    $("archive-says").textContent = total ? `${shown} of ${total} images` : "No image of the index is like that.";
  } catch (error) {
    complain(error);
  }
}

async function start() {
  try {
    index = await ask("index");
  } catch (error) {
    $("about").textContent = "";
    complain(error);
    return;
  }
  const names = Object.keys(index.classes);
  $("about").textContent = `${index.images.toLocaleString("en")} images of ${names.length} classes, version ${index.version}` +
    (index.has_detector ? "" : "; no detector, so every key region is centred on its image");
  $("k").max = index.max_k;
  $("k").value = Math.min(20, index.max_k);
  for (const name of names) {
    const box = make("input", { type: "checkbox", value: name });
    $("classes").append(make("label", {}, box, readable(name), make("span", { textContent: index.classes[name] })));
    $("of-class").append(make("option", { value: name, textContent: `${readable(name)} (${index.classes[name]})` }));
  }
  $("legend").open = !narrow.matches;
  follow();
  list();
}

$("form").addEventListener("submit", (event) => event.preventDefault());
$("find").addEventListener("submit", (event) => event.preventDefault());
$("file").addEventListener("change", () => take($("file").files[0]));
$("browse").addEventListener("click", () => {
  show("archive");
  $("contains").focus();
});
$("k").addEventListener("change", changed);
$("classes").addEventListener("change", changed);
$("clear").addEventListener("click", () => {
  for (const box of $("classes").querySelectorAll("input")) box.checked = false;
  changed();
});
$("contains").addEventListener("input", () => list());
$("of-class").addEventListener("change", () => list());
$("more").addEventListener("click", () => list(true));
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
