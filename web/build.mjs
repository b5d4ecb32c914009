// Builds the bundle that the Python package ships: run.js, run.css, index.html and the licences of
// what is inside. The same sources give the same bytes, so CI can compare them.
import { copyFileSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { gzipSync } from "node:zlib";
import { build } from "esbuild";

const MOST_GZIPPED_BYTES = 75_000;

const here = dirname(fileURLToPath(import.meta.url));
const out = process.env.OUT ?? join(here, "..", "rlm_mcp", "web");

function packagesIn(metafile) {
  const inputs = Object.keys(metafile.inputs).join("\n");
  const names = inputs.matchAll(/node_modules\/((?:@[^/\n]+\/)?[^/\n]+)\//g);
  return [...new Set([...names].map(([, name]) => name))].sort();
}

function licenceOf(name) {
  const folder = join(here, "node_modules", name);
  const { version } = JSON.parse(readFileSync(join(folder, "package.json"), "utf8"));
  const file = readdirSync(folder).find((each) => /^licen[cs]e/i.test(each));
  const text = readFileSync(join(folder, file), "utf8").trim();
  return `${name} ${version}\n\n${text}\n`;
}

mkdirSync(out, { recursive: true });
const { metafile } = await build({
  absWorkingDir: here,
  entryPoints: { run: "src/main.jsx" },
  outdir: out,
  bundle: true,
  minify: true,
  format: "iife",
  target: "es2022",
  jsx: "automatic",
  jsxImportSource: "preact",
  charset: "utf8",
  legalComments: "none",
  logLevel: "warning",
  metafile: true,
});
copyFileSync(join(here, "src", "index.html"), join(out, "index.html"));
const licences = packagesIn(metafile).map(licenceOf);
writeFileSync(join(out, "LICENSES.txt"), licences.join(`\n${"-".repeat(79)}\n\n`));

const size = (name) => gzipSync(readFileSync(join(out, name)), { level: 9 }).length;
const [script, style] = [size("run.js"), size("run.css")];
console.log(`run.js ${script} B, run.css ${style} B, gzipped`);
if (script + style > MOST_GZIPPED_BYTES) {
  throw new Error(`The bundle has ${script + style} bytes; ${MOST_GZIPPED_BYTES} are allowed.`);
}
