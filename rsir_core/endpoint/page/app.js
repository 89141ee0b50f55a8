// The page: asks the endpoint, keeps the address in step, and says in words what goes on.

import { setUpArchive } from "./archive.js";
import { ask } from "./ask.js";
import { setUpBox } from "./box.js";
import { resultCard } from "./cards.js";
import { setUpCollection } from "./collection.js";
import { setUpDownload, showDownload } from "./download.js";
import { setUpDrop, tooLarge } from "./drop.js";
import { longest } from "./factors.js";
import { readFilters, setUpFilters, showFilters, whyUnsound } from "./filters.js";
import { fillGrid, focusCard, setUpGrid } from "./grid.js";
import { returnToLearned, setUpLearning } from "./learn.js";
import { setUpMap, showOnMap } from "./map.js";
import { marksOfSearch, setMark, setMarks, setUpMarks, showMarks, showMarksOn, toggleMark } from "./marks.js";
import { open, setUpOpened, showOpened } from "./opened.js";
import { drawFile, showQuery, sourceOf } from "./picture.js";
import { blank, fromAddress, isAsking, toAddress, unfiltered } from "./query.js";
import { closeResult } from "./result.js";
import { addPage, keep, recall } from "./results.js";
import { recallUpload, remember, setUpRecent } from "./recent.js";
import { enter, show } from "./sections.js";
import { setUpSettings } from "./settings.js";
import { share } from "./share.js";
import { complain, isBusy, say } from "./status.js";
import { askForToken, setUpToken } from "./token.js";
import { $, lightTogether } from "./view.js";
import { about, added, inWords, trust, unlike } from "./words.js";

const narrow = window.matchMedia("(max-width: 48rem)");
const files = new Map();  // uploads by their number in the history, for as long as the page is open
let index = null;  // what is served, once it is known
let asked = null;  // see `blank`
let found = null;  // what is shown: { key, query, rankedBy, answer, seconds, shown, bars, next, isDone, scroll }
let underWay = new AbortController();
let waiting = null;  // a file that was chosen before the index was known

/** What is asked, as a text: of an upload with its number in the history. */
const keyOf = () => `${history.state?.file ?? ""}${toAddress(asked)}`;

/** Note how far the results were scrolled, to return there. */
function leave() {
  if (found && !$("results").hidden) found.scroll = window.scrollY;
}

/** Ask something else, as a new place in the history; an opened result is not one to return to. */
function go(changes) {
  leave();
  asked = { ...asked, ...changes };
  const number = asked.file && ([...files].find(([, file]) => file === asked.file)?.[0] ?? Date.now());
  if (asked.file) files.set(number, asked.file);
  const method = history.state?.open ? "replaceState" : "pushState";
  history[method](asked.file && { file: number }, "", toAddress(asked));
  closeResult();
  showFilters(asked);
  if (changes.good) setMarks(asked);
  search();
}

/** Do what the address and the place in the history say. */
function follow() {
  leave();
  const { file, open: opened, browse, learned } = history.state ?? {};
  if (!opened) closeResult();
  const kept = file === undefined || files.has(file) ? null : recallUpload(file, location.search);
  asked = kept ?? { ...fromAddress(location.search, index), file: files.get(file) ?? null };
  const lost = file !== undefined && asked.file === null && !kept;
  if (lost) Object.assign(asked, { good: [], bad: [] });  // alone they would be another search
  if (browse) return showArchive();
  if (learned) return returnToLearned(learned);
  const before = found?.key === keyOf() ? found : recall(keyOf());
  if (!before) {
    showFilters(asked);
    setMarks(asked);
    search(lost ? "The picture of that search is no longer here: choose it again." : "");
  } else if (before !== found || $("results").hidden) {
    showFilters(asked);
    setMarks(asked);
    found = before;
    underWay.abort();
    complain(null);
    showFound();
    window.scrollTo(0, found.scroll ?? 0);
  }
  if (before) showOpened();
}

