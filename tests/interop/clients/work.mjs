// What both TypeScript clients do.
export const server = JSON.parse(process.env.INTEROP_SERVER);

export async function work(client, call) {
  const progress = [];
  const { tools } = await client.listTools();
  const added = await call("rlm_context_add", { text: process.env.INTEROP_TEXT });
  const run = await call(
    "rlm_query",
    { question: "What is hidden?", contexts: [added.structuredContent.handle] },
    { onprogress: (step) => progress.push(step.message) },
  );
  const uri = `rlm://runs/${run.structuredContent.run_id}`;
  const resource = await client.readResource({ uri });
  const listed = await client.listResources();
  const prompt = await client.getPrompt({ name: "playbook" });
  const refused = await call("rlm_context_read", { handle: "ctx_0" });
  console.log(
    JSON.stringify({
      tools: tools.map((tool) => tool.name).sort(),
      answer: run.structuredContent.answer,
      progress,
      resource: JSON.parse(resource.contents[0].text).status,
      listed: listed.resources.map((one) => one.uri),
      prompt: prompt.messages[0].content.text,
      refused: [refused.isError, refused.content[0].text],
    }),
  );
  await client.close();
}
