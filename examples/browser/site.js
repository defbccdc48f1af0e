/**
 * Puts the page, the libraries and a model into one folder, which any static host can serve.
 *
 *   npm run site -- MODEL OUTPUT
 *
 * MODEL is the folder that `timesformer-export --web` wrote.
 */

import { cpSync, mkdirSync, readFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

const HERE = dirname(fileURLToPath(import.meta.url));
const ORT = join(HERE, "node_modules/onnxruntime-web/dist");
const PAGE = ["index.html", "style.css", "page.js", "worker.js", "frames.js"];
const RUNTIME = [
  "ort.wasm.min.mjs",
  "ort-wasm-simd-threaded.mjs",
  "ort-wasm-simd-threaded.wasm",
  "ort.webgpu.min.mjs",
  "ort-wasm-simd-threaded.asyncify.mjs",
  "ort-wasm-simd-threaded.asyncify.wasm",
];

const [model, output] = process.argv.slice(2);
if (!output) {
  console.error("usage: npm run site -- MODEL OUTPUT");
  process.exit(2);
}

try {
  const web = JSON.parse(readFileSync(join(model, "web.json"), "utf8"));
  copy(HERE, PAGE, output);
  copy(join(HERE, "../javascript"), ["timesformer.js"], output);
  copy(ORT, RUNTIME, join(output, "lib"));
  const mediabunny = join(HERE, "node_modules/mediabunny/dist/bundles/mediabunny.min.mjs");
  cpSync(mediabunny, join(output, "lib/mediabunny.mjs"));
  const files = Object.values(web.files).map(({ path }) => path);
  copy(model, ["web.json", ...files], join(output, "model"));
} catch (error) {
  console.error(`site: ${error.message} (is ${model} an export with --web, and npm ci done?)`);
  process.exit(2);
}

function copy(from, names, to) {
  for (const name of names) {
    mkdirSync(dirname(join(to, name)), { recursive: true });
    cpSync(join(from, name), join(to, name));
  }
}
