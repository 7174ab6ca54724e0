// OpenAI's own client for node: plain and streamed, its helpers, and its errors.
import assert from "node:assert/strict";
import OpenAI, { AuthenticationError, BadRequestError, NotFoundError } from "openai";
import { zodResponseFormat } from "openai/helpers/zod";
import { z } from "zod";
import { CHAT, EMBEDDINGS, run, WEATHER } from "./steps.mjs";

const client = new OpenAI({ maxRetries: 0 });
const hello = [
  { role: "system", content: "Be brief." },
  { role: "user", content: "Hello!" },
];
const asked = { model: CHAT, messages: hello };
const warm = { ...asked, temperature: 1, seed: 7 };
const Nest = z.object({ mice: z.number().int().min(0).max(99), season: z.enum(["winter", "summer"]) });
const named = { type: "function", function: { name: "get_weather" } };
const tool = {
  type: "function",
  function: { name: "get_weather", description: "Tells the weather.", parameters: WEATHER, strict: true },
};

const forced = { ...warm, tools: [tool], parallel_tool_calls: false };

async function models() {
  const ids = [];
  for await (const model of client.models.list()) ids.push(model.id);
  assert.deepEqual(ids.toSorted(), [CHAT, EMBEDDINGS]);
  return ids.join(", ");
}

async function chat() {
  const { data, response, request_id } = await client.chat.completions.create(asked).withResponse();
  const [choice] = data.choices;
  assert.equal(choice.finish_reason, "stop");
  assert.equal(choice.message.role, "assistant");
  assert.ok(choice.message.content && choice.message.tool_calls === undefined);
  assert.equal(data.usage.total_tokens, data.usage.prompt_tokens + data.usage.completion_tokens);
  assert.ok(request_id && response.headers.get("server-timing"));
  return choice.message.content;
}

async function streamed() {
  const stream = await client.chat.completions.create({
    ...asked,
    stream: true,
    stream_options: { include_usage: true },
  });
  const chunks = [];
  for await (const chunk of stream) chunks.push(chunk);
  const text = chunks.map((chunk) => chunk.choices[0]?.delta.content ?? "").join("");
  const whole = await client.chat.completions.create(asked);
  assert.equal(text, whole.choices[0].message.content);
  assert.equal(chunks.at(-2).choices[0].finish_reason, "stop");
  assert.equal(chunks.at(-1).usage.completion_tokens, whole.usage.completion_tokens);
  return `${chunks.length} chunks`;
}

async function leaving() {
  const stream = await client.chat.completions.create({ ...asked, stream: true });
  for await (const chunk of stream) if (chunk.choices[0].delta.content) break;
  assert.ok(stream.controller.signal.aborted);
  return "a stream left in its midst";
}

async function stream_helper() {
  let text = "";
  const stream = client.chat.completions.stream(asked).on("content", (delta) => (text += delta));
  const final = await stream.finalChatCompletion();
  assert.equal(text, final.choices[0].message.content);
  assert.equal(await stream.finalContent(), text);
  return text;
}

async function parsed() {
  const response_format = zodResponseFormat(Nest, "nest");
  const answer = await client.chat.completions.parse({ ...warm, response_format });
  const nest = answer.choices[0].message.parsed;
  assert.deepEqual(nest, Nest.parse(nest));
  const streaming = client.chat.completions.stream({ ...warm, response_format });
  assert.deepEqual((await streaming.finalChatCompletion()).choices[0].message.parsed, nest);
  return JSON.stringify(nest);
}

async function embeddings() {
  const input = ["A dormouse sleeps.", "Stock prices fell."];
  const packed = await client.embeddings.create({ model: EMBEDDINGS, input });
  const floats = await client.embeddings.create({ model: EMBEDDINGS, input, encoding_format: "float" });
  assert.deepEqual(
    packed.data.map((item) => [...new Float32Array(item.embedding)]),
    floats.data.map((item) => [...new Float32Array(item.embedding)]),
  );
  const ids = await client.embeddings.create({ model: EMBEDDINGS, input: [[101, 2023, 102]] });
  assert.equal(ids.usage.prompt_tokens, 3);
  return `${packed.data[0].embedding.length} numbers`;
}

async function errors() {
  const told = (changed, kind, code) =>
    assert.rejects(client.chat.completions.create({ ...asked, ...changed }), (error) => {
      assert.ok(error instanceof kind && error.requestID);
      assert.equal(error.code, code);
      return true;
    });
  await told({ model: "no-such" }, NotFoundError, "model_not_found");
  await told({ temperature: 3, stream: true }, BadRequestError, null);
  const long = [{ role: "user", content: "mouse ".repeat(5000) }];
  await told({ messages: long }, BadRequestError, "context_length_exceeded");
  await assert.rejects(new OpenAI({ apiKey: "wrong", maxRetries: 0 }).models.list(), AuthenticationError);
  return "each has its class and code";
}

async function tools() {
  for (const tool_choice of ["required", named]) {
    const answer = await client.chat.completions.create({ ...forced, tool_choice });
    const [call] = answer.choices[0].message.tool_calls;
    assert.ok(call.id && call.type === "function" && call.function.name === "get_weather");
    assert.match(JSON.parse(call.function.arguments).city, /^(Berlin|Paris)$/);
  }
  return "required and named";
}

async function streamed_tools() {
  const stream = client.chat.completions.stream({ ...forced, tool_choice: "required" });
  const done = [];
  stream.on("tool_calls.function.arguments.done", (event) => done.push(event));
  const [choice] = (await stream.finalChatCompletion()).choices;
  assert.equal(choice.finish_reason, "tool_calls");
  assert.deepEqual(
    done.map((event) => [event.name, event.arguments]),
    choice.message.tool_calls.map((call) => [call.function.name, call.function.arguments]),
  );
  assert.equal(done.length, 1);
  return JSON.parse(done[0].arguments).city;
}

async function run_tools() {
  const asked_for = [];
  const weather = {
    type: "function",
    function: {
      name: "get_weather",
      description: "Tells the weather.",
      parameters: WEATHER,
      parse: JSON.parse,
      function: ({ city }) => (asked_for.push(city), `It rains in ${city}.`),
    },
  };
  const runner = client.chat.completions.runTools({ ...warm, tools: [weather], tool_choice: named });
  const results = [];
  runner.on("functionToolCallResult", (result) => results.push(result));
  await runner.done();
  assert.ok(asked_for.length > 0);
  assert.deepEqual(results, asked_for.map((city) => `It rains in ${city}.`));
  return results.join(" ");
}

await run(
  models,
  chat,
  streamed,
  leaving,
  stream_helper,
  parsed,
  embeddings,
  errors,
  tools,
  streamed_tools,
  run_tools,
);
