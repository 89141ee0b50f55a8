// The page's main sections, of which one is shown: the results, the archive, what was learned from marks.

import { $ } from "./view.js";

/** Show a section; any other name shows none. */
export function show(name) {
  $("results").hidden = name !== "results";
  $("archive").hidden = name !== "archive";
  $("learned").hidden = name !== "learned";
  $("unlike").hidden ||= name !== "results";
}

/** Make a section a place in the history, of the search as it is, unless it is the place already. */
export function enter(section, of) {
  if (history.state?.[section] !== of) history.pushState({ ...history.state, [section]: of }, "", location.href);
}
