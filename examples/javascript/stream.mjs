// A streamed answer, printed as it comes. In a folder where `npm install openai` was run.
import { createRequire } from "node:module";

// require() also finds packages by NODE_PATH, which import does not.
const { OpenAI } = createRequire(import.meta.url)("openai");

const client = new OpenAI({ baseURL: `${process.env.INFERENCE_URL}/v1`, apiKey: process.env.INFERENCE_KEY });
const stream = await client.chat.completions.create({
  model: process.env.INFERENCE_MODEL_ID ?? "smollm2-135m-instruct",
  max_tokens: 40,
  messages: [{ role: "user", content: "Name a colour of the sea." }],
  stream: true,
});
for await (const chunk of stream) process.stdout.write(chunk.choices[0]?.delta.content ?? "");
process.stdout.write("\n");
