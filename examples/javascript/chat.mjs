// One plain request with the fetch that Node has built in.
const { INFERENCE_URL, INFERENCE_KEY, INFERENCE_MODEL_ID = "smollm2-135m-instruct" } = process.env;

const response = await fetch(`${INFERENCE_URL}/v1/chat/completions`, {
  method: "POST",
  headers: { Authorization: `Bearer ${INFERENCE_KEY}`, "Content-Type": "application/json" },
  body: JSON.stringify({
    model: INFERENCE_MODEL_ID,
    max_tokens: 40,
    messages: [{ role: "user", content: "Name a colour of the sea." }],
  }),
});
const answer = await response.json();
if (!response.ok) {
  console.error(`${response.status} ${answer.error.code}: ${answer.error.message}`);
  process.exit(1);
}
console.log(answer.choices[0].message.content);
