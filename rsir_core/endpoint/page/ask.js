// Asks the endpoint; what goes wrong becomes an Error whose message is for people.

const TRIES = 5;
const LONGEST_WAIT = 10;  // seconds, whatever the endpoint says

/** An answer's JSON. While the endpoint is busy, tries again when it says; `onWait` is told so in words. */
export async function ask(path, options = {}, onWait = () => {}) {
  for (let attempt = 1; ; attempt += 1) {
    const response = await reach(path, options);
    if (response.ok) return response.status === 204 ? null : response.json();
    if (response.status !== 503 || attempt === TRIES) throw await refusal(response);
    const seconds = Math.min(Math.max(Number(response.headers.get("Retry-After")) || 1, 1), LONGEST_WAIT);
    onWait(`The endpoint is busy; trying again in ${seconds} s (try ${attempt + 1} of ${TRIES}) …`);
    await pause(seconds, options.signal);
  }
}

async function reach(path, options) {
  try {
    return await fetch(path, options);
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Error("The endpoint does not answer. Is it still running?");
  }
}

/** What a refusal says, as an Error. */
export async function refusal(response) {
  const body = await response.json().catch(() => ({}));
  const failed = response.status === 503 ? "is still busy; try again later" : `failed (status ${response.status}); its log says why`;
  const words = body.detail ?? `The endpoint ${failed}.`;
  return Object.assign(new Error(words), { status: response.status });
}

function pause(seconds, signal) {
  return new Promise((resolve, reject) => {
    setTimeout(resolve, 1000 * seconds);
    signal?.addEventListener("abort", () => reject(signal.reason), { once: true });
  });
}
