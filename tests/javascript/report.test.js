/** Reports of made-up evaluations, in headless Chromium. */

import assert from "node:assert/strict";
import { readdirSync, statSync } from "node:fs";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { pathToFileURL } from "node:url";

import { chromium } from "playwright-core";

const { WORK, CHROMIUM } = process.env;
const REPORTS = join(WORK, "reports");
const problems = [];
let browser;

before(async () => {
  const args = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"];
  browser = await chromium.launch({ executablePath: CHROMIUM, args, headless: true });
});

after(() => browser?.close());

/** Opens a report from disk; whatever goes wrong on the page fails the tests. */
async function open(name, options = {}) {
  const page = await browser.newPage(options);
  page.on("pageerror", (error) => problems.push(`${name}: ${error}`));
  page.on("console", (message) => {
    if (message.type() === "error") problems.push(`${name}: ${message.text()}`);
  });
  page.on("request", (request) => {
    if (!/^(file|data):/.test(request.url())) problems.push(`${name}: ${request.url()}`);
  });
  await page.goto(pathToFileURL(join(REPORTS, name)).href);
  return page;
}

const texts = (page, selector) => page.locator(selector).allTextContents();
const visible = (page, selector) => page.locator(`${selector}:visible`).count();

/** Milliseconds from pressing an element until the page is laid out again; the best of three. */
async function milliseconds(page, selector) {
  return page.evaluate((wanted) => {
    const times = [1, 2, 3].map(() => {
      const start = performance.now();
      document.querySelector(wanted).click();
      document.body.getBoundingClientRect();
      return performance.now() - start;
    });
    return Math.min(...times);
  }, selector);
}

test("no report is wider than a phone, and each prints on white", async () => {
  const names = readdirSync(REPORTS).filter((name) => name.endsWith(".html"));
  assert.ok(names.length >= 5);
  for (const name of names) {
    for (const colorScheme of ["light", "dark"]) {
      const page = await open(name, { viewport: { width: 375, height: 700 }, colorScheme });
      const width = await page.evaluate(() => document.documentElement.scrollWidth);
      assert.ok(width <= 375, `${name}: ${width}`);
      if (colorScheme === "dark") await page.emulateMedia({ media: "print" });
      const ground = await page.evaluate(() => getComputedStyle(document.body).backgroundColor);
      assert.equal(ground, "rgb(255, 255, 255)", `${name}: paper`);
      await page.close();
    }
  }
});

/** The contrast of two colours "rgb(r, g, b)", as WCAG computes it. */
function contrast(...colours) {
  const [dark, light] = colours
    .map((colour) => {
      const [r, g, b] = colour.match(/\d+/g).map((value) => {
        const part = value / 255;
        return part <= 0.03928 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4;
      });
      return 0.2126 * r + 0.7152 * g + 0.0722 * b;
    })
    .sort((a, b) => a - b);
  return (light + 0.05) / (dark + 0.05);
}

test("texts have the contrast that WCAG asks for", async () => {
  for (const colorScheme of ["light", "dark"]) {
    const page = await open("small.html", { colorScheme });
    for (const selector of ["body", ".hint", ".card .wrong", ".links a", "thead th", ".advice"]) {
      const [ink, paper] = await page.evaluate((wanted) => {
        const element = document.querySelector(wanted);
        let behind = element;
        const ground = () => getComputedStyle(behind).backgroundColor;
        while (/, 0\)$/.test(ground())) behind = behind.parentElement;
        return [getComputedStyle(element).color, ground()];
      }, selector);
      assert.ok(contrast(ink, paper) >= 4.5, `${colorScheme} ${selector}: ${contrast(ink, paper)}`);
    }
    await page.close();
  }
});

test("classes sort by the keyboard, say so, and filter", async () => {
  const page = await open("small.html");
  const labels = () => texts(page, "#table tbody th");
  const given = await labels();
  const heading = page.locator("#table th", { hasText: "Recall" });
  await heading.locator("button").focus();
  await page.keyboard.press("Enter");
  assert.equal(await heading.getAttribute("aria-sort"), "descending");
  const shares = (await texts(page, "#table td:nth-child(3)")).map(parseFloat);
  assert.deepEqual(shares, shares.toSorted((a, b) => b - a));
  assert.notDeepEqual(await labels(), given);
  await page.keyboard.press("Enter");
  assert.equal(await heading.getAttribute("aria-sort"), "ascending");
  const names = page.locator("#table th", { hasText: "Class" });
  await names.locator("button").press("Space");
  assert.equal(await heading.getAttribute("aria-sort"), "none");
  assert.deepEqual(await labels(), given.toSorted());
  await page.fill("#filter", "WIPE");
  assert.equal(await visible(page, "#table tbody tr"), 2);
  assert.equal(await page.textContent("#classes output"), "2 of 7 classes");
  await page.fill("#filter", "nothing");
  assert.equal(await visible(page, "#table"), 0);
  assert.equal(await page.textContent("#classes output"), "no class matches");
  await page.close();
});

test("a cell of the matrix lists its videos", async () => {
  const page = await open("small.html");
  const cell = page.locator(".matrix button:visible").first();
  const count = await cell.textContent();
  await cell.click();
  assert.equal(await page.textContent("#mistakes output"), `${count} of 527 mistakes`);
  const pairs = new Set(await texts(page, "#mistakes tbody td:nth-child(2)"));
  assert.equal(pairs.size, 1);
  await page.locator("#mistakes .pair").click();
  assert.equal(await page.textContent("#mistakes output"), "527 of 527 mistakes");
  await page.close();
});

