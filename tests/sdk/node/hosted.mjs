// The OpenAI Node SDK in a tool loop with a hosted model: `node hosted.mjs` prints what came back, as JSON.
import OpenAI from "openai";

const model = process.env.MODEL;
const client = new OpenAI({
  baseURL: process.env.BASE_URL, apiKey: process.env.INFERENCE_KEY, maxRetries: 0, timeout: 30_000,
});
const asked = [];
const tools = [{
  type: "function",
  function: {
    name: "get_weather",
    parse: JSON.parse,
    parameters: { type: "object", properties: { city: { type: "string" } }, required: ["city"] },
    function: ({ city }) => {
      asked.push(city);
      return `${city === "Oslo" ? "rain" : "sun"} in ${city}`;
    },
  },
}];

// The SDK's own runner: it streams, calls the functions, sends their results back, and streams again.
const runner = client.chat.completions.runTools({
  model, tools, stream: true, stream_options: { include_usage: true },
  messages: [{ role: "user", content: process.env.QUESTION }],
});
const said = await runner.finalContent();
const usage = await runner.totalUsage();

const stream = await client.chat.completions.create({
  model, stream: true, messages: [{ role: "user", content: "Think." }],
  extended_thinking: { enabled: true, budget_tokens: 1024, include_reasoning: true },
});
const thought = { text: "", thinking: "" };
for await (const chunk of stream) {
  thought.text += chunk.choices[0]?.delta.content ?? "";
  thought.thinking += chunk.choices[0]?.delta.reasoning?.thinking ?? "";
}
console.log(JSON.stringify({ asked, said, usage, thought }));
