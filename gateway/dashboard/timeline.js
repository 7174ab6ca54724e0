/** What the models did in the last quarter of an hour, or less when there is less to tell: a lane each, and the latest transitions in words. */

import { byId, element, keepChildren, setAttributes, setText, shape } from "./dom.js";
import { bytes, CAUSES, duration, KINDS, kindOf, stateWords } from "./words.js";

/** Minutes that the lanes may show; the first that is long enough is taken. */
const WINDOWS = [2, 5, 15];
const LATEST = 12;
/** How far a lane is drawn: beyond its right edge, so that time can pass without drawing it anew. */
const AHEAD = 1e6;
const HEIGHTS = { awake: 20, draining: 16, failed: 20, waking: 12, "asleep-1": 8, "asleep-2": 5, cold: 2 };

/** Times in the pictures are seconds since this. */
const start = Date.now() / 1000;
const lanes = new Map();
const list = element("ol", { class: "latest" });
const axis = element("div", { class: "axis", "aria-hidden": "true" }, ...["", "", ""].map(() => element("span")));
let drawn = "";

/** @param {import("./main.js").Seen} seen */
export function showTimeline(seen) {
  const section = byId("timeline");
  if (!list.parentNode) section.append(legend(), element("div", { class: "lanes" }), axis, latest());
  keepChildren(section.querySelector(".lanes"), lanes, seen.models, (model) => model.name, (model) => lane(model.name));
  const changes = seen.models.map((model) => `${model.name} ${model.state} ${model.level}`).join("\n");
  const now = `${seen.events.length} ${seen.events.at(-1)?.at} ${changes}`;
  if (now !== drawn) {
    drawn = now;
    for (const model of seen.models) lanes.get(model.name).draw(stretches(model, seen), seen.events);
    list.replaceChildren(...seen.events.slice(-LATEST).reverse().map(inWords));
  }
  const minutes = windowOf(seen);
  for (const model of seen.models) lanes.get(model.name).move(seen.now, 60 * minutes);
  [`${minutes} min ago`, `${minutes / 2}`, "now"].forEach((mark, place) => setText(axis.children[place], mark));
}

function windowOf({ events, now }) {
  const told = events.length ? (now - events[0].at) / 60 : 0;
  return WINDOWS.find((minutes) => told < minutes) ?? WINDOWS.at(-1);
}

/** One after another, each with a state from its beginning to the next one's. */
function stretches(model, seen) {
  const own = seen.events.filter((event) => event.model === model.name);
  const found = own.map((event) => ({ from: event.at, kind: kindOf(event.after, event.level), event }));
  const current = { from: seen.now - model.state_seconds, kind: kindOf(model.state, model.level) };
  if (found.at(-1)?.kind !== current.kind) found.push(current);
  if (own.length) found.unshift({ from: start - AHEAD, kind: kindOf(own[0].before, own[0].level) });
  else found[0].from = start - AHEAD;
  return found;
}

function lane(name) {
  const picture = shape("svg", { height: 24, preserveAspectRatio: "none", role: "img" });
  const node = element("div", { class: "lane" }, element("span", { class: "name", title: name }, name), picture);

  function draw(found) {
    picture.replaceChildren(...found.flatMap((stretch, place) => pictured(stretch, found[place + 1]?.from)));
    const last = found.at(-1);
    setAttributes(picture, { "aria-label": `${name}: ${KINDS[last.kind]}; ${found.length} states seen` });
  }
  const move = (now, seconds) =>
    setAttributes(picture, { viewBox: `${(now - start - seconds).toFixed(1)} 0 ${seconds} 24` });
  return { node, draw, move, update: () => {} };
}

function pictured({ from, kind, event }, to) {
  const height = HEIGHTS[kind];
  const what = event ? sentence(event) : KINDS[kind];
  const x = from - start;
  const title = () => shape("title", {}, `${what}${event ? `, ${time(event.at)}` : ""}`);
  const width = Math.max(0, (to ?? start + AHEAD) - from);
  const found = [shape("rect", { x, y: 22 - height, width, height, "data-kind": kind }, title())];
  // Most wakes are too short to be seen as a stretch of time.
  if (event?.after === "awake" && event.before === "waking")
    found.push(shape("line", { x1: x, x2: x, y1: 1, y2: 22, "data-kind": "waking" }, title()));
  return found;
}

const time = (at) => new Date(at * 1000).toLocaleTimeString();

function sentence(event) {
  const parts = [CAUSES[event.cause] ?? event.cause];
  if (event.seconds) parts.push(duration(event.seconds));
  if (event.bytes) parts.push(bytes(event.bytes));
  return `${stateWords(event.before)} → ${stateWords(event.after, event.level)}: ${parts.join(", ")}`;
}

function inWords(event) {
  const at = new Date(event.at * 1000);
  return element("li", {},
    element("time", { datetime: at.toISOString() }, at.toLocaleTimeString()), " ",
    element("b", {}, event.model), ` ${sentence(event)}`);
}

function legend() {
  const kinds = Object.entries(KINDS).map(([kind, words]) =>
    element("li", {}, shape("svg", { width: 14, height: 22, "aria-hidden": "true" },
      shape("rect", { y: 21 - HEIGHTS[kind], width: 14, height: HEIGHTS[kind], "data-kind": kind })), words));
  return element("ul", { class: "legend" }, ...kinds);
}

const latest = () => element("details", {}, element("summary", {}, "Latest transitions in words"), list);