/** The next results after those in `into`; null: what went wrong is said; undefined: something else was asked meanwhile. */
async function fetchResults(into, words) {
  underWay.abort();
  const mine = (underWay = new AbortController());
  complain(null);
  say(words, true);
  try {
    return await addPage(into, asked, index.max_k, mine.signal, (wait) => say(wait, true));
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
  document.body.classList.toggle("asking", isAsking(asked));
  if (!isAsking(asked)) {
    underWay.abort();
    complain(null);
    $("query").hidden = $("draw").hidden = $("boxed").hidden = true;
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
  const into = { shown: [], next: 0 };
  const got = await fetchResults(into, asked.file ? `Describing ${asked.file.name} …` : "Searching …");
  if (got === null) show(found && found.key === keyOf() ? "results" : "archive");
  if (!got) return;
  const { query, ranked_by: rankedBy, least_weight: leastWeight, version } = got.answer;
  keepVersion(version);
  found = { ...into, key: keyOf(), answer: got.answer, query, rankedBy, seconds: (performance.now() - began) / 1000 };
  found.bars = { scale: longest(found.shown, rankedBy), rankedBy, leastWeight };
  if (asked.upload) query.preview ??= asked.upload.picture;
  keep(found);
  remember(asked, found, history.state?.file);
  showFound();
  showOpened();
  if (document.activeElement?.closest(".controls")) return;  // who filters goes on filtering
  $("results-title").focus({ preventScroll: true });
  (narrow.matches ? $("status") : document.body).scrollIntoView();
  found.scroll = window.scrollY;
}

/** Show what was found. */
function showFound() {
  const { answer, query, shown } = found;
  document.body.classList.add("asking");
  showVersion();
  showBox(showQuery(query, asked, index), query, asked, index.has_detector);
  add(shown, true);
  show("results");
  const words = shown.length ? unlike(answer, asked) : "";
  $("unlike").hidden = !words;
  $("unlike-says").textContent = words;
  $("trust").textContent = words ? trust(answer) : "";
  $("trust-more").open = false;
  say(inWords(found, asked, index.classes_fit));
}

/** The next page, after those that are shown; `isAsked`: by the button, so the keyboard goes to the first of them. */
async function further(isAsked) {
  if (!found || found.isDone || isBusy()) return;
  const before = found.shown.length;
  const into = found;
  const got = await fetchResults(into, "Searching further …");
  if (!got || into !== found) return;
  add(got.taken);
  say(added(before, found.shown.length));
  if (!isAsked || !got.taken.length) return;
  focusCard(got.taken[0].image_id);
  found.scroll = window.scrollY;  // that was not the person's scrolling
}

/** As one scrolls, before the end is reached. */
function furtherBelow() {
  if ($("results").hidden || $("further").hidden || window.scrollY <= (found.scroll ?? 0)) return;
  if ($("further").getBoundingClientRect().top < 1.5 * window.innerHeight) further(false);
}

function add(results, isNew) {
  const actions = { onOpen: open, onMark: toggleMark };
  fillGrid(results, (result) => resultCard(result, found.bars, actions), isNew, showMarksOn);
  $("further").hidden = found.isDone;
  showOnMap(found.shown, isNew);
  showDownload();
}

const NEW = { version: null, file: null, upload: null, image_id: null, descriptor: null, box: null, good: [], bad: [], hide: [] };

/** Search from an image of the index, or from what is in a box of it. */
function pick(imageId, box = null) {
  $("file").value = "";
  go({ ...NEW, image_id: imageId, box, ...(box && { as: "object" }) });
}

/** Search from a file of the user's. */
function take(file) {
  if (!index) waiting = file;
  if (!file || !index) return;
  complain(null);
  const refused = tooLarge(file, index.max_bytes);
  if (refused) {
    complain(refused);
    return;
  }
  drawFile(file);
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

/** The images to pick from, with a way back to the results. */
function showArchive() {
  say("");
  show("archive");
  $("contains").focus();
}

function browse() {
  leave();
  if (isAsking(asked)) enter("browse", true);
  showArchive();
}

function enterLearned(name) {
  leave();
  enter("learned", name);
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
  $("about").textContent = about(index);
  $("objects-switch").hidden = !index.has_detector;
  for (const part of [$("file"), ...$("file").labels]) part.hidden = !index.has_backbone;
  const filtered = () => go(readFilters());
  setUpFilters(index, filtered);
  if (index.bounds) setUpMap({ index, onChange: filtered, onOpen: open, onSearch: pick });
  setUpRecent(index, (query) => go({ ...NEW, ...query }));
  follow();
  setUpArchive(index, pick, complain);
  setUpCollection(index, { marked: marksOfSearch, onChange: showMarks, onUndo: setMark, onError: complain });
  take(waiting);
}

history.scrollRestoration = "manual";  // results come later than the browser would scroll
setUpSettings();
setUpToken(() => (index ? search() : start()), complain);
const showBox = setUpBox(go);
setUpGrid();
setUpOpened({ found: () => found, openIn: () => index.open_in, maxK: () => index.max_k, sourceOf, further: () => further(false), onSearch: pick });
$("skip").addEventListener("click", (event) => {
  event.preventDefault();  // a fragment would be another place in the history, which has no upload
  $("main").focus();
});
$("form").addEventListener("submit", (event) => event.preventDefault());
setUpDrop(take);
$("browse").addEventListener("click", browse);
$("dismiss").addEventListener("click", () => complain(null));
$("reset").addEventListener("click", () => go(unfiltered(asked)));
$("further").addEventListener("click", () => further(true));
window.addEventListener("scroll", furtherBelow, { passive: true });
setUpMarks(go);
setUpLearning({ onPick: pick, onError: complain, onLearned: enterLearned, show: () => show("learned"), onBack: () => history.back() });
setUpDownload(() => ({ asked, found, index }), complain);
$("newest").addEventListener("click", () => go({ version: null }));
$("share").addEventListener("click", () => share(asked, found.query, index.class_names));
lightTogether();
window.addEventListener("popstate", follow);
start();
