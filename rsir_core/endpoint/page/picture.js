// An image with its key region and objects drawn over it, and what a query was taken for.

import { nameOf } from "./place.js";
import { isForObject } from "./query.js";
import { $, count, make, makeSvg, percent, readable } from "./view.js";

const TRIES = 3;

const pathOf = (imageId) => imageId.split("/").map(encodeURIComponent).join("/");

export const thumbnail = (imageId) => `thumbnail/${pathOf(imageId)}`;

/** The image itself; of a tile with its surroundings: `around` is what is added on each side, as a share of its size. */
export const fullImage = (imageId, around = 0) => `image/${pathOf(imageId)}${around ? `?around=${around}` : ""}`;

/** An image; `region` and boxes in pixels of the full image; `objects`: [{ box }], the representative one first. */
export function picture(source, alt, { width, height, region, objects = [] } = {}) {
  const image = make("img", { src: source, alt, loading: "lazy", decoding: "async" });
  retry(image, source);
  const frame = make("div", { className: "picture" }, image);
  if (!region) return frame;
  const svg = makeSvg("svg", { viewBox: `0 0 ${width} ${height}`, "aria-hidden": "true" });
  objects.slice(1).forEach(({ box }, i) => drawBox(svg, "other", box, `object-${i + 2}`));
  drawBox(svg, "region", { x0: region.x, y0: region.y, x1: region.x + region.width, y1: region.y + region.height });
  if (objects.length) drawBox(svg, "object", objects[0].box, "object-1");
  frame.append(svg);
  return frame;
}

/** Draw a box; returns its outlines: a dark one under the bright one, to be seen on any ground. */
export function drawBox(svg, name, box, same) {
  const attributes = { x: box.x0, y: box.y0, width: box.x1 - box.x0, height: box.y1 - box.y0, ...(same && { "data-same": same }) };
  const outlines = [`${name} halo`, name].map((kind) => makeSvg("rect", { ...attributes, class: kind }));
  svg.append(...outlines);
  return outlines;
}

/** Load an image of the endpoint again after a while: it may have been busy. */
function retry(image, source) {
  if (!/^(thumbnail|image)\//.test(source)) return;
  let tries = 1;
  image.addEventListener("error", () => {
    if (tries === TRIES) {
      image.parentElement?.classList.add("missing");
      return;
    }
    setTimeout(() => { image.src = `${source}${source.includes("?") ? "&" : "?"}try=${tries}`; }, 1000 * tries++);
  });
}

/** What a query was taken for, as elements of its caption; `asked` is what a person asked. */
function queryCaption(query, asked, { has_detector: hasDetector, regions }) {
  const likely = Object.entries(query.class_probabilities).sort((a, b) => b[1] - a[1]).slice(1, 3);
  const others = likely.filter(([, p]) => p >= 0.001).map(([c, p]) => `${readable(c)} ${percent(p)}`).join(", ");
  const region = query.region?.width ? query.region : null;  // of no size where nobody read the image
  const marks = [[asked.good, "good"], [asked.bad, "bad"]].filter(([ids]) => ids.length).map(([ids, kind]) => `${ids.length} ${kind}`);
  const line = (textContent, className = "soft") => textContent && make("p", { textContent, className });
  return [
    line(query.class && `${readable(query.class)}, ${percent(query.probability)}`, "what"),
    line(others && `else ${others}`),
    line(marks.length && `Refined by ${marks.join(" and ")} example${asked.good.length + asked.bad.length === 1 ? "" : "s"}`),
    region && objectList(query.objects, asked.box, hasDetector),
    line(region && `${isForObject(asked) ? "Looked for: the box with a margin" : "Key region"}: ${region.width}×${region.height} of ${query.width}×${query.height} pixels`),
    line(isForObject(asked) && regions === 1 && "Compared with whole scenes: this index has no regions of single objects."),
    line(query.notes && `Reading it: ${query.notes}`),
    nameLine(query.image_id ?? (asked.file ?? asked.upload)?.name) ?? line(asked.descriptor && "An uploaded picture, which a link does not hold"),
  ].filter(Boolean);
}

const nameLine = (name) => name && make("p", { className: "soft one-line", textContent: nameOf(name), title: name });

function objectList(objects, drawn, hasDetector) {
  const none = hasDetector ? "No object found" : "No detector";
  if (!objects.length) return make("p", { className: "soft", textContent: `${none}: the key region is centred on the image` });
  const words = objects.map((found, i) => (drawn && i === 0 ? "your box" : `${readable(found.class)}, ${percent(found.score)}`));
  if (objects.length === 1) return make("p", { className: "soft", textContent: `Object: ${words[0]}` });
  const items = words.map((textContent, i) => {
    const item = make("li", { textContent });
    item.dataset.same = `object-${i + 1}`;
    return item;
  });
  const rest = count(objects.length - 1, "other");
  return make("details", { className: "objects" }, make("summary", { textContent: `Object: ${words[0]}; ${rest}` }), make("ol", {}, ...items));
}

/** Where the query's picture is; null: a link's query has none. */
export const sourceOf = (query) => query.preview ?? (query.image_id === null ? null : fullImage(query.image_id));

/** Show a query that is described; returns the frame of its picture. */
export function showQuery(query, asked, index) {
  const source = sourceOf(query);
  const name = query.image_id ?? asked.file?.name;
  const frame = source === null ? make("div") : picture(source, `The query: ${name}`, query);
  if (query.width) frame.style.setProperty("--shape", query.width / query.height);
  drawQuery(frame, queryCaption(query, asked, index));
  return frame;
}

/** Show the query's picture with a caption. */
function drawQuery(frame, caption) {
  $("query").hidden = false;
  $("query").replaceChildren(frame, make("figcaption", {}, ...caption));
}

/** Show a file as the query, until it is described. */
export function drawFile(file) {
  const url = URL.createObjectURL(file);
  const frame = picture(url, `The query: ${file.name}`);
  const image = frame.firstChild;
  image.onload = () => URL.revokeObjectURL(url);
  image.onerror = () => image.remove();  // a format that browsers cannot show; the answer brings a preview
  drawQuery(frame, [nameLine(file.name)]);
}
