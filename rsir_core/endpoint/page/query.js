// What is asked, as plain data; as an address that others can open; and as a request.

const ORDERS = ["auto", "weighted", "plain"];
const ROLES = ["object", "centre"];
const REGIONS = ["auto", "key", "objects", "all"];

/** Nothing asked of an index yet. */
export const blank = (index) => ({
  file: null,  // an upload, or
  image_id: null,  // an image of the index, or
  descriptor: null,  // what an upload was ranked by, of a link: { feature, class_probabilities }
  upload: null,  // of a descriptor that was an upload's: { id, name, picture }, see `remember`
  box: null,  // [x0, y0, x1, y1] in pixels, drawn by a person; null: the detector's object
  as: index.regions > 1 ? "object" : "centre",  // what the box is: what is looked for, or the centre of the scene
  good: [],  // image ids that are what is looked for
  bad: [],
  hide: [],  // image ids that a link's descriptor was moved away from, which are not to be found
  k: Math.min(20, index.max_k),
  classes: [],  // [] and null and "" below: all
  from: "",  // days, YYYY-MM-DD
  to: "",
  bbox: null,  // [west, south, east, north] in degrees; across ±180° west > east
  polygon: null,  // corners, [lon, lat] each
  copies: false,
  regions: "auto",  // of the images that are searched: see REGIONS
  order: "auto",  // `distance` of the API: weights where the query's class is probable, as they harm unknown classes
  version: null,  // the newest; once it is answered, the one that answered
});

export const isAsking = (query) => query.file !== null || query.image_id !== null || query.descriptor !== null || query.good.length > 0;

export const isFiltered = ({ classes, from, to, bbox, polygon, copies }) => classes.length > 0 || Boolean(from || to || bbox || polygon || copies);

const NO_FILTER = { classes: [], from: "", to: "", bbox: null, polygon: null, copies: false };
export const unfiltered = (query) => ({ ...query, ...NO_FILTER });

/** Whether what is in a box is looked for. */
export const isForObject = ({ box, as }) => box !== null && as === "object";

/** Which regions are searched: a descriptor does not say of itself that it is an object's. */
const regionsOf = (query) => (query.regions === "auto" && query.descriptor && isForObject(query) ? "all" : query.regions);

/** The search with what an upload was ranked by in its stead, so that an address can say it. */
export function withoutFile(query, answered, classNames) {
  if (query.file === null) return query;
  const descriptor = descriptorOf(answered, classNames);  // moved by the examples already
  const regions = regionsOf({ ...query, descriptor });
  return { ...query, file: null, box: null, regions, good: [], bad: [], hide: query.bad, descriptor };
}

/** What a query was ranked by. */
export function descriptorOf({ feature, class_probabilities: probabilities, unaveraged_feature: first }, classNames) {
  return { feature, class_probabilities: classNames.map((name) => probabilities[name]), ...(first && { unaveraged_feature: first }) };
}

/** The images that are not among the results: the query itself, and those marked bad. */
export const hidden = ({ image_id, bad, hide }) => [...new Set([...(image_id === null ? [] : [image_id]), ...bad, ...hide])];

/** Numbers as they are computed with: 4 bytes each, in base64. */
function toText(numbers) {
  const bytes = new Uint8Array(Float32Array.from(numbers).buffer);
  return btoa(String.fromCharCode(...bytes)).replaceAll("+", "-").replaceAll("/", "_");
}

function fromText(text) {
  const bytes = atob(text.replaceAll("-", "+").replaceAll("_", "/"));
  return [...new Float32Array(Uint8Array.from(bytes, (character) => character.charCodeAt(0)).buffer)];
}

const descriptorToText = ({ feature, class_probabilities, unaveraged_feature: first }) =>
  [feature, class_probabilities, ...(first ? [first] : [])].map(toText).join(".");

