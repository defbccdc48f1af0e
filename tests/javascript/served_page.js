/** The page of `timesformer serve`, in headless Chromium, against Python's answers. */

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { after, before, test } from "node:test";

import { chromium } from "playwright-core";

const { OPEN, CLOSED, TOKEN, RESULTS, CHROMIUM } = process.env;
const expected = JSON.parse(readFileSync(join(RESULTS, "expected.json"), "utf8"));
const FLAGS = ["--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"];
const asked = new Set();
const problems = [];
let browser, page;

before(async () => {
  browser = await chromium.launch({ executablePath: CHROMIUM, args: FLAGS, headless: true });
  page = await newPage({ viewport: { width: 900, height: 900 } });
});

after(() => browser?.close());

async function newPage(options) {
  const made = await (await browser.newContext(options)).newPage();
  made.on("pageerror", (error) => problems.push(String(error)));
  made.on("request", (request) => asked.add(new URL(request.url()).origin));
  return made;
}

async function open(address, on = page) {
  await on.goto(address);
  await on.waitForSelector("#model option", { state: "attached" });
}

async function drop(file, on = page) {
  await on.setInputFiles("#file", file);
  await on.waitForFunction(() => document.body.dataset.state === "busy");
  await on.waitForFunction(() => ["done", "error"].includes(document.body.dataset.state));
  return on.evaluate(() => document.body.dataset.state);
}

/** A picture of the page for people to look at, light and dark. */
async function shoot(name, on = page) {
  for (const colorScheme of ["light", "dark"]) {
    await on.emulateMedia({ colorScheme });
    await on.screenshot({ path: join(RESULTS, `${name}-${colorScheme}.png`), fullPage: true });
  }
}

test("labels and frames of a clip", async () => {
  await open(OPEN);
  await shoot("empty");
  assert.equal(await drop(expected.clip.file), "done", await page.textContent("#status-text"));
  assert.equal(await page.textContent("#labels .label"), expected.clip.label);
  const images = page.locator("#frames img");
  assert.equal(await images.count(), expected.clip.frames);
  const widths = await images.evaluateAll((all) => all.map((image) => image.naturalWidth));
  assert.ok(widths.every((width) => width > 0), `widths ${widths}`);
});

test("the timeline of a film is Python's", async () => {
  await page.selectOption("#window", "2s");
  assert.equal(await drop(expected.film.file), "done", await page.textContent("#status-text"));
  const { segments } = expected.film;
  assert.equal(await page.locator("#strip > span").count(), segments.length);
  const labels = await page.locator("#rows tr td:nth-child(3)").allTextContents();
  assert.deepEqual(labels, segments.map(([, , label]) => label));
  await page.click("summary");
  await shoot("film");
});

test("a damaged video says so, and a text is one line", async () => {
  assert.equal(await drop(expected.damaged), "done", await page.textContent("#status-text"));
  assert.match(await page.textContent("#damage"), /Damaged: ./);
  assert.equal(await drop(expected.text), "error");
  assert.match(await page.textContent("#status-text"), /^text\.mp4 cannot be opened/);
  await shoot("error");
  assert.equal(await drop(expected.clip.file), "done");
});

test("a token is asked for", async () => {
  await page.goto(CLOSED);
  await page.waitForSelector("#access:not([hidden])");
  await page.fill("#token", TOKEN);
  await page.press("#token", "Enter");
  await page.waitForSelector("#model option", { state: "attached" });
  assert.equal(await drop(expected.clip.file), "done", await page.textContent("#status-text"));
});

test("all requests are described", async () => {
  await page.goto(`${OPEN}/docs`);
  await page.waitForSelector('code:has-text("/v1/classify")');
  assert.ok((await page.locator("section").count()) >= 8);
  assert.ok(await page.isVisible('code:has-text("frame_sampling_rate") >> nth=0'));
  assert.equal(await page.locator('code:has-text("Bearer")').count(), 0);
  await shoot("docs");
  await page.goto(`${CLOSED}/docs`);
  await page.waitForSelector('code:has-text("/v1/classify")');
  assert.ok((await page.locator('code:has-text("Bearer")').count()) >= 5);
});

test("a narrow screen", async () => {
  const narrow = await newPage({ viewport: { width: 360, height: 740 } });
  await open(OPEN, narrow);
  assert.equal(await drop(expected.film.file, narrow), "done");
  const [width, inner] = await narrow.evaluate(() => [document.body.scrollWidth, innerWidth]);
  assert.ok(width <= inner, `${width} > ${inner}`);
  await shoot("narrow", narrow);
});

test("no other server was asked, and nothing failed in the page", () => {
  for (const origin of asked) assert.ok([OPEN, CLOSED, "null"].includes(origin), origin);
  assert.deepEqual(problems, []);
});
