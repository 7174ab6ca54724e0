/** Two bars, of the device and of the host: what each model holds, what others use, and the limit. */

import { byId, element, keepChildren, setAttributes, setText } from "./dom.js";
import { bytes, kindOf } from "./words.js";

/** What even a sleeper at level 2 keeps is not worth a line. */
const LITTLE = 64 * 1024;

const POOLS = [
  { name: "device", title: "Device", holds: (model) => model.device_bytes },
  { name: "host", title: "RAM for parked weights", holds: (model) => model.host_bytes },
];

/**
 * What a model holds, in bytes: its weights and KV cache where it is awake, or its parked weights.
 * @param {import("./main.js").Model} model
 */
export function holdings(model) {
  const kv = Math.min(model.kv_bytes, model.device_bytes);
  const asleep = model.state === "asleep";
  // On a device that is the host's own memory, parked weights stay where they are.
  const inPlace = asleep && model.host_bytes > 0 && model.device_bytes >= model.host_bytes;
  const found = { weights: inPlace ? 0 : model.device_bytes - kv, kv, parked: model.host_bytes };
  return Object.fromEntries(Object.entries(found).map(([part, size]) => [part, size < LITTLE ? 0 : size]));
}

const bars = new Map();
const holders = new Map();
const list = element("ul", { class: "holders" });

/** @param {import("./main.js").Seen} seen */
export function showMemory(seen) {
  const section = byId("memory");
  if (!list.parentNode) section.append(element("div", { class: "pools" }), list);
  const pools = POOLS.map((pool) => ({ ...pool, ...seen[pool.name], models: seen.models }));
  keepChildren(section.querySelector(".pools"), bars, pools, (pool) => pool.name, bar);
  const sums = seen.models.map((model) => [model, Object.values(holdings(model)).reduce((all, one) => all + one)]);
  const holding = sums.filter(([, sum]) => sum).map(([model]) => model);
  const most = Math.max(...sums.map(([, sum]) => sum));
  keepChildren(list, holders, holding, (model) => model.name, (model) => holder(model.name));
  for (const model of holding) holders.get(model.name).scale(model, most);
}

function bar({ title }) {
  const words = element("span", { class: "small" });
  const track = element("div", { class: "track", role: "img" });
  const limit = element("i", { class: "limit" });
  const parts = new Map();
  const filling = element("div", { class: "filling" });
  track.append(filling, limit);
  const node = element("div", { class: "pool" }, element("p", {}, element("b", {}, title), words), track);

  function update(pool) {
    const others = Math.max(0, pool.total - pool.used - pool.available);
    const held = pool.models
      .map((model) => ({ ...model, size: pool.holds(model), total: pool.total, kind: kindOf(model.state, model.level) }))
      .filter((part) => part.size >= LITTLE);
    const shown = [...held, { name: "\0others", kind: "others", size: others, total: pool.total }];
    keepChildren(filling, parts, shown, (part) => part.name, segment);
    limit.style.left = `${(100 * pool.limit) / pool.total}%`;
    limit.title = `limit: ${bytes(pool.limit)}`;
    const text = `${bytes(pool.used)} of ${bytes(pool.limit)} allowed, ${bytes(others)} otherwise used, ${bytes(pool.total)} in all`;
    setText(words, text);
    setAttributes(track, { "aria-label": `${title}: ${text}` });
  }
  return { node, update };
}

function segment() {
  const node = element("i", {});
  function update({ name, kind, size, total }) {
    node.dataset.kind = kind;
    node.style.width = `${(100 * size) / total}%`;
    node.title = kind === "others" ? `otherwise used: ${bytes(size)}` : `${name}, ${kind.replace("-", " ")}: ${bytes(size)}`;
  }
  return { node, update };
}

function holder(name) {
  const words = element("span", { class: "small" });
  const line = element("div", { class: "track" });
  const parts = ["weights", "kv", "parked"].map((part) => element("i", { class: part }));
  line.append(...parts);
  const node = element("li", {}, element("span", { class: "name", title: name }, name), line, words);

  function scale(model, most) {
    const sizes = Object.values(holdings(model));
    line.dataset.kind = kindOf(model.state, model.level);
    parts.forEach((part, place) => (part.style.width = `${(100 * sizes[place]) / most}%`));
    const told = ["weights", "KV cache", "parked"].flatMap((what, place) => (sizes[place] ? [`${bytes(sizes[place])} ${what}`] : []));
    setText(words, told.join(", "));
  }
  return { node, scale, update: () => {} };
}
