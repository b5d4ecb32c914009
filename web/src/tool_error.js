// A tool's refusal, with the fields that every error of the server has.
export class ToolError extends Error {
  constructor(info) {
    super(info.message ?? String(info));
    this.code = info.code ?? "";
    this.fix = info.fix ?? "";
  }
}

const ERROR_KEY = "rlm-mcp/error"; // where the server puts the fields of an error

export function structured(result) {
  if (!result.isError) return result.structuredContent;
  const text = result.content?.map((block) => block.text).join("\n");
  throw new ToolError(result._meta?.[ERROR_KEY] ?? { message: text || "The call failed." });
}
