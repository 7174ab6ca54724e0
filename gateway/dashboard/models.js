/** The models: each with its state, what comes next for it, and the buttons to wake, sleep and pin it. */

import { request } from "./api.js";
import { byId, copyOf, element, keeper, setAttributes, setText } from "./dom.js";
import { holdings } from "./memory.js";
import { bytes, clock, duration, kindOf, short, stateWords } from "./words.js";

/** @type {(models: import("./main.js").Model[], rates: Record<string, number>, acted: () => void) => void} */
export const showModels = keeper(byId("models"), row);

function row({ name }) {
  const { node, aliases, badge, next, progress, facts, buttons, main, deep, pin, error } = copyOf("model-row", name);
  let model, problem = "", over = () => {};
  setAttributes(progress, { "aria-label": `Progress of ${name}` });
  setAttributes(buttons, { "aria-label": name });

  function press(button, action) {
    button.addEventListener("click", async () => {
      if (button.hasAttribute("aria-disabled")) return;
      const [path, query] = action();
      problem = "";
      node.classList.add("asked");
      try {
        await request(`${path}?${new URLSearchParams({ model: name, ...query })}`, { method: "POST" });
      } catch (failure) {
        problem = failure.message;
      }
      node.classList.remove("asked");
      showError();
      over();
    });
  }
  press(main, () => (isAwake(model) ? ["/sleep", { level: 1 }] : ["/wake_up"]));
  press(deep, () => ["/sleep", { level: 2 }]);
  press(pin, () => [model.pinned ? "/api/unpin" : "/api/pin"]);

  const showError = () => setText(error, problem || (model.state === "failed" && model.last_error) || "");

  function update(now, rates, acted) {
    if (model && model.state !== now.state && now.state !== "failed") problem = "";
    [model, over] = [now, acted];
    const moving = now.state === "waking" || now.state === "draining";
    const awake = isAwake(now);
    node.dataset.kind = badge.dataset.kind = kindOf(now.state, now.level);
    setText(badge, stateWords(now.state, now.level));
    setText(aliases, now.aliases.length ? `also ${now.aliases.join(", ")}` : "");
    setText(next, whatComes(now));
    showProgress(progress, now);
    showError();
    facts.replaceChildren(...factsOf(now, rates[name]).map((fact) => element("span", {}, fact)));
    setText(main, awake ? "Sleep" : "Wake");
    main.title = awake ? "Level 1: its weights stay in RAM where there is room" : "";
    disable(main, moving);
    disable(deep, moving || !canDeepen(now));
    pin.title = now.pinned ? "Let it sleep by itself again" : "Keep it from sleeping by itself";
    setAttributes(pin, { "aria-pressed": String(now.pinned) });
    for (const button of [main, deep, pin]) setAttributes(button, { "aria-label": `${button.textContent} ${name}` });
  }
  return { node, update };
}

export const isAwake = (model) => model?.state === "awake" || model?.state === "draining";
const canDeepen = ({ state, level, device_bytes, host_bytes }) =>
  isAwake({ state }) || (state === "asleep" && level === 1) || (state === "failed" && device_bytes + host_bytes > 0);

/** Not `disabled`, which would lose the focus. */
const disable = (node, is) => setAttributes(node, { "aria-disabled": is && "true" });

function whatComes(model) {
  const asked = listed(model.in_flight > model.queued && `${model.in_flight - model.queued} running`,
    model.queued && `${model.queued} waiting`, model.waiting_for === "room" && "no room yet");
  if (model.state === "waking") return progressWords(model);
  if (model.state === "draining") return listed(asked, "no new ones");
  if (model.state === "asleep") return listed(`for ${clock(model.state_seconds)}`, asked);
  if (model.state !== "awake" || asked) return asked;
  if (model.pinned) return "pinned, stays awake";
  return model.sleeps_in_seconds === null ? "stays awake" : `sleeps in ${clock(model.sleeps_in_seconds)}`;
}

const listed = (...parts) => parts.filter(Boolean).join(", ");

/** How far a wake has come; also for the chat. */
export function progressWords({ progress, state_seconds: since }) {
  if (!progress?.total) return `for ${duration(since)}`;
  const share = Math.floor((100 * progress.done) / progress.total);
  return `${progress.phase === "weights" ? "" : `${progress.phase} `}${share} % of ${bytes(progress.total)}`;
}

/** @param {HTMLElement} node a `progress` */
export function showProgress(node, model) {
  const progress = model?.state === "waking" ? model.progress : null;
  node.hidden = model?.state !== "waking";
  setAttributes(node, { value: progress?.total ? progress.done / progress.total : false });
}

function factsOf(model, rate) {
  const { weights, kv, parked } = holdings(model);
  const wake = model.last_wake;
  return [
    model.kind === "embed" && "makes embeddings",
    weights + kv && `${bytes(weights + kv)} on the device`,
    parked && `${bytes(parked)} parked in RAM`,
    !(weights + kv + parked) && model.weights_bytes && `${bytes(model.weights_bytes)} of weights on disk`,
    wake && `woke in ${duration(wake.seconds)} from ${wake.level ? `level ${wake.level}` : "cold"}`,
    rate && `${short(rate)} tokens/s`,
  ].filter(Boolean);
}
