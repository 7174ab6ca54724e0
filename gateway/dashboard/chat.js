/** A small chat. Its messages live in the page, so a server that restarts does not lose them. */

import { eventsOf, request } from "./api.js";
import { byId, copyOf, element, keeper, setText } from "./dom.js";
import { isAwake, progressWords, showProgress } from "./models.js";
import { duration, stateWords } from "./words.js";

/** @type {{role: "user" | "assistant", content: string}[]} */
let messages = [];
/** @type {ReturnType<typeof answerBy> | null} The answer that is on its way. */
let current = null;
/** @type {import("./main.js").Model[]} */
let models = [];
let look = () => {};
const log = byId("chat-log"), form = byId("chat-form"), text = byId("chat-text"), picker = byId("chat-model");
const showOptions = keeper(picker, option);

/** Whether nothing has come yet, so that a look at the server is worth more than usual. */
export const isWaiting = () => current !== null && !current.begun;

/** @param {import("./main.js").Seen} seen */
export function showChat(seen) {
  models = seen.models.filter((model) => model.kind !== "embed");
  showOptions(models);
  text.placeholder = models.length ? "Message, Enter sends" : "None of the models can chat";
  current?.wait();
}

/** @param {() => void} hurry asks the server anew */
export function startChat(hurry) {
  look = hurry;
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    if (current) current.stop();
    else if (text.value.trim() && picker.value) ask(text.value.trim());
  });
  text.addEventListener("keydown", (event) => {
    if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
    event.preventDefault();
    if (!current) form.requestSubmit();
  });
  byId("chat-new").addEventListener("click", () => {
    current?.stop();
    messages = [];
    log.replaceChildren();
    text.focus();
  });
  setInterval(() => current?.wait(), 200);
}

function option({ name }) {
  const node = element("option", { value: name });
  return { node, update: ({ state, level }) => setText(node, `${name} (${stateWords(state, level)})`) };
}

function ask(content) {
  if (messages.at(-1)?.role === "user") messages.pop(); // it was never answered
  messages.push({ role: "user", content });
  text.value = "";
  log.append(element("p", { class: "message user" }, content));
  answer();
}

async function answer() {
  const asked = messages; // a new chat may have begun when it has been answered
  const mine = (current = answerBy(picker.value));
  setText(byId("chat-send"), "Stop");
  look();
  try {
    await mine.read(asked);
  } catch (error) {
    mine.fail(error);
  }
  if (mine.content) asked.push({ role: "assistant", content: mine.content });
  mine.end();
  if (current !== mine) return;
  current = null;
  setText(byId("chat-send"), "Send");
}

function answerBy(model) {
  const asked = performance.now();
  const stopping = new AbortController();
  const { node, waiting, words, progress, thoughts, reasoning, said } = copyOf("answer", model);
  const seconds = () => (performance.now() - asked) / 1000;
  const note = (kind, what) => element("p", { class: kind }, what);

  const self = {
    begun: false,
    content: "",
    stop: () => stopping.abort(),
    wait() {
      if (self.begun) return;
      const status = models.find((one) => one.name === model);
      setText(words, `${waitWords(status)} · ${seconds().toFixed(1)}\u00a0s`);
      showProgress(progress, status);
    },
    async read(messages) {
      const json = { model, messages, stream: true };
      const response = await request("/v1/chat/completions", { method: "POST", json, signal: stopping.signal });
      for await (const data of eventsOf(response)) {
        if (data === "[DONE]") return;
        const event = JSON.parse(data);
        if (event.error) throw new Error(event.error.message);
        const { reasoning_content: thought, content } = event.choices[0]?.delta ?? {};
        if (thought) grow(thoughts, reasoning, thought);
        if (content) grow(said, said, content);
        self.content += content ?? "";
      }
      throw new Error("the connection was lost");
    },
    fail(error) {
      const stopped = error.name === "AbortError";
      const retry = element("button", { type: "button" }, "Try again");
      retry.addEventListener("click", () => {
        if (current || messages.at(-1).role !== "user") return;
        node.remove();
        answer();
      });
      node.append(note(stopped ? "small" : "error", stopped ? "stopped" : error.message), ...(self.content ? [] : [retry]));
      follow();
    },
    end() {
      self.begun = true;
      waiting.remove();
      if (!self.content && !node.querySelector("p")) node.append(note("small", "an empty answer"));
    },
  };

  function grow(part, inner, piece) {
    const atEnd = log.scrollHeight - log.scrollTop - log.clientHeight < 60;
    if (!self.begun) waiting.replaceWith(element("span", { class: "small" }, `first token after ${duration(seconds())}`));
    self.begun = true;
    part.hidden = false;
    inner.append(piece);
    if (atEnd) follow();
  }

  log.append(node);
  self.wait();
  follow();
  return self;
}

const follow = () => (log.scrollTop = log.scrollHeight);

/** What an answer waits for. */
function waitWords(model) {
  switch (model?.waiting_for) {
    case "opening": return "opening the model…";
    case "wake": return `waking… ${progressWords(model)}`;
    case "room": return "waiting for room in memory…";
    case "turn": return "waiting for its turn…";
    case "place": return `waiting for a place, ${model.queued} in the queue…`;
  }
  return isAwake(model) ? "reading the message…" : "waking…";
}
