/**
 * The dashboard: looks at the server every second while anybody looks at the page, and shows what it sees.
 *
 * @typedef {object} Model as `/api/status` tells of it
 * @property {string} name
 * @property {string} state
 * @property {number | null} level
 * @property {"opening" | "wake" | "room" | "turn" | "place" | null} waiting_for
 *
 * @typedef {object} Seen what was seen last
 * @property {Model[]} models
 * @property {{total: number, limit: number, used: number, available: number}} device
 * @property {{total: number, limit: number, used: number, available: number}} host
 * @property {object[]} events the transitions, the oldest first, each with a name of its own
 * @property {Record<string, number>} rates tokens a second, by model
 * @property {number} now the server's clock, in seconds
 */

import { eventsOf, request } from "./api.js";
import { isWaiting, showChat, startChat } from "./chat.js";
import { byId, setText } from "./dom.js";
import { startKeys } from "./keys.js";
import { showMemory } from "./memory.js";
import { showModels } from "./models.js";
import { showNumbers } from "./numbers.js";
import { startTheme } from "./theme.js";
import { showTimeline } from "./timeline.js";
import { showWakes } from "./wakes.js";
import { stateWords } from "./words.js";

const HISTORY = 1000;
/** @type {Map<string, object>} the transitions, each once, however often the server tells of it */
const events = new Map();
const states = new Map();
let before = null;
let rates = {};
/** Aborted when the page is hidden. */
let looking = new AbortController();
let locked = false;
let hurried = false;

/** Look again at once: something has happened. */
function hurry() {
  hurried = true;
  dispatchEvent(new Event("hurry"));
}

const hurries = () => new Promise((resolve) => addEventListener("hurry", resolve, { once: true }));
const passes = (milliseconds) => new Promise((resolve) => setTimeout(resolve, milliseconds));

/** The server is asked for nothing while nobody would see it, or it wants a key that nobody gives. */
async function isOfUse() {
  while (document.hidden || locked) await hurries();
}

async function watch() {
  for (;;) {
    await isOfUse();
    hurried = false;
    await look();
    if (!hurried) await Promise.race([hurries(), passes(isWaiting() ? 200 : 1000)]);
  }
}

async function look() {
  try {
    const response = await request("/api/status", { timeout: 10_000 });
    const status = await response.json();
    show({ ...status, events: [...events.values()], rates: ratesOf(status), now: serverTime(response) });
    setConnection("live", "live");
  } catch (error) {
    before = null;
    locked = error.status === 401;
    if (locked) setConnection("locked", "a key is needed");
    else setConnection("lost", error.status ? error.message : "connection lost, trying again…");
  }
}

function show(seen) {
  document.body.dataset.seen = "";
  announce(seen.models);
  for (const part of [showNumbers, showMemory, showTimeline, showWakes, showChat]) part(seen);
  showModels(seen.models, seen.rates, hurry);
}

/** The server's clock: the header's seconds, unless they are ours. */
function serverTime(response) {
  const ours = Date.now() / 1000;
  const theirs = Date.parse(response.headers.get("date") ?? "") / 1000 + 0.5;
  return Math.abs(theirs - ours) > 3 ? theirs : ours;
}

function ratesOf({ generated_tokens: tokens }) {
  const now = performance.now() / 1000;
  if (before && now - before.at < 0.5) return rates;
  const rateOf = ([name, count]) => [name, Math.max(0, count - (before.tokens[name] ?? 0)) / (now - before.at)];
  if (before) rates = Object.fromEntries(Object.entries(tokens).map(rateOf));
  before = { at: now, tokens };
  return rates;
}

/** Tells people who cannot see it what has changed. */
function announce(models) {
  const news = models.filter(({ name, state }) => states.has(name) && states.get(name) !== state);
  for (const { name, state } of models) states.set(name, state);
  const words = news.map(({ name, state, level }) => `${name} is ${stateWords(state, level)}`);
  if (words.length) setText(byId("announcer"), words.join(", "));
}

function setConnection(kind, words) {
  document.body.dataset.connection = kind;
  setText(byId("connection"), words);
}

/** The transitions as they happen, all that are remembered first: after a restart their numbers begin anew. */
async function listen() {
  for (;;) {
    await isOfUse();
    try {
      const response = await request("/api/events", { signal: looking.signal });
      for await (const data of eventsOf(response)) remember(JSON.parse(data));
    } catch {
      // It is tried again, and the other loop tells people.
    }
    await passes(1000);
  }
}

function remember(event) {
  const name = `${event.at} ${event.model} ${event.after}`;
  events.set(name, { ...event, name });
  if (events.size > HISTORY) events.delete(events.keys().next().value);
  hurry();
}

document.addEventListener("visibilitychange", () => {
  if (document.hidden) looking.abort();
  else looking = new AbortController();
  hurry();
});
startTheme(byId("theme"));
startKeys(() => {
  locked = false;
  hurry();
});
startChat(hurry);
watch();
listen();
