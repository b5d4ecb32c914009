// Who asks. The token stays in this tab and is sent on purpose: no other page can make the browser
// send it, and unlike a cookie it goes to this port alone.

const KEY = "rlm-mcp token";

export const session = {
  token: takeToken(),
  use(token) {
    this.token = token;
    sessionStorage.setItem(KEY, token);
  },
  get headers() {
    return this.token ? { authorization: `Bearer ${this.token}` } : {};
  },
};

// `rlm-mcp ui` opens the page with the token in the fragment, which is sent to no server.
function takeToken() {
  if (document.documentElement.dataset.as !== "page") return ""; // a sandboxed frame has no storage
  const given = /[#&]token=([^&]+)/.exec(location.hash);
  if (given) {
    sessionStorage.setItem(KEY, decodeURIComponent(given[1]));
    const rest = location.hash.replace(given[0], "").replace(/^#?/, "#");
    history.replaceState(null, "", location.pathname + (rest === "#" ? "" : rest));
  }
  return sessionStorage.getItem(KEY) ?? "";
}
