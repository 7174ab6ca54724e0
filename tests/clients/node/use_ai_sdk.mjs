// Vercel's AI SDK with its provider for compatible servers: texts, objects, tools and embeddings.
import assert from "node:assert/strict";
import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import {
  APICallError,
  cosineSimilarity,
  embedMany,
  generateObject,
  generateText,
  Output,
  stepCountIs,
  streamObject,
  streamText,
  tool,
} from "ai";
import { z } from "zod";
import { CHAT, EMBEDDINGS, run } from "./steps.mjs";

const dormouse = createOpenAICompatible({
  name: "dormouse",
  baseURL: process.env.OPENAI_BASE_URL,
  apiKey: process.env.OPENAI_API_KEY,
  includeUsage: true,
  supportsStructuredOutputs: true,
});
const model = dormouse(CHAT);
const calm = { model, maxRetries: 0, system: "Be brief.", prompt: "Hello!" };
const warm = { ...calm, temperature: 1, seed: 7, maxOutputTokens: 200 };
const forced = { ...warm, providerOptions: { dormouse: { parallel_tool_calls: false } } };
const Nest = z.object({ mice: z.number().int().min(0).max(99), season: z.enum(["winter", "summer"]) });
const weather = {
  description: "Tells the weather of a city.",
  inputSchema: z.object({ city: z.enum(["Berlin", "Paris"]) }),
  execute: async ({ city }) => `It rains in ${city}.`,
};

// What a stream tells, part by part; its errors come as parts too.
async function read({ fullStream }) {
  const parts = [];
  for await (const part of fullStream) {
    if (part.type === "error") throw part.error;
    parts.push(part);
  }
  return parts;
}

async function generate_text() {
  const { text, usage, finishReason, response, warnings } = await generateText(calm);
  assert.ok(text.length > 0 && response.id && response.modelId === CHAT);
  assert.equal(finishReason, "stop");
  assert.equal(usage.totalTokens, usage.inputTokens + usage.outputTokens);
  assert.ok(!warnings?.length);
  return text;
}

async function stream_text() {
  const result = streamText({ ...calm, onError: () => {} });
  const deltas = (await read(result)).filter((part) => part.type === "text-delta");
  assert.equal(deltas.map((delta) => delta.text).join(""), (await generateText(calm)).text);
  const usage = await result.usage;
  assert.ok(usage.inputTokens > 0 && usage.outputTokens > 0);
  assert.equal(await result.finishReason, "stop");
  return `${usage.totalTokens} tokens`;
}

async function generate_object() {
  const { object, usage } = await generateObject({ ...warm, schema: Nest });
  assert.deepEqual(object, Nest.parse(object));
  assert.ok(usage.outputTokens > 0);
  const streaming = streamObject({ ...warm, schema: Nest, onError: () => {} });
  const parts = (await read(streaming)).filter((part) => part.type === "object");
  assert.deepEqual(await streaming.object, object);
  return `${JSON.stringify(object)}, in ${parts.length} parts`;
}

async function output_schema() {
  const { output } = await generateText({ ...warm, output: Output.object({ schema: Nest }) });
  assert.deepEqual(output, Nest.parse(output));
  const { output: word } = await generateText({ ...warm, output: Output.choice({ options: ["yes", "no"] }) });
  assert.ok(["yes", "no"].includes(word));
  return `${JSON.stringify(output)}, ${word}`;
}

async function embed_many() {
  const values = ["A dormouse sleeps.", "An animal hibernates.", "Stock prices fell."];
  const { embeddings, usage } = await embedMany({ model: dormouse.embeddingModel(EMBEDDINGS), values });
  const [sleeping, hibernating, stocks] = embeddings;
  assert.ok(cosineSimilarity(sleeping, hibernating) > cosineSimilarity(sleeping, stocks));
  assert.ok(usage.tokens > 0);
  return `${embeddings.length} of ${sleeping.length} numbers, ${usage.tokens} tokens`;
}

async function errors() {
  await assert.rejects(generateText({ ...calm, model: dormouse("no-such") }), (error) => {
    assert.ok(APICallError.isInstance(error));
    assert.equal(error.statusCode, 404);
    assert.equal(error.data.error.code, "model_not_found");
    return true;
  });
  return "404 with its code";
}

async function tools() {
  for (const toolChoice of ["required", { type: "tool", toolName: "weather" }]) {
    const { toolCalls, toolResults, finishReason } = await generateText({
      ...forced,
      tools: { weather: tool(weather) },
      toolChoice,
    });
    assert.ok(toolCalls.length > 0 && toolCalls[0].toolCallId);
    assert.deepEqual(
      toolResults.map((result) => result.output),
      toolCalls.map(({ input }) => `It rains in ${input.city}.`),
    );
    if (toolChoice === "required") assert.equal(finishReason, "tool-calls");
  }
  return "required and named";
}

async function streamed_tools() {
  const result = streamText({
    ...forced,
    tools: { weather: tool(weather) },
    toolChoice: "required",
    stopWhen: stepCountIs(2),
    prepareStep: ({ stepNumber }) => (stepNumber ? { toolChoice: "none" } : {}),
    onError: () => {},
  });
  const kinds = (await read(result)).map((part) => part.type);
  for (const kind of ["tool-input-start", "tool-input-delta", "tool-input-end", "tool-call", "tool-result"])
    assert.ok(kinds.includes(kind), kind);
  const steps = await result.steps;
  assert.equal(steps.length, 2);
  assert.equal(steps[0].finishReason, "tool-calls");
  assert.ok(steps[0].toolCalls.length > 0 && steps[1].toolCalls.length === 0 && steps[1].text);
  return `${JSON.stringify(steps[0].toolCalls[0].input)}, then ${JSON.stringify(steps[1].text)}`;
}

await run(
  generate_text,
  stream_text,
  generate_object,
  output_schema,
  embed_many,
  errors,
  tools,
  streamed_tools,
);
