/** The fleet in four numbers, and the tokens of the last two minutes as a curve. */

import { byId, element, setAttributes, setText, shape } from "./dom.js";
import { short } from "./words.js";

const POINTS = 120;
const curve = shape("polyline", {});
const picture = shape("svg", { viewBox: `0 0 ${POINTS - 1} 20`, preserveAspectRatio: "none", "aria-hidden": "true" }, curve);
const tiles = Object.fromEntries(["awake", "running", "waiting", "tokens/s"].map((name) => [name, element("b", {}, "–")]));
/** @type {number[]} */
const past = [];
let counted = null;

/** @param {import("./main.js").Seen} seen */
export function showNumbers(seen) {
  const section = byId("numbers");
  if (!section.children.length)
    for (const [name, number] of Object.entries(tiles))
      section.append(element("p", {}, number, element("span", {}, name), ...(name === "tokens/s" ? [picture] : [])));
  const sum = (numbers) => numbers.reduce((all, one) => all + one, 0);
  const queued = sum(seen.models.map((model) => model.queued));
  const awake = seen.models.filter((model) => ["awake", "draining"].includes(model.state)).length;
  const rate = sum(Object.values(seen.rates));
  setText(tiles.awake, `${awake} of ${seen.models.length}`);
  setText(tiles.running, String(sum(seen.models.map((model) => model.in_flight)) - queued));
  setText(tiles.waiting, String(queued));
  setText(tiles["tokens/s"], short(rate));
  if (seen.rates === counted) return;
  counted = seen.rates;
  past.push(rate);
  past.splice(0, past.length - POINTS);
  const most = Math.max(1, ...past);
  const points = past.map((one, place) => `${POINTS - past.length + place},${19 - (18 * one) / most}`);
  setAttributes(curve, { points: points.join(" ") });
}
