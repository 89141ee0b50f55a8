// A link to a search, which others can open.

import { copy } from "./copy.js";
import { toAddress, withoutFile } from "./query.js";
import { $ } from "./view.js";

/** Copy the link of a search; of an upload, by what it was ranked by. */
export async function share(asked, query, classNames) {
  const lacks = asked.file ? " It searches as the uploaded picture did, and does not show it." : "";
  const copied = await copy(new URL(toAddress(withoutFile(asked, query, classNames)), location.href).href, $("link"));
  $("link-says").textContent = `${copied ? "The link is copied." : "Copy the link from here."}${lacks}`;
}
