/**
 * The dashboard: looks at the server every second while anybody looks at the page, and shows what it sees.
 *
 * @typedef {object} Model as `/api/status` tells of it
 * @property {string} name
 * @property {string} state
 * @property {number | null} level
 *
 * @typedef {object} Seen what was seen last
 * @property {Model[]} models
 * @property {{total: number, limit: number, used: number, available: number}} device
 * @property {{total: number, limit: number, used: number, available: number}} host
 * @property {object[]} events the transitions, the oldest first
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
let hurried = false;
let goOn = () => {};

/** Look again at once: something has happened. */
function hurry() {
  hurried = true;
  goOn();
}

/** Until so long has passed, or somebody is in a hurry, or was since the last pause. */
async function pause(milliseconds) {
  if (!hurried) {
    await new Promise((resolve) => {
      goOn = resolve;
      setTimeout(resolve, milliseconds);
    });
  }
  hurried = false;
}

async function watch() {
  for (;;) {
    if (!document.hidden) await look();
    const idle = document.hidden || document.body.dataset.connection === "locked";
    await pause(idle ? 3600e3 : isWaiting() ? 200 : 1000);
  }
}

async function look() {
  try {
    const response = await request("/api/status", { timeout: 10_000 });
    const status = await response.json();
    show({ ...status, events: [...events.values()], rates: ratesOf(status), now: serverTime(response) });
    setConnection("live", "live");
  } catch (error) {
    setConnection(error.status === 401 ? "locked" : "lost",
      error.status === 401 ? "a key is needed" : error.status ? error.message : "connection lost, trying again…");
    before = null;
  }
}

function show(seen) {
  document.body.dataset.seen = "";
  announce(seen.models);
  for (const part of [showNumbers, showMemory, showTimeline, showWakes, showChat]) part(seen);
  showModels(seen, acted);
}

/** The server's clock: the header's seconds, unless they are ours. */
function serverTime(response) {
  const ours = Date.now() / 1000;
  const theirs = Date.parse(response.headers.get("date") ?? "") / 1000 + 0.5;
  return Math.abs(theirs - ours) > 3 ? theirs : ours;
}

function ratesOf(status) {
  const now = performance.now() / 1000;
  const tokens = status.generated_tokens;
  if (before && now - before.at < 0.5) return rates;
  if (before)
    rates = Object.fromEntries(Object.entries(tokens).map(([name, count]) =>
      [name, Math.max(0, count - (before.tokens[name] ?? 0)) / (now - before.at)]));
  before = { at: now, tokens };
  return rates;
}

/** Tells people who cannot see it what has changed. */
function announce(models) {
  const news = models.filter(({ name, state }) => states.has(name) && states.get(name) !== state);
  for (const { name, state } of models) states.set(name, state);
  if (news.length)
    setText(byId("announcer"), news.map(({ name, state, level }) => `${name} is ${stateWords(state, level)}`).join(", "));
}

function setConnection(kind, words) {
  document.body.dataset.connection = kind;
  setText(byId("connection"), words);
}

/** A button's request is over, maybe with a problem. */
function acted(problem) {
  const notice = byId("action-error");
  notice.hidden = !problem;
  setText(notice, problem?.message ?? "");
  hurry();
}

/** The transitions as they happen, all that are remembered first: after a restart their numbers begin anew. */
async function listen() {
  for (;;) {
    const listening = new AbortController();
    const leave = () => document.hidden && listening.abort();
    document.addEventListener("visibilitychange", leave);
    try {
      if (!document.hidden) await hear(listening.signal);
    } catch {
      // It is tried again, and the other loop tells people.
    }
    document.removeEventListener("visibilitychange", leave);
    await new Promise((resolve) => setTimeout(resolve, 1000));
    if (document.hidden) await new Promise((resolve) => document.addEventListener("visibilitychange", resolve, { once: true }));
    if (document.body.dataset.connection === "locked") await keyChanged;
  }
}

async function hear(signal) {
  for await (const data of eventsOf(await request("/api/events", { signal }))) {
    const event = JSON.parse(data);
    events.set(`${event.at} ${event.model} ${event.after}`, event);
    if (events.size > HISTORY) events.delete(events.keys().next().value);
    hurry();
  }
}

let tellKeyChanged = () => {};
let keyChanged = new Promise((resolve) => (tellKeyChanged = resolve));

startTheme(byId("theme"));
startKeys(() => {
  tellKeyChanged();
  keyChanged = new Promise((resolve) => (tellKeyChanged = resolve));
  hurry();
});
startChat(() => hurry());
document.addEventListener("visibilitychange", () => hurry());
watch();
listen();
