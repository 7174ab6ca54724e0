/** How long wakes took, by what they woke from: a dot each, on a logarithmic scale, and their median. */

import { byId, copyOf, element, keeper, setAttributes, setText } from "./dom.js";
import { counted, duration } from "./words.js";

const LEVELS = { cold: "from cold", 2: "from level 2", 1: "from level 1" };
const SHOWN = 100;
const [LEAST, MOST] = [0.001, 100];
const showStrips = keeper(byId("strips"), strip);

/** @param {import("./main.js").Seen} seen */
export function showWakes({ events }) {
  const all = wakes(events);
  showStrips(Object.entries(LEVELS).map(([level, name]) =>
    ({ name, found: all.filter((wake) => wake.from === level).slice(-SHOWN) })));
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

function strip({ name }) {
  const { node, marks, words } = copyOf("strip", name);
  const showMarks = keeper(marks, mark);

  function update({ found }) {
    const middle = found.length ? [{ name: "median", seconds: median(found.map((wake) => wake.seconds)) }] : [];
    showMarks([...middle, ...found]);
    setText(words, found.length ? `median ${duration(middle[0].seconds)}, ${counted(found.length, "wake")}` : "none yet");
    setAttributes(marks, { "aria-label": `${name}: ${words.textContent}` });
  }
  return { node, update };
}

function mark({ model }) {
  const node = element("i", { class: model ? "dot" : "median" });
  function update({ seconds }) {
    const share = Math.log(Math.min(Math.max(seconds, LEAST), MOST) / LEAST) / Math.log(MOST / LEAST);
    node.style.left = `${100 * share}%`;
    setAttributes(node, { title: `${model ?? "median"}: ${duration(seconds)}` });
  }
  return { node, update };
}

function median(numbers) {
  const sorted = numbers.toSorted((a, b) => a - b);
  const half = sorted.length >> 1;
  return sorted.length % 2 ? sorted[half] : (sorted[half - 1] + sorted[half]) / 2;
}
