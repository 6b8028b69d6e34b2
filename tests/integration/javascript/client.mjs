// Asks a gateway with OpenAI's JavaScript client; prints what came back as one JSON object.
import OpenAI from "openai";

const [baseURL, apiKey, model] = process.argv.slice(2);
const client = new OpenAI({ baseURL, apiKey, maxRetries: 0 });
const messages = [{ role: "user", content: "Say" }];
const tools = [{ type: "function", function: { name: "weather", parameters: { type: "object" } } }];

const whole = await client.chat.completions.create({ model, messages });
let streamed = "";
for await (const chunk of await client.chat.completions.create({ model, messages, stream: true })) {
  streamed += chunk.choices[0]?.delta?.content ?? "";
}
const response = await client.responses.create({ model, input: "Say" });
const models = (await client.models.list()).data.map((m) => m.id);
let refused = 0;
try {
  await client.chat.completions.create({ model: "nobody", messages });
} catch (error) {
  refused = error.status;
}
const tool = (await client.chat.completions.create({ model, messages, tools })).choices[0].message.tool_calls;
console.log(JSON.stringify({
  whole: whole.choices[0].message.content, streamed, response: response.output_text, models, refused,
  tool: tool?.[0]?.function?.name,
}));
