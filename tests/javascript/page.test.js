/** The page, in headless Chromium, against Python's answers. */

import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { basename, join } from "node:path";
import { after, before, test } from "node:test";

import { chromium } from "playwright-core";

import { cosine } from "../../examples/javascript/timesformer.js";

const { WORK, PYTHON, CHROMIUM } = process.env;
const expected = JSON.parse(readFileSync(join(WORK, "expected.json"), "utf8"));
const SERVER = join(WORK, "examples/browser/serve.py");
const FLAGS = [
  "--no-sandbox",
  "--disable-gpu",
  "--disable-quic",
  "--no-first-run",
  "--disable-background-networking",
  "--disable-component-update",
  "--disable-sync",
];
const SOFTWARE_GPU = [
  "--enable-unsafe-webgpu",
  "--enable-unsafe-swiftshader",
  "--use-webgpu-adapter=swiftshader",
  "--enable-features=Vulkan",
];
const profile = mkdtempSync(join(tmpdir(), "check-javascript-"));
const problems = [];
let server, address, context, page;

before(async () => {
  server = spawn(PYTHON, [SERVER, join(WORK, "site"), "0"], { stdio: ["ignore", "pipe", "ignore"] });
  address = String((await once(server.stdout, "data"))[0]).trim();
  const options = { executablePath: CHROMIUM, args: FLAGS, headless: true };
  context = await chromium.launchPersistentContext(profile, options);
  // Keeps what the worker says, which the page shows only in part.
  await context.addInitScript(() => {
    window.messages = [];
    window.Worker = class extends Worker {
      constructor(...values) {
        super(...values);
        this.addEventListener("message", ({ data }) => window.messages.push(data));
      }
    };
  });
  page = await context.newPage();
  page.on("pageerror", (error) => problems.push(String(error)));
  page.on("console", (message) => message.type() === "error" && problems.push(message.text()));
  await open();
});

after(async () => {
  await context?.close();
  server.kill();
  rmSync(profile, { recursive: true, force: true });
});

async function open(query = "") {
  await page.goto(`${address}/${query}`);
  await state("ready");
}

/** Waits until the page is in one of some states, and returns it. */
async function state(...names) {
  const found = await page.waitForFunction(
    (wanted) => wanted.includes(document.body.dataset.state) && document.body.dataset.state,
    names,
    { timeout: 60_000 },
  );
  return found.jsonValue();
}

/** Drops a file on the page; returns the state at the end, and what the worker said. */
async function drop(file) {
  await page.evaluate(() => (window.messages.length = 0));
  await page.setInputFiles("#file", file);
  await page.waitForFunction(() => window.messages.length > 0);
  const end = await state("done", "error", "broken");
  const messages = await page.evaluate(() =>
    window.messages.map(({ bitmap, ...rest }) => ({ ...rest, logits: rest.logits && [...rest.logits] })),
  );
  return { end, messages, text: await page.textContent("#status-text") };
}

const only = (messages, type) => messages.filter((message) => message.type === type);

test("labels of all sample clips, logits as Python's", async () => {
  let least = 1;
  for (const { file, label, logits } of expected.clips) {
    const { end, messages, text } = await drop(file);
    assert.equal(end, "done", text);
    assert.equal(await page.textContent("#labels .label"), label);
    assert.equal(await page.locator("#frames canvas").count(), 8);
    assert.ok(await page.isHidden("#timeline"));
    least = Math.min(least, cosine(only(messages, "whole")[0].logits, logits.int8));
  }
  console.log(`least cosine to Python, through the browser's own decoder: ${least.toFixed(5)}`);
  assert.ok(least >= 0.999, `cosine ${least}`);
});

test("other codecs and pixel formats", async () => {
  for (const { file, logits } of expected.others) {
    const { end, messages, text } = await drop(file);
    assert.equal(end, "done", `${file}: ${text}`);
    const found = cosine(only(messages, "whole")[0].logits, logits);
    console.log(`${basename(file)}: cosine ${found.toFixed(5)}`);
    assert.ok(found >= 0.999, `${file}: cosine ${found}`);
  }
});

