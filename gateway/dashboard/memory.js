/** Two bars, of the device and of the host: what each model holds, what others use, and the limit. */

import { byId, copyOf, element, keeper, setAttributes, setText } from "./dom.js";
import { bytes, kindOf, sum } from "./words.js";

/** What even a sleeper at level 2 keeps is not worth a line. */
const LITTLE = 64 * 1024;

const POOLS = [
  { name: "device", title: "Device", holds: (model) => model.device_bytes },
  { name: "host", title: "RAM for parked weights", holds: (model) => model.host_bytes },
];
const PARTS = { weights: "weights", kv: "KV cache", parked: "parked" };

/**
 * What a model holds, in bytes: its weights and KV cache where it is awake, or its parked weights.
 * @param {import("./main.js").Model} model
 */
export function holdings(model) {
  const kv = Math.min(model.kv_bytes, model.device_bytes);
  // On a device that is the host's own memory, parked weights stay where they are.
  const inPlace = model.state === "asleep" && model.host_bytes > 0 && model.device_bytes >= model.host_bytes;
  const found = { weights: inPlace ? 0 : model.device_bytes - kv, kv, parked: model.host_bytes };
  return Object.fromEntries(Object.entries(found).map(([part, size]) => [part, size < LITTLE ? 0 : size]));
}

const showPools = keeper(byId("pools"), pool);
const showHolders = keeper(byId("holders"), holder);

/** @param {import("./main.js").Seen} seen */
export function showMemory(seen) {
  showPools(POOLS.map((one) => ({ ...one, ...seen[one.name], models: seen.models })));
  const all = (model) => sum(Object.values(holdings(model)));
  showHolders(seen.models.filter(all), Math.max(...seen.models.map(all)));
}

function pool({ title }) {
  const { node, words, track, filling, limit } = copyOf("pool", title);
  const showSegments = keeper(filling, segment);

  function update({ total, used, available, limit: most, models, holds }) {
    const others = Math.max(0, total - used - available);
    const held = models
      .map((model) => ({ name: model.name, kind: kindOf(model.state, model.level), size: holds(model) }))
      .filter(({ size }) => size >= LITTLE);
    showSegments([...held, { name: "\0others", kind: "others", size: others }], total);
    limit.style.left = `${(100 * most) / total}%`;
    limit.title = `limit: ${bytes(most)}`;
    const text = `${bytes(used)} of ${bytes(most)} allowed, ${bytes(others)} otherwise used, ${bytes(total)} in all`;
    setText(words, text);
    setAttributes(track, { "aria-label": `${title}: ${text}` });
  }
  return { node, update };
}

function segment() {
  const node = element("i");
  function update({ name, kind, size }, total) {
    node.dataset.kind = kind;
    node.style.width = `${(100 * size) / total}%`;
    node.title = kind === "others" ? `otherwise used: ${bytes(size)}` : `${name}, ${kind.replace("-", " ")}: ${bytes(size)}`;
  }
  return { node, update };
}

function holder({ name }) {
  const { node, track, words } = copyOf("holder", name);

  function update(model, most) {
    const held = Object.entries(holdings(model));
    track.dataset.kind = kindOf(model.state, model.level);
    for (const [part, size] of held) track.querySelector(`.${part}`).style.width = `${(100 * size) / most}%`;
    const told = held.filter(([, size]) => size).map(([part, size]) => `${bytes(size)} ${PARTS[part]}`);
    setText(words, told.join(", "));
  }
  return { node, update };
}
