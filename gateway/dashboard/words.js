/** Sizes, times and states in words. */

const UNITS = ["B", "KiB", "MiB", "GiB", "TiB"];

/** @param {number} size */
export function bytes(size) {
  const power = size < 1024 ? 0 : Math.min(Math.floor(Math.log2(size) / 10), UNITS.length - 1);
  return `${power ? short(size / 1024 ** power) : size} ${UNITS[power]}`;
}

/** How long something took. */
export function duration(seconds) {
  if (seconds < 0.9995) return `${short(seconds * 1000)} ms`;
  return seconds < 100 ? `${short(seconds)} s` : clock(seconds);
}

/** As on a clock that counts: 0:07, 12:30, 3:05:00. */
export function clock(seconds) {
  const whole = Math.max(0, Math.round(seconds));
  const [hours, minutes, rest] = [Math.floor(whole / 3600), Math.floor(whole / 60) % 60, whole % 60];
  const two = (number) => String(number).padStart(2, "0");
  return hours ? `${hours}:${two(minutes)}:${two(rest)}` : `${minutes}:${two(rest)}`;
}

/** With a decimal where it says something. */
export const short = (number) => (number === 0 || number >= 9.95 ? String(Math.round(number)) : number.toFixed(1));

/** "1 wake", "2 wakes". */
export const counted = (number, what) => `${number} ${what}${number === 1 ? "" : "s"}`;

export const sum = (numbers) => numbers.reduce((all, one) => all + one, 0);

/** What the colours tell apart. */
export const KINDS = {
  awake: "awake",
  waking: "waking",
  draining: "draining",
  "asleep-1": "asleep, level 1: weights in RAM",
  "asleep-2": "asleep, level 2: nothing in memory",
  cold: "not loaded yet",
  failed: "failed",
};

/**
 * @param {string} state
 * @param {number | null} level
 * @returns {keyof typeof KINDS}
 */
export const kindOf = (state, level) => (state === "asleep" ? `asleep-${level ?? 2}` : state);

export const stateWords = (state, level) => (state === "asleep" ? `asleep ${level ?? ""}`.trim() : state);

/** Why a model moved; the causes are the server's. */
export const CAUSES = {
  request: "a request came",
  preload: "at the start",
  manual: "by hand",
  idle: "nobody asked",
  deepen: "asleep for long",
  room: "another model needed room",
  turn: "another model's turn",
  memory: "memory was short",
  failure: "it failed",
  config: "the configuration changed",
};
