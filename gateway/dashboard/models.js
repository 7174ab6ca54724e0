/** The models: each with its state, what comes next for it, and the buttons to wake, sleep and pin it. */

import { act } from "./api.js";
import { byId, element, keepChildren, setAttributes, setText } from "./dom.js";
import { holdings } from "./memory.js";
import { bytes, clock, duration, kindOf, short, stateWords } from "./words.js";

const rows = new Map();

/** @param {import("./main.js").Seen} seen */
export function showModels(seen, acted) {
  keepChildren(byId("models"), rows, seen.models, (model) => model.name, (model) => row(model.name, acted));
  for (const model of seen.models) rows.get(model.name).showRate(seen.rates[model.name] ?? 0);
}

function row(name, acted) {
  const badge = element("span", { class: "badge" });
  const next = element("span", { class: "next" });
  const progress = element("progress", { max: 1, "aria-label": `Progress of ${name}` });
  const aliases = element("span", { class: "small" });
  const facts = element("p", { class: "facts" });
  const error = element("p", { class: "error" });
  const rate = element("span");
  const main = button("primary"), deep = button(""), pin = button("");
  const node = element("li", {},
    element("div", { class: "who" }, element("h3", {}, name), aliases),
    element("div", { class: "state" }, badge, next, progress),
    element("div", { class: "buttons", role: "group", "aria-label": name }, main, deep, pin),
    facts, error);
  setText(deep, "Deep sleep");
  setText(pin, "Pin");
  deep.title = "Level 2: all of its memory is given back";
  let model;

  async function perform(path, query) {
    node.classList.add("asked");
    try {
      await act(path, { model: name, ...query });
      acted(null);
    } catch (problem) {
      acted(problem);
    } finally {
      node.classList.remove("asked");
    }
  }
  press(main, () => (isAwake(model) ? perform("/sleep", { level: 1 }) : perform("/wake_up", {})));
  press(deep, () => perform("/sleep", { level: 2 }));
  press(pin, () => perform(model.pinned ? "/api/unpin" : "/api/pin", {}));

  function update(now) {
    model = now;
    node.dataset.kind = badge.dataset.kind = kindOf(now.state, now.level);
    setText(badge, stateWords(now.state, now.level));
    setText(aliases, now.aliases.length ? `also ${now.aliases.join(", ")}` : "");
    setText(next, whatComes(now));
    showProgress(progress, now);
    setText(error, now.state === "failed" ? now.last_error ?? "" : "");
    facts.replaceChildren(...factsOf(now).map((fact) => element("span", {}, fact)), rate);
    setText(main, isAwake(now) ? "Sleep" : "Wake");
    main.title = isAwake(now) ? "Level 1: its weights stay in RAM where there is room" : "";
    disable(main, now.state === "waking" || now.state === "draining");
    disable(deep, ["waking", "draining", "cold"].includes(now.state) || (now.state === "asleep" && now.level === 2));
    pin.title = now.pinned ? "Let it sleep by itself again" : "Keep it from sleeping by itself";
    setAttributes(pin, { "aria-pressed": String(now.pinned) });
    for (const one of [main, deep, pin]) setAttributes(one, { "aria-label": `${one.textContent} ${name}` });
  }
  const showRate = (perSecond) => setText(rate, perSecond ? `${short(perSecond)} tokens/s` : "");
  return { node, update, showRate };
}

const isAwake = (model) => model.state === "awake" || model.state === "draining";
const button = (kind) => element("button", { type: "button", class: kind });

/** Not `disabled`, which would lose the focus. */
const disable = (node, is) => setAttributes(node, { "aria-disabled": is && "true" });

function press(node, action) {
  node.addEventListener("click", () => node.getAttribute("aria-disabled") ?? action());
}

function whatComes(model) {
  switch (model.state) {
    case "awake":
      if (model.in_flight) return counted(model);
      if (model.pinned) return "pinned, stays awake";
      return model.sleeps_in_seconds === null ? "stays awake" : `sleeps in ${clock(model.sleeps_in_seconds)}`;
    case "draining":
      return `finishes ${model.in_flight} first`;
    case "asleep":
      return [`for ${clock(model.state_seconds)}`, counted(model)].filter(Boolean).join(", ");
    case "waking":
      return progressWords(model);
    default:
      return counted(model);
  }
}

function counted({ in_flight: all, queued }) {
  return [all > queued && `${all - queued} running`, queued && `${queued} waiting`].filter(Boolean).join(", ");
}

/** How far a wake has come; also for the chat. */
export function progressWords(model) {
  const { progress } = model;
  if (!progress?.total) return `for ${duration(model.state_seconds)}`;
  const share = Math.floor((100 * progress.done) / progress.total);
  return `${progress.phase === "weights" ? "" : `${progress.phase} `}${share} % of ${bytes(progress.total)}`;
}

/** @param {HTMLElement} node a `progress` */
export function showProgress(node, model) {
  const progress = model?.state === "waking" ? model.progress : null;
  node.hidden = model?.state !== "waking";
  setAttributes(node, { value: progress?.total ? progress.done / progress.total : false });
}

function factsOf(model) {
  const facts = [];
  const { weights, kv, parked } = holdings(model);
  if (weights + kv) facts.push(`${bytes(weights + kv)} on the device`);
  if (parked) facts.push(`${bytes(parked)} parked in RAM`);
  if (!(weights + kv + parked) && model.weights_bytes) facts.push(`${bytes(model.weights_bytes)} of weights on disk`);
  const wake = model.last_wake;
  if (wake) facts.push(`woke in ${duration(wake.seconds)} from ${wake.level ? `level ${wake.level}` : "cold"}`);
  return facts;
}