test("the timeline is Python's", async () => {
  const { end, messages } = await drop(expected.film.file);
  assert.equal(end, "done");
  const found = only(messages, "window");
  assert.deepEqual(
    found.map(({ start, end: stop }) => [start, stop]),
    expected.film.windows.map(({ start, end: stop }) => [start, stop]),
  );
  for (const [i, { label, score }] of expected.film.windows.entries()) {
    const [best] = found[i].predictions;
    // Where two labels are nearly equal, the other decoder's rounding may choose the other one.
    assert.ok(best.label === label || score < 0.6, `${i}: ${best.label} instead of ${label}`);
  }
  assert.equal(await page.locator("#strip > span").count(), found.length);
  assert.equal(await page.locator("#rows tr").count(), found.length);
});

test("damaged files end in a result or in one line, and the page goes on", async () => {
  for (const file of expected.damaged) {
    const { end, text } = await drop(file);
    console.log(`${basename(file)}: ${end} ${text}`);
    assert.ok(end === "done" || (end === "error" && text.length > 20), `${file}: ${end} ${text}`);
  }
  assert.equal((await drop(expected.clips[0].file)).end, "done");
});

test("answers that are no scores are shown as numbers", async () => {
  const web = JSON.parse(readFileSync(join(WORK, "model/web.json"), "utf8"));
  const numbers = (route) => route.fulfill({ json: { ...web, function: "none" } });
  await context.route("**/web.json", numbers);
  await open();
  const { end, messages } = await drop(expected.clips[0].file);
  assert.equal(end, "done");
  const [best] = only(messages, "whole")[0].predictions;
  assert.equal(await page.locator("#labels .score").first().textContent(), best.score.toFixed(3));
  assert.ok(await page.locator("#labels .bar").first().isHidden());
  await context.unroute("**/web.json", numbers);
  await open();
});

test("a worker that hangs is ended, and the next video works", async () => {
  const hangs = (route) =>
    route.fulfill({
      contentType: "text/javascript",
      headers: { "Cross-Origin-Embedder-Policy": "require-corp" },
      body: "export function openVideo() { for (;;); }\nexport const framesAt = undefined;",
    });
  await context.route("**/frames.js", hangs);
  await open("?patience=2");
  const { end, text } = await drop(expected.clips[0].file);
  assert.equal(end, "broken");
  assert.match(text, /nothing happened for 2 s/i);
  await context.unroute("**/frames.js", hangs);
  await page.setInputFiles("#file", expected.clips[1].file);
  assert.equal(await state("done", "error"), "done");
  assert.equal(await page.textContent("#labels .label"), expected.clips[1].label);
});

test("a GPU that is not there is an error that says so", async () => {
  await open();
  await page.selectOption("#device", "webgpu");
  await state("broken");
  assert.match(await page.textContent("#status-text"), /no WebGPU here; use the CPU/);
  await page.selectOption("#device", "wasm");
  await state("ready");
});

test("a GPU without the feature that a file needs is refused before it computes", async () => {
  const args = [...FLAGS.filter((flag) => flag !== "--disable-gpu"), ...SOFTWARE_GPU];
  const browser = await chromium.launch({ executablePath: CHROMIUM, args, headless: true });
  try {
    const other = await browser.newPage();
    const web = JSON.parse(readFileSync(join(WORK, "model/web.json"), "utf8"));
    web.devices.webgpu = [{ dtype: "fp16", feature: "a-feature-that-no-gpu-has" }];
    await other.route("**/web.json", (route) => route.fulfill({ json: web }));
    await other.goto(address);
    await other.selectOption("#device", "webgpu");
    await other.waitForFunction(() => document.body.dataset.state === "broken");
    assert.match(await other.textContent("#status-text"), /--dtype fp32 too/);
  } finally {
    await browser.close();
  }
});

test("nothing leaves the machine", async () => {
  await open();
  assert.ok(await page.evaluate(() => window.crossOriginIsolated));
  const refused = await page.evaluate(() => {
    const event = new Promise((resolve) => addEventListener("securitypolicyviolation", resolve));
    fetch("https://example.org/", { method: "POST" }).catch(() => {});
    return event.then(({ effectiveDirective }) => effectiveDirective);
  });
  assert.equal(refused, "connect-src");
  // A worker has the policy of its own file.
  const policy = await page.evaluate(async () =>
    (await fetch("worker.js")).headers.get("content-security-policy"),
  );
  assert.match(policy, /connect-src 'self'/);
  const unexpected = problems.filter((problem) => !/example\.org/.test(problem));
  assert.deepEqual(unexpected, []);
});
