// The app's half of MCP Apps (io.modelcontextprotocol/ui, 2026-01-26): JSON-RPC over postMessage.
// By hand, because the official App class brings 146 kB (gzipped) for these few messages.

export class Host {
  constructor() {
    this.id = 0;
    this.waiting = new Map();
    this.handlers = {};
    this.context = {};
    this.capabilities = {};
    window.addEventListener("message", (event) => {
      if (event.source === window.parent && event.data?.jsonrpc === "2.0") this.receive(event.data);
    });
  }

  on(method, handler) {
    this.handlers[method] = handler;
  }

  async connect(appInfo, availableDisplayModes) {
    const answer = await this.request("ui/initialize", {
      appInfo,
      appCapabilities: { availableDisplayModes },
      protocolVersion: "2026-01-26",
    });
    this.context = answer.hostContext ?? {};
    this.capabilities = answer.hostCapabilities ?? {};
    this.notify("ui/notifications/initialized", {});
    new ResizeObserver(() => this.tellSize()).observe(document.getElementById("root"));
  }

  tellSize() {
    const { width, height } = document.getElementById("root").getBoundingClientRect();
    if (Math.ceil(height) === this.height) return;
    this.height = Math.ceil(height);
    this.notify("ui/notifications/size-changed", { width: Math.ceil(width), height: this.height });
  }

  request(method, params) {
    const id = ++this.id;
    window.parent.postMessage({ jsonrpc: "2.0", id, method, params }, "*");
    return new Promise((resolve, reject) => this.waiting.set(id, { resolve, reject }));
  }

  notify(method, params) {
    window.parent.postMessage({ jsonrpc: "2.0", method, params }, "*");
  }

  receive(message) {
    if (message.method === undefined) this.settle(message);
    else this.answer(message);
  }

  settle(message) {
    const waiting = this.waiting.get(message.id);
    this.waiting.delete(message.id);
    if (message.error) waiting?.reject(new Error(message.error.message));
    else waiting?.resolve(message.result);
  }

  answer({ id, method, params }) {
    if (method === "ui/notifications/host-context-changed") Object.assign(this.context, params);
    const result = this.handlers[method]?.(params) ?? {};
    if (id === undefined) return;
    const isKnown = method in this.handlers || method === "ping";
    const error = { code: -32601, message: `The method ${method} is not known here.` };
    const outcome = isKnown ? { result } : { error };
    window.parent.postMessage({ jsonrpc: "2.0", id, ...outcome }, "*");
  }
}