test("a table without mistakes is not shown", async () => {
  const page = await open("empty.html");
  assert.equal(await visible(page, "#mistakes table"), 0);
  await page.close();
  const other = await open("small.html");
  assert.equal(await visible(other, "#mistakes table"), 1);
  await other.fill("#mistakes-filter", "nothing");
  assert.equal(await visible(other, "#mistakes table"), 0);
  await other.close();
});

test("details change with the model", async () => {
  const page = await open("small.html");
  assert.ok(await page.isVisible("#classes"));
  await page.locator(".models button", { hasText: "int8" }).click();
  assert.ok(await page.isHidden("#classes"));
  assert.ok(await page.isVisible("#classes-1"));
  await page.locator("nav a", { hasText: "Classes" }).click();
  assert.match(page.url(), /#classes-1$/);
  await page.close();
});

test("the frames of the worst mistakes are pictures with times", async () => {
  const page = await open("small.html");
  assert.equal(await visible(page, ".card"), 4);
  await page.locator("#cards ~ .more").click();
  assert.equal(await visible(page, ".card"), 16);
  const sizes = await page.evaluate(() =>
    [...document.querySelectorAll(".card img")].map((image) => image.naturalWidth),
  );
  assert.equal(sizes.length, 16 * 8);
  assert.ok(sizes.every((size) => size > 50));
  assert.equal(await page.locator(".card figcaption").nth(1).textContent(), "0.40 s");
  await page.close();
});

test("hostile names stay names", async () => {
  const page = await open("hostile.html");
  assert.match(await page.title(), /^Evaluation of <\/script>/);
  assert.equal(await page.locator("script").count(), 2);
  assert.equal(await page.locator("img:not(figure img)").count(), 0);
  const labels = await texts(page, "#table tbody th");
  assert.equal(labels[0], "<script>document.title = 'broken'</script>");
  assert.equal(labels[2], "\"double\" & 'single' {{ 7 * 7 }} <!-- ${1}");
  assert.equal(labels[5].length, 300);
  // A text with a right-to-left override ends at its own element.
  const listed = await texts(page, "#mistakes tbody td:nth-child(2) bdi");
  assert.ok(listed.some((text) => labels.includes(text)));
  await page.fill("#mistakes-filter", "<script>");
  assert.match(await page.textContent("#mistakes output"), /^[1-9]/);
  await page.close();
});

test("400 classes and 20,000 videos stay responsive", async () => {
  const size = statSync(join(REPORTS, "large.html")).size;
  assert.ok(size < 15e6, `${size} bytes`);
  const start = performance.now();
  const page = await open("large.html");
  const opened = performance.now() - start;
  const measured = { opened };
  for (const [name, selector] of Object.entries({
    classes: "#table th:nth-child(3) button",
    "class names": "#table th:nth-child(1) button",
    mistakes: "#mistakes th:nth-child(4) button",
    files: "#mistakes th:nth-child(1) button",
  })) {
    measured[name] = await milliseconds(page, selector);
    assert.ok(measured[name] < 200, `sorting ${name}: ${measured[name]} ms`);
  }
  console.log(`${(size / 1e6).toFixed(1)} MB; milliseconds: ${JSON.stringify(measured)}`);
  await page.close();
});

test("the picture of a large matrix tells of its cells and finds classes", async () => {
  const page = await open("large.html");
  const canvas = page.locator(".map canvas:visible");
  await canvas.scrollIntoViewIfNeeded();
  const box = await canvas.boundingBox();
  const inked = () =>
    canvas.evaluate((element) => {
      const { width, height } = element;
      const { data } = element.getContext("2d").getImageData(0, 0, width, height);
      return data.filter((value, place) => place % 4 === 3 && value > 0).length;
    });
  const before = await inked();
  assert.ok(before > 0);
  // The first class: in the middle of the first cell.
  await page.mouse.move(box.x + box.width / 800, box.y + box.height / 800);
  assert.match(await page.textContent(".readout"), /^archery \w+ predicted/);
  await page.fill("#find", "kicking kite");
  assert.ok((await inked()) > before);
  assert.match(await page.textContent(".found"), /^kicking kite: \d+ of \d+ videos right/);
  await page.locator(".found li button").first().click();
  const truths = new Set(await texts(page, "#mistakes tbody td:nth-child(2)"));
  assert.deepEqual([...truths], ["kicking kite"]);
  await page.fill("#find", "no such class");
  assert.equal(await page.textContent(".found"), "No class has this name.");
  assert.equal(await inked(), before);
  await page.locator(".order input[value=confused]:visible").check();
  await page.mouse.move(box.x + box.width / 2, box.y + box.height / 2);
  assert.match(await page.textContent(".readout"), /predicted/);
  await page.close();
});

test("without JavaScript the numbers are there", async () => {
  const context = await browser.newContext({ javaScriptEnabled: false });
  const page = await context.newPage();
  await page.goto(pathToFileURL(join(REPORTS, "small.html")).href);
  assert.ok(await page.isVisible("#classes"));
  assert.ok(await page.isVisible("#classes-1"));
  assert.equal(await visible(page, ".card"), 16);
  assert.equal(await visible(page, "input"), 0);
  await context.close();
});

test("no page had an error, or asked for anything", () => assert.deepEqual(problems, []));
