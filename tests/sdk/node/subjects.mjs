// One subject of the OpenAI Node SDK per run: `node subjects.mjs SUBJECT` prints what came back, as JSON.
import OpenAI from "openai";

const model = process.env.MODEL;
const client = new OpenAI({
  baseURL: process.env.BASE_URL, apiKey: process.env.INFERENCE_KEY, maxRetries: 0, timeout: 100_000,
});
const messages = [{ role: "user", content: "Say hello in one short sentence." }];
const colour = {
  type: "object", properties: { colour: { enum: ["red", "green"] } }, required: ["colour"], additionalProperties: false,
};
const tools = [{ type: "function", function: { name: "paint", parameters: colour } }];

async function failure(call) {
  try {
    await call();
    return { name: "none" };
  } catch (error) {
    return { name: error.constructor.name, status: error.status, code: error.code, param: error.param };
  }
}

const subjects = {
  plain: () => client.chat.completions.create({ model, messages, max_tokens: 16 }),

  async streamed() {
    const stream = await client.chat.completions.create({
      model, messages, max_tokens: 16, stream: true, stream_options: { include_usage: true },
    });
    const seen = { text: "", roles: [], reason: null, usage: null };
    for await (const chunk of stream) {
      const choice = chunk.choices[0];
      seen.text += choice?.delta.content ?? "";
      if (choice?.delta.role) seen.roles.push(choice.delta.role);
      seen.reason = choice?.finish_reason ?? seen.reason;
      seen.usage = chunk.usage ?? seen.usage;
    }
    return seen;
  },

  // The SDK's own accumulator: it throws when indices or pieces of the calls do not fit together.
  async tools() {
    const stream = client.chat.completions.stream({ model, messages, tools, tool_choice: "required", max_tokens: 60 });
    return (await stream.finalChatCompletion()).choices[0];
  },

  async schema() {
    const json_schema = { name: "colour", strict: true, schema: colour };
    const answer = await client.chat.completions.create({
      model, messages, max_tokens: 60, response_format: { type: "json_schema", json_schema },
    });
    return JSON.parse(answer.choices[0].message.content);
  },

  async errors() {
    const wrong = new OpenAI({ baseURL: process.env.BASE_URL, apiKey: "inf-wrong", maxRetries: 0 });
    return {
      key: await failure(() => wrong.chat.completions.create({ model, messages })),
      model: await failure(() => client.chat.completions.create({ model: "no-such-model", messages })),
      value: await failure(() => client.chat.completions.create({ model, messages, temperature: 9 })),
      stream: await failure(() => client.chat.completions.create({ model: "no-such-model", messages, stream: true })),
    };
  },

  async models() {
    const ids = [];
    for await (const entry of client.models.list()) ids.push(entry.id);
    return ids;
  },
};

console.log(JSON.stringify(await subjects[process.argv[2]]()));
