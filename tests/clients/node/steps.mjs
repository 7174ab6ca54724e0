// The steps of a client's script: each shows one thing and says what it saw.
// All run, or those named on the command line. The exit code is 1 when one failed, and the others still ran.
import diagnostics from "node:diagnostics_channel";

export const CHAT = "demo";
export const EMBEDDINGS = "minilm";
export const WEATHER = {
  type: "object",
  properties: { city: { type: "string", enum: ["Berlin", "Paris"] } },
  required: ["city"],
  additionalProperties: false,
};

diagnostics.subscribe("undici:client:beforeConnect", ({ connectParams }) => {
  if (connectParams.hostname !== "127.0.0.1") {
    console.error(`a client reached for ${connectParams.hostname}`);
    process.exit(70);
  }
});

export async function run(...steps) {
  const named = process.argv.slice(2);
  for (const step of steps) {
    if (named.length && !named.includes(step.name)) continue;
    try {
      console.log(`${step.name}: ${await step()}`);
    } catch (error) {
      console.log(`${step.name}: FAILED`);
      console.error(error);
      process.exitCode = 1;
    }
  }
}
