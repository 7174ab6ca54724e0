/** The fleet in four numbers, and the tokens of the last two minutes as a curve. */

import { byId, setAttributes, setText } from "./dom.js";
import { short, sum } from "./words.js";

const POINTS = 120;
/** @type {number[]} */
const past = [];
let counted = null;

/** @param {import("./main.js").Seen} seen */
export function showNumbers({ models, rates }) {
  const queued = sum(models.map((model) => model.queued));
  const awake = models.filter((model) => ["awake", "draining"].includes(model.state)).length;
  const rate = sum(Object.values(rates));
  setText(byId("number-awake"), `${awake} of ${models.length}`);
  setText(byId("number-running"), String(sum(models.map((model) => model.in_flight)) - queued));
  setText(byId("number-waiting"), String(queued));
  setText(byId("number-rate"), short(rate));
  if (rates === counted) return;
  counted = rates;
  past.push(rate);
  past.splice(0, past.length - POINTS);
  const most = Math.max(1, ...past);
  const points = past.map((one, place) => `${POINTS - past.length + place},${19 - (18 * one) / most}`);
  setAttributes(byId("curve"), { points: points.join(" ") });
}
