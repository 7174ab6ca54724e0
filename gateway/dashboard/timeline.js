/** What the models did in the last quarter of an hour: a lane each, and the latest transitions in words. */

import { byId, element, keepChildren, setAttributes, shape } from "./dom.js";
import { bytes, CAUSES, duration, KINDS, kindOf, stateWords } from "./words.js";

const WINDOW = 900;
const LATEST = 12;
/** How far a lane is drawn: beyond its right edge, so that time can pass without drawing it anew. */
const AHEAD = 1e6;
const HEIGHTS = { awake: 20, draining: 20, failed: 20, waking: 15, "asleep-1": 9, "asleep-2": 5, cold: 1 };

/** Times in the pictures are seconds since this. */
const start = Date.now() / 1000;
const lanes = new Map();
const list = element("ol", { class: "latest" });
let drawn = "";

/** @param {import("./main.js").Seen} seen */
export function showTimeline(seen) {
  const section = byId("timeline");
  if (!list.parentNode) section.append(legend(), element("div", { class: "lanes" }), axis(), latest());
  keepChildren(section.querySelector(".lanes"), lanes, seen.models, (model) => model.name, (model) => lane(model.name));
  const changes = seen.models.map((model) => `${model.name} ${model.state} ${model.level}`).join("\n");
  const now = `${seen.events.length} ${seen.events.at(-1)?.at} ${changes}`;
  if (now !== drawn) {
    drawn = now;
    for (const model of seen.models) lanes.get(model.name).draw(stretches(model, seen), seen.events);
    list.replaceChildren(...seen.events.slice(-LATEST).reverse().map(inWords));
  }
  for (const model of seen.models) lanes.get(model.name).move(seen.now);
}

/** One after another, each with a state from its beginning to the next one's. */
function stretches(model, seen) {
  const own = seen.events.filter((event) => event.model === model.name);
  const found = own.map((event) => ({ from: event.at, kind: kindOf(event.after, event.level), event }));
  const current = { from: seen.now - model.state_seconds, kind: kindOf(model.state, model.level) };
  if (found.at(-1)?.kind !== current.kind) found.push(current);
  if (own.length && own[0] !== seen.events[0])
    found.unshift({ from: seen.now - AHEAD, kind: kindOf(own[0].before, own[0].level) });
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
  const move = (now) => setAttributes(picture, { viewBox: `${(now - start - WINDOW).toFixed(1)} 0 ${WINDOW} 24` });
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

function axis() {
  const marks = ["15 min ago", "10", "5", "now"].map((mark) => element("span", {}, mark));
  return element("div", { class: "axis", "aria-hidden": "true" }, ...marks);
}

const latest = () => element("details", {}, element("summary", {}, "Latest transitions in words"), list);
