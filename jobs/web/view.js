// What answers look like: pictures with their key region and object, cards, bars, and numbers in words.

const SVG = "http://www.w3.org/2000/svg";
const FACTORS = [["query_weight", "query-weight"], ["candidate_weight", "candidate-weight"], ["distance", "distance"]];
const SUPERSCRIPT = { "-": "⁻", 0: "⁰", 1: "¹", 2: "²", 3: "³", 4: "⁴", 5: "⁵", 6: "⁶", 7: "⁷", 8: "⁸", 9: "⁹" };

/** A new element; properties are set, children appended. Text is never read as HTML. */
export function make(tag, properties = {}, ...children) {
  const element = Object.assign(document.createElement(tag), properties);
  element.append(...children);
  return element;
}

export const readable = (name) => name.replaceAll("_", " ");

export const thumbnail = (imageId) => "thumbnail/" + imageId.split("/").map(encodeURIComponent).join("/");

export function percent(probability) {
  if (probability > 0.9995) return ">\u00a099.9\u00a0%";
  return probability < 0.001 ? "<\u00a00.1\u00a0%" : `${(100 * probability).toFixed(1)}\u00a0%`;
}

/** 0.0123, or 1.2×10⁻⁷ where there would be too many zeros. */
export function number(value) {
  if (value === 0 || value >= 0.001) return String(Number(value.toPrecision(2)));
  const [digits, exponent] = value.toExponential(1).split("e");
  return `${digits}×10${[...exponent].map((character) => SUPERSCRIPT[character]).join("")}`;
}

/** An image with its key region and object drawn over it; `boxes` in pixels of the full image. */
export function picture(source, alt, { width, height, region, object } = {}) {
  const image = make("img", { src: source, alt, loading: "lazy", decoding: "async" });
  const frame = make("div", { className: "picture" }, image);
  if (region === undefined) return frame;
  const svg = document.createElementNS(SVG, "svg");
  svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
  svg.setAttribute("aria-hidden", "true");
  draw(svg, "region", region);
  if (object) draw(svg, "object", { x: object.x0, y: object.y0, width: object.x1 - object.x0, height: object.y1 - object.y0 });
  frame.append(svg);
  return frame;
}

function draw(svg, name, box) {
  for (const kind of [`${name} halo`, name]) {  // a dark line under the bright one: seen on any ground
    const rect = document.createElementNS(SVG, "rect");
    for (const [key, value] of Object.entries(box)) rect.setAttribute(key, value);
    rect.setAttribute("class", kind);
    svg.append(rect);
  }
}

/** By how many powers of ten each factor makes the weighted distance smaller: 0 or more. */
export function shares(result) {
  return FACTORS.map(([key]) => Math.max(0, -Math.log10(result[key])));
}

/** A bar's length in powers of ten; a distance of exactly 0, infinitely many of them, counts as two. */
const length = (result) => shares(result).reduce((sum, share) => sum + (Number.isFinite(share) ? share : 2), 0);

/** The scale of all bars: the longest one fills its card. */
export const longest = (results) => Math.max(1, ...results.map(length));

function bar(result, scale) {
  const element = make("span", { className: "bar" });
  shares(result).forEach((share, i) => {
    const part = make("i", { className: FACTORS[i][1] });
    // A distance of exactly 0 is infinitely many powers of ten: it takes what is left.
    if (Number.isFinite(share)) part.style.width = `${(100 * share) / scale}%`;
    else part.style.flex = "1";
    element.append(part);
  });
  return element;
}

/** One result: a button that searches from it. */
export function resultCard(result, scale, onPick) {
  const weighted = number(result.weighted_distance);
  const factors = FACTORS.map(([key]) => number(result[key])).join(" × ");
  const alt = `${readable(result.class)}: ${result.image_id}`;
  const card = make(
    "button",
    { type: "button", className: "card", title: `${result.image_id}\nSearch from this image`, onclick: () => onPick(result.image_id) },
    picture(thumbnail(result.image_id), "", { ...result, object: result.object_box }),
    make(
      "span",
      { className: "line" },
      make("span", {}, make("span", { className: "rank", textContent: result.rank }), readable(result.class)),
      make("span", { className: "percent", textContent: percent(result.probability) }),
    ),
    bar(result, scale),
    make("span", { className: "product", textContent: `${weighted} = ${factors}` }),
    make("span", { className: "name", textContent: result.image_id }),
  );
  card.setAttribute(
    "aria-label",
    `Rank ${result.rank}: ${alt}, ${percent(result.probability)} probable, weighted distance ${weighted}. Search from it`,
  );
  return make("li", {}, card);
}

/** One image of the index: a button that searches from it. */
export function imageCard(image, onPick) {
  const name = image.image_id.split("/").at(-1);
  const card = make(
    "button",
    { type: "button", className: "card", title: `${image.image_id}\nSearch from this image`, onclick: () => onPick(image.image_id) },
    picture(thumbnail(image.image_id), ""),
    make("span", { className: "name", textContent: name }),
  );
  card.setAttribute("aria-label", `Search from ${image.image_id}, ${readable(image.class)}`);
  return make("li", {}, card);
}

/** What a query was taken for, as lines of its caption. */
export function queryCaption(query, name) {
  const likely = Object.entries(query.class_probabilities).sort((a, b) => b[1] - a[1]).slice(1, 3);
  const others = likely.filter(([, p]) => p >= 0.001).map(([c, p]) => `${readable(c)} ${percent(p)}`).join(", ");
  const { region, object } = query;
  const lines = [
    [`${readable(query.class)}, ${percent(query.probability)}`, "what"],
    [others && `else ${others}`, "soft"],
    [object ? `Object: ${readable(object.class)}, ${percent(object.score)}` : "No object found: the key region is centred on the image", "soft"],
    [`Key region: ${region.width}×${region.height} of ${query.width}×${query.height} pixels`, "soft"],
    [query.notes && `Reading it: ${query.notes}`, "soft"],
    [name, "soft"],
  ];
  return lines.filter(([text]) => text).map(([textContent, className]) => make("p", { textContent, className }));
}
