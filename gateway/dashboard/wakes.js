/** How long wakes took, by what they woke from: a dot each, on a logarithmic scale, and their median. */

import { byId, element, setAttributes, setText } from "./dom.js";
import { duration } from "./words.js";

const LEVELS = { cold: "from cold", 2: "from level 2", 1: "from level 1" };
const SHOWN = 100;
const [LEAST, MOST] = [0.001, 100];
const rows = new Map();
let drawn = "";

/** @param {import("./main.js").Seen} seen */
export function showWakes({ events }) {
  const section = byId("wakes");
  if (!rows.size) {
    for (const [level, title] of Object.entries(LEVELS)) rows.set(level, row(title));
    section.append(element("div", { class: "strips" }, ...[...rows.values()].map((one) => one.node)), scale());
  }
  const found = wakes(events);
  const now = `${found.length} ${found.at(-1)?.at}`;
  if (now === drawn) return;
  drawn = now;
  for (const [level, one] of rows) one.show(found.filter((wake) => wake.from === level).slice(-SHOWN));
}

/** A wake is told of at its end; what it woke from, at its beginning. */
function wakes(events) {
  const from = new Map();
  const found = [];
  for (const event of events) {
    if (event.after === "waking") from.set(event.model, String(event.level ?? "cold"));
    else if (event.before === "waking" && event.after === "awake")
      found.push({ ...event, from: from.get(event.model) ?? "cold" });
  }
  return found;
}

function row(title) {
  const strip = element("div", { class: "strip", role: "img" });
  const words = element("span", { class: "small" });
  const node = element("div", { class: "level" }, element("span", { class: "name" }, title), strip, words);

  function show(found) {
    const middle = median(found.map((wake) => wake.seconds));
    const dots = found.map((wake) =>
      at(element("i", { class: "dot", title: `${wake.model}: ${duration(wake.seconds)}` }), wake.seconds));
    const line = found.length ? [at(element("i", { class: "median", title: `median ${duration(middle)}` }), middle)] : [];
    strip.replaceChildren(...line, ...dots);
    setText(words, found.length ? `median ${duration(middle)}, ${found.length} ${found.length > 1 ? "wakes" : "wake"}` : "none yet");
    setAttributes(strip, { "aria-label": `${title}: ${words.textContent}` });
  }
  show([]);
  return { node, show };
}

function at(node, seconds) {
  const share = Math.log(Math.min(Math.max(seconds, LEAST), MOST) / LEAST) / Math.log(MOST / LEAST);
  node.style.left = `${100 * share}%`;
  return node;
}

function median(numbers) {
  const sorted = numbers.toSorted((a, b) => a - b);
  const half = sorted.length >> 1;
  return sorted.length % 2 ? sorted[half] : (sorted[half - 1] + sorted[half]) / 2;
}

function scale() {
  const marks = ["1 ms", "10 ms", "0.1 s", "1 s", "10 s", "100 s"].map((mark) => element("span", {}, mark));
  return element("div", { class: "axis", "aria-hidden": "true" }, ...marks);
}
