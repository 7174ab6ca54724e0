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

/**
 * @param {string} path
 * @param {RequestInit & {json?: unknown, timeout?: number}} [options] `timeout` in milliseconds, of one try
 * @returns {Promise<Response>} of success. Throws ApiError, and AbortError when `options.signal` says so.
 */
export async function request(path, { json, timeout, ...options } = {}) {
  for (;;) {
    const sent = key.get();
    const response = await fetched(path, {
      ...options,
      ...(timeout ? { signal: AbortSignal.timeout(timeout) } : {}),
      headers: {
        ...(json === undefined ? {} : { "content-type": "application/json" }),
        ...(sent ? { authorization: `Bearer ${sent}` } : {}),
      },
      body: json === undefined ? undefined : JSON.stringify(json),
    });
    if (response.ok) return response;
    const message = await messageOf(response);
    const another = sent !== key.get();
    if (response.status !== 401) throw new ApiError(response.status, message);
    if (!another && !(await askForKey(sent ? "The server does not take this key for that." : "The server asks for a key.")))
      throw new ApiError(401, message);
  }
}

async function fetched(path, options) {
  try {
    return await fetch(path, { cache: "no-store", ...options });
  } catch (error) {
    if (options.signal?.aborted && error.name === "AbortError") throw error;
    throw new ApiError(0, "no answer from the server");
  }
}

async function messageOf(response) {
  try {
    return (await response.json()).error.message;
  } catch {
    return `the server answered ${response.status}`;
  }
}

/** POST, with what follows the question mark. */
export const act = (path, query) => request(`${path}?${new URLSearchParams(query)}`, { method: "POST" });

/**
 * The data of server-sent events, as they come.
 * @param {Response} response
 * @returns {AsyncGenerator<string>} Throws ApiError when the stream breaks.
 */
export async function* eventsOf(response) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { done, value } = await reader.read().catch((error) => {
      throw error.name === "AbortError" ? error : new ApiError(0, "the connection was lost");
    });
    if (done) return;
    const blocks = (rest + value).split("\n\n");
    rest = blocks.pop();
    for (const block of blocks) {
      const data = block.split("\n").filter((line) => line.startsWith("data: "));
      if (data.length) yield data.map((line) => line.slice(6)).join("\n");
    }
  }
}
