// Recent queries: kept in this browser, few and small, until they are forgotten.

import { descriptorOf, fromAddress, toAddress, unfiltered } from "./query.js";
import { nameOf } from "./place.js";
import { thumbnail } from "./picture.js";
import { $, heard, make } from "./view.js";

const KEY = "rsir.recent";
const MOST = 12;
const SIDE = 96;  // pixels of an upload's thumbnail, some kilobytes

let index = null;
let pick = null;

/** Set up once. `onPick` is given a query as plain data. */
export function setUpRecent(served, onPick) {
  [index, pick] = [served, onPick];
  $("recent-where").textContent = index.needs_token ? "Kept in this tab alone, until it is closed." : "Kept in this browser.";
  $("forget").addEventListener("click", () => {
    write([]);
    $("file").focus();
  });
  show(read());
}

/** Where a token is wanted others may use this browser too: nothing outlives the tab, as the token's cookie does not outlive the browser. */
const storage = () => (index.needs_token ? sessionStorage : localStorage);

/** What stands for an upload: its number in the history, and the box that was drawn on it. */
const uploadId = (number, { box, as }) => `${number}@${box ? `${box.join(",")} ${as}` : ""}`;

/** Keep a query that was answered: of an upload what it was ranked by, and a small picture. */
export async function remember(asked, { query }, number) {
  const isUpload = asked.file !== null;
  if (!isUpload && !asked.upload && asked.image_id === null) return;  // a link's, or examples alone: there is nothing to show
  const id = isUpload ? uploadId(number, asked) : asked.upload?.id;
  const before = read().find((entry) => entry.upload && entry.upload.id === id);
  const upload = before?.upload ?? asked.upload ?? (isUpload ? { id, name: asked.file.name, pca: index.pca, ...(await describe(query, asked)) } : null);
  if (isUpload && !upload?.descriptor) return;  // it was refined before it was seen
  const source = id ?? toAddress({ ...unfiltered(asked), good: [], bad: [], k: 0, order: "auto", regions: "auto", version: null });
  const address = toAddress({ ...asked, descriptor: null, version: null });
  write([{ source, address, image_id: asked.image_id, upload }, ...read().filter((entry) => entry.source !== source)].slice(0, MOST));
}

async function describe(query, { good, bad }) {
  if (good.length || bad.length || !query.preview) return {};
  return { descriptor: descriptorOf(query, index.class_names), picture: await small(query.preview) };
}

/** A small JPEG of a picture, as a data URI. */
async function small(source) {
  const image = make("img", { src: source });
  await image.decode();
  const scale = Math.min(1, SIDE / Math.max(image.naturalWidth, image.naturalHeight));
  const canvas = make("canvas", { width: Math.max(1, image.naturalWidth * scale), height: Math.max(1, image.naturalHeight * scale) });
  canvas.getContext("2d").drawImage(image, 0, 0, canvas.width, canvas.height);
  return canvas.toDataURL("image/jpeg", 0.7);
}

/** What is known of an upload that the page no longer has, as a query of its own; null: nothing. */
export function recallUpload(number, address) {
  const id = uploadId(number, fromAddress(address, index));
  const entry = read().find(({ upload }) => upload?.id === id);
  return entry ? restored({ ...entry, address }) : null;
}

const restored = ({ address, upload }) => ({ ...fromAddress(address, index), ...(upload && { upload, descriptor: upload.descriptor }) });

function show(entries) {
  $("recent").hidden = !entries.length;
  $("recents").replaceChildren(...entries.map((entry) => {
    const name = entry.upload?.name ?? nameOf(entry.image_id);
    const image = make("img", { src: entry.upload?.picture ?? thumbnail(entry.image_id), alt: "", loading: "lazy" });
    const button = make("button", { type: "button", className: "plain", title: name, onclick: () => pick(restored(entry)) }, image, heard(`Search again from ${name}`));
    return make("li", {}, button);
  }));
}

/** Those that suit what is served; a descriptor suits its own PCA alone. */
function read() {
  try {
    return JSON.parse(storage().getItem(KEY)).filter(({ upload }) => !upload || upload.pca === index.pca);
  } catch {  // no storage, or nothing in it
    return [];
  }
}

function write(entries) {
  try {
    if (entries.length) storage().setItem(KEY, JSON.stringify(entries));
    else storage().removeItem(KEY);
  } catch {  // no storage, or none left
  }
  show(read());
}
