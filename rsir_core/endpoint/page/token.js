// An endpoint that is not open to everybody: a token is exchanged once for a cookie, which goes with the thumbnails too.

import { ask } from "./ask.js";
import { $ } from "./view.js";

/** Set up once. `onAllowed` is called when the endpoint has taken a token; `onError` is given why it has not. */
export function setUpToken(onAllowed, onError) {
  $("key").addEventListener("submit", async (event) => {
    event.preventDefault();
    const body = JSON.stringify({ token: $("token").value.trim() });
    try {
      await ask("token", { method: "POST", headers: { "Content-Type": "application/json" }, body });
    } catch (error) {
      onError(error.status === 401 ? new Error("The endpoint does not know this token.") : error);
      $("token").select();
      return;
    }
    $("key").hidden = true;
    $("token").value = "";
    onAllowed();
  });
}

/** Ask a person for it, if that is what is wrong. */
export function askForToken(error) {
  if (error.status !== 401) return false;
  $("key").hidden = false;
  $("token").focus();
  return true;
}
