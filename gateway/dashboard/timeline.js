/** What the models did in the last minutes: a lane each, and the latest transitions in words. */

import { byId, copyOf, element, keeper, setAttributes, setText, shape } from "./dom.js";
import { bytes, CAUSES, counted, duration, KINDS, kindOf, stateWords } from "./words.js";

/** Minutes that the lanes may show; the first that is long enough is taken. */
const WINDOWS = [2, 5, 15];
const LATEST = 12;
/** How far a lane is drawn: beyond its right edge, so that time can pass without drawing it anew. */
const AHEAD = 1e6;

/** Times in the pictures are seconds since this. */
const start = Date.now() / 1000;
const showLanes = keeper(byId("lanes"), lane);
const showLatest = keeper(byId("latest"), inWords);
byId("legend").append(...Object.entries(KINDS).map(([kind, words]) => element("li", { "data-kind": kind }, words)));

/** @param {import("./main.js").Seen} seen */
export function showTimeline(seen) {
  const { models, events, now } = seen;
  const busy = new Set(events.map((event) => event.model));
  const lively = models.filter((model) => model.state !== "cold" || busy.has(model.name));
  const minutes = WINDOWS.find((one) => now - 60 * one < (events[0]?.at ?? now)) ?? WINDOWS.at(-1);
  showLanes(lively, seen, 60 * minutes);
  const others = models.length - lively.length;
  setText(byId("unloaded"), others ? `Left out: ${counted(others, "model")} not loaded yet` : "");
  [`${minutes} min ago`, `${minutes / 2}`].forEach((mark, place) => setText(byId("times").children[place], mark));
  showLatest(events.slice(-LATEST).reverse());
}

function lane({ name }) {
  const { node, picture } = copyOf("lane", name);
  const showStretches = keeper(picture, pictured);

  function update(model, { events, now }, seconds) {
    const found = stretches(model, events.filter((event) => event.model === name), now);
    showStretches(found.map((stretch, place) => ({ ...stretch, to: found[place + 1]?.from ?? start + AHEAD })));
    const viewBox = `${(now - start - seconds).toFixed(1)} 0 ${seconds} 24`;
    const label = `${name}: ${KINDS[found.at(-1).kind]}; ${counted(found.length, "state")} seen`;
    setAttributes(picture, { viewBox, "aria-label": label });
  }
  return { node, update };
}

/** One after another, each with a state from its beginning to the next one's. */
function stretches(model, own, now) {
  const found = own.map((event) => ({ name: event.name, from: event.at, kind: kindOf(event.after, event.level), event }));
  const current = { name: "now", from: now - model.state_seconds, kind: kindOf(model.state, model.level) };
  if (found.at(-1)?.kind !== current.kind) found.push(current);
  if (own.length) found.unshift({ name: "before", from: start - AHEAD, kind: kindOf(own[0].before, own[0].level) });
  else found[0].from = start - AHEAD;
  return found;
}

function pictured({ event }) {
  const title = shape("title"), rect = shape("rect"), node = shape("g", {}, title, rect);
  // Most wakes are too short to be seen as a stretch of time.
  const woke = event?.before === "waking" && event.after === "awake";
  if (woke) node.append(shape("line", { x1: event.at - start, x2: event.at - start, y1: 1, y2: 22, "data-kind": "waking" }));

  function update({ from, to, kind }) {
    setText(title, event ? `${sentence(event)}, ${time(event.at)}` : KINDS[kind]);
    setAttributes(rect, { x: from - start, width: Math.max(0, to - from), "data-kind": kind });
  }
  return { node, update };
}

const time = (at) => new Date(at * 1000).toLocaleTimeString();

function sentence(event) {
  const parts = [CAUSES[event.cause] ?? event.cause];
  if (event.seconds) parts.push(duration(event.seconds));
  if (event.bytes) parts.push(bytes(event.bytes));
  return `${stateWords(event.before)} → ${stateWords(event.after, event.level)}: ${parts.join(", ")}`;
}

function inWords(event) {
  const at = element("time", { datetime: new Date(event.at * 1000).toISOString() }, time(event.at));
  return { node: element("li", {}, at, " ", element("b", {}, event.model), ` ${sentence(event)}`) };
}
