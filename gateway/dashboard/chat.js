/** A small chat. Its messages live in the page, so a server that restarts does not lose them. */

import { eventsOf, request } from "./api.js";
import { byId, element, keepChildren, setText } from "./dom.js";
import { progressWords, showProgress } from "./models.js";
import { duration, stateWords } from "./words.js";

/** @type {{role: "user" | "assistant", content: string}[]} */
let messages = [];
/** @type {ReturnType<typeof answerTo> | null} The answer that is on its way. */
let current = null;
/** @type {import("./main.js").Model[]} */
let models = [];
const options = new Map();
const log = byId("chat-log"), text = byId("chat-text"), picker = byId("chat-model"), send = byId("chat-send");

/** Whether nothing has come yet, so that a look at the server is worth more than usual. */
export const isWaiting = () => current !== null && !current.begun;

/** @param {import("./main.js").Seen} seen */
export function showChat(seen) {
  models = seen.models;
  keepChildren(picker, options, models, (model) => model.name, option);
  current?.wait();
}

/** @param {() => void} look asks the server anew */
export function startChat(look) {
  byId("chat-form").addEventListener("submit", (event) => {
    event.preventDefault();
    if (current) current.stop();
    else if (text.value.trim() && picker.value) ask(text.value.trim(), look);
  });
  text.addEventListener("keydown", (event) => {
    if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
    event.preventDefault();
    if (!current) byId("chat-form").requestSubmit();
  });
  byId("chat-new").addEventListener("click", () => {
    current?.stop();
    messages = [];
    log.replaceChildren();
    text.focus();
  });
  setInterval(() => current?.wait(), 200);
}

function option(model) {
  const node = element("option", { value: model.name });
  return { node, update: (now) => setText(node, `${now.name} (${stateWords(now.state, now.level)})`) };
}

function ask(content, look) {
  if (messages.at(-1)?.role === "user") messages.pop(); // it was never answered
  messages.push({ role: "user", content });
  text.value = "";
  log.append(element("p", { class: "message user" }, content));
  answer(look);
}

async function answer(look) {
  const asked = messages;
  current = answerTo(picker.value);
  setText(send, "Stop");
  const mine = current;
  look();
  try {
    await mine.read(asked);
  } catch (error) {
    mine.fail(error, () => asked === messages && asked.at(-1).role === "user" && !current && answer(look));
  }
  if (mine.content) asked.push({ role: "assistant", content: mine.content });
  mine.end();
  if (current === mine) current = null;
  setText(send, "Send");
}

function answerTo(model) {
  const began = performance.now();
  const stopping = new AbortController();
  const words = element("span", { class: "waiting" });
  const progress = element("progress", { max: 1, "aria-label": "Progress of the wake" });
  const waiting = element("div", { class: "wait" }, words, progress);
  const reasoning = element("div", { class: "reasoning" });
  const thoughts = element("details", {}, element("summary", {}, "Reasoning"), reasoning);
  const said = element("div", { class: "said" });
  const node = element("div", { class: "message assistant" }, element("span", { class: "small name" }, model), waiting);

  const self = {
    begun: false,
    content: "",
    stop: () => stopping.abort(),
    wait() {
      if (self.begun) return;
      const status = models.find((one) => one.name === model);
      setText(words, `${waitWords(status)} · ${((performance.now() - began) / 1000).toFixed(1)}\u00a0s`);
      showProgress(progress, status);
    },
    async read(asked) {
      const json = { model, messages: asked, stream: true };
      const response = await request("/v1/chat/completions", { method: "POST", json, signal: stopping.signal });
      for await (const data of eventsOf(response)) {
        if (data === "[DONE]") return;
        const event = JSON.parse(data);
        if (event.error) throw new Error(event.error.message);
        const delta = event.choices[0]?.delta;
        if (delta?.reasoning_content) grow(thoughts, reasoning, delta.reasoning_content);
        if (delta?.content) {
          self.content += delta.content;
          grow(said, said, delta.content);
        }
      }
      throw new Error("the connection was lost");
    },
    fail(error, again) {
      const stopped = error.name === "AbortError";
      const retry = element("button", { type: "button" }, "Try again");
      retry.addEventListener("click", () => {
        if (again()) node.remove();
      });
      const notice = element("p", { class: stopped ? "small" : "error" }, stopped ? "stopped" : error.message);
      node.append(notice, ...(self.content ? [] : [retry]));
      follow();
    },
    end() {
      self.begun = true;
      waiting.remove();
      if (self.content || node.querySelector("p")) return;
      node.append(element("p", { class: "small" }, "an empty answer"));
    },
  };

  function grow(part, inner, piece) {
    if (!self.begun) {
      self.begun = true;
      waiting.replaceWith(element("span", { class: "small" }, `first token after ${duration((performance.now() - began) / 1000)}`));
    }
    if (!part.parentNode) node.append(part);
    const atEnd = log.scrollHeight - log.scrollTop - log.clientHeight < 60;
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
  switch (model?.state) {
    case "awake":
      return model.queued > 1 ? `waiting, ${model.queued} in the queue` : "reading the message…";
    case "waking":
      return `waking… ${progressWords(model)}`;
    case "draining":
      return "waiting for its turn…";
    default:
      return "waking…";
  }
}