/** The inverse; null for what is not two or three lists of numbers. */
function descriptorFromText(text) {
  try {
    const [feature, class_probabilities, unaveraged_feature] = text.split(".").map(fromText);
    return class_probabilities ? { feature, class_probabilities, ...(unaveraged_feature && { unaveraged_feature }) } : null;
  } catch {
    return null;
  }
}

/** Everything but an uploaded file. */
export function toAddress(query) {
  const address = new URLSearchParams();
  if (query.image_id !== null) address.set("image_id", query.image_id);
  if (query.box) address.set("box", query.box.join(","));
  if (query.box) address.set("as", query.as);
  if (query.descriptor) address.set("descriptor", descriptorToText(query.descriptor));
  for (const name of query.classes) address.append("class", name);
  for (const id of query.good) address.append("good", id);
  for (const id of query.bad) address.append("bad", id);
  for (const id of query.hide) address.append("hide", id);
  for (const name of ["from", "to"]) if (query[name]) address.set(name, query[name]);
  if (query.bbox) address.set("bbox", query.bbox.join(","));
  if (query.polygon) address.set("polygon", query.polygon.join(";"));
  if (query.copies) address.set("copies", "1");
  if (query.regions !== "auto") address.set("regions", query.regions);
  if (query.order !== "auto") address.set("order", query.order);
  address.set("k", query.k);
  if (query.version !== null) address.set("version", query.version);
  return `?${address}`;
}

/** The inverse; what an address does not say stays as in `blank`. */
export function fromAddress(search, index) {
  const address = new URLSearchParams(search);
  const query = blank(index);
  const numbers = (name) => address.get(name)?.split(",").map(Number) ?? null;
  return {
    ...query,
    image_id: address.get("image_id"),
    descriptor: descriptorFromText(address.get("descriptor") ?? ""),
    box: numbers("box"),
    as: ROLES.includes(address.get("as")) ? address.get("as") : query.as,
    good: address.getAll("good"),
    bad: address.getAll("bad"),
    hide: address.getAll("hide"),
    k: Number(address.get("k")) || query.k,
    classes: address.getAll("class"),
    from: address.get("from") ?? "",
    to: address.get("to") ?? "",
    bbox: numbers("bbox"),
    polygon: address.get("polygon")?.split(";").map((corner) => corner.split(",").map(Number)) ?? null,
    copies: address.get("copies") === "1",
    regions: REGIONS.includes(address.get("regions")) ? address.get("regions") : query.regions,
    order: ORDERS.includes(address.get("order")) ? address.get("order") : query.order,
    version: Number(address.get("version") ?? NaN) || query.version,
  };
}

/** For `fetch`; results from `offset` on, at most `k` of them. */
export function toRequest(query, offset, k) {
  const fields = {
    k,
    ...query.descriptor,
    ...(query.version !== null && { version: query.version }),
    ...(offset && { offset }),
    ...(query.box && !query.descriptor && { box: query.box, box_as: query.as }),  // else it is described already
    ...(regionsOf(query) !== "auto" && { regions: regionsOf(query) }),
    ...(query.good.length && { positive: query.good }),
    ...(query.bad.length && { negative: query.bad }),
    ...(query.classes.length && { classes: query.classes }),
    ...(query.from && { start: `${query.from}T00:00:00Z` }),
    ...(query.to && { end: `${query.to}T23:59:59.999999Z` }),
    ...(query.bbox && { bbox: query.bbox }),
    ...(query.polygon && { polygon: query.polygon }),
    ...(query.copies && { near_duplicates: true }),
    distance: query.order,
    ...(offset === 0 && (query.file || query.image_id !== null) && { preview: true }),
  };
  if (query.file === null) {
    const body = JSON.stringify({ ...(query.image_id !== null && { image_id: query.image_id }), ...fields });
    return { method: "POST", headers: { "Content-Type": "application/json" }, body };
  }
  const body = new FormData();
  body.append("image", query.file);
  for (const [name, value] of Object.entries(fields)) body.append(name, typeof value === "string" ? value : JSON.stringify(value));
  return { method: "POST", body };
}
