// Elements, and names and numbers in words.

const SVG = "http://www.w3.org/2000/svg";

export const $ = (id) => document.getElementById(id);

/** A new element; properties are set, children appended. Text is never read as HTML. */
export function make(tag, properties = {}, ...children) {
  const element = Object.assign(document.createElement(tag), properties);
  element.append(...children);
  return element;
}

/** A new SVG element; attributes are set. */
export function makeSvg(tag, attributes = {}, ...children) {
  const element = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children);
  return element;
}

export const readable = (name) => name.replaceAll("_", " ");

export const count = (n, noun) => `${n.toLocaleString("en")} ${noun}${n === 1 ? "" : "s"}`;

export function percent(probability) {
  if (probability > 0.9995) return ">\u00a099.9\u00a0%";
  return probability < 0.001 ? "<\u00a00.1\u00a0%" : `${(100 * probability).toFixed(1)}\u00a0%`;
}

/** 0.012, with three decimals at most. */
export const number = (value) => (value > 0 && value < 0.0005 ? "less than 0.001" : String(Number(value.toFixed(3))));

/** Text for those who hear the page. */
export const heard = (textContent) => make("span", { className: "heard", textContent });

const sameAs = (element) => element?.closest?.("[data-same]")?.dataset.same;

/** Light all that stands for the same (`data-same`); null: what is focused. */
export function light(given) {
  const same = given ?? sameAs(document.activeElement);
  for (const element of document.querySelectorAll(".lit")) if (element.dataset.same !== same) element.classList.remove("lit");
  if (same) for (const element of document.querySelectorAll(`[data-same="${same}"]`)) element.classList.add("lit");
  document.dispatchEvent(new CustomEvent("light", { detail: same }));
}

/** What is pointed at or focused, and all that stands for the same, is lit. */
export function lightTogether() {
  document.addEventListener("pointerover", (event) => event.target.closest("#map") || light(sameAs(event.target)));
  document.addEventListener("focusin", (event) => light(sameAs(event.target)));
}
