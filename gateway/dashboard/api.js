/** Asking the server: with the key if there is one, and for a key when it wants one. */

const KEY = "dormouse-key";

/** What the server, or the browser when there is no server, has to say. `status` 0: no answer. */
export class ApiError extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

/** Replaced by whoever can ask: resolves to true when there is another key to try. */
let askForKey = async (_reason) => false;

export const key = {
  get: () => sessionStorage.getItem(KEY),
  set: (text) => sessionStorage.setItem(KEY, text),
  forget: () => sessionStorage.removeItem(KEY),
  /** @param {(reason: string) => Promise<boolean>} ask */
  askWith: (ask) => (askForKey = ask),
};

/** Stopping is left as it is; for all else there is no server to tell what it was. */
const lost = (message) => (error) => {
  throw error.name === "AbortError" ? error : new ApiError(0, message);
};

/**
 * @param {string} path
 * @param {RequestInit & {json?: unknown, timeout?: number}} [options] `timeout` in milliseconds, of one try
 * @returns {Promise<Response>} of success. Throws ApiError, and AbortError when `options.signal` says so.
 */
export async function request(path, { json, timeout, ...options } = {}) {
  for (;;) {
    const sent = key.get();
    const headers = { "content-type": "application/json", ...(sent && { authorization: `Bearer ${sent}` }) };
    const signal = timeout ? AbortSignal.timeout(timeout) : options.signal;
    const all = { cache: "no-store", body: JSON.stringify(json), ...options, headers, signal };
    const response = await fetch(path, all).catch(lost("no answer from the server"));
    if (response.ok) return response;
    const message = await messageOf(response);
    if (response.status !== 401 || !(await hasAnother(sent))) throw new ApiError(response.status, message);
  }
}

const messageOf = (response) =>
  response.json().then(({ error }) => error.message).catch(() => `the server answered ${response.status}`);

const hasAnother = async (sent) =>
  sent !== key.get() || askForKey(sent ? "The server does not take this key for that." : "The server asks for a key.");

/**
 * The data of server-sent events, a line each, as they come.
 * @param {Response} response
 * @returns {AsyncGenerator<string>} Throws ApiError when the stream breaks.
 */
export async function* eventsOf(response) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { done, value } = await reader.read().catch(lost("the connection was lost"));
    if (done) return;
    const lines = (rest + value).split("\n");
    rest = lines.pop();
    yield* lines.filter((line) => line.startsWith("data: ")).map((line) => line.slice(6));
  }
}
