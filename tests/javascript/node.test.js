/** The module and the command, in Node, against Python's answers. */

import assert from "node:assert/strict";
import { execFileSync, spawnSync } from "node:child_process";
import { mkdirSync, openSync, readFileSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import { join } from "node:path";
import { test } from "node:test";

import { VideoClassifier, cosine, scores, uniform, windows } from "../../examples/javascript/timesformer.js";

const { WORK } = process.env;
const MODEL = join(WORK, "model");
const COMMAND = join(WORK, "examples/javascript/classify.js");
const expected = JSON.parse(readFileSync(join(WORK, "expected.json"), "utf8"));
const web = JSON.parse(readFileSync(join(MODEL, "web.json"), "utf8"));
process.env.ORT_DISABLE_TELEMETRY = "1";
const ort = createRequire(COMMAND)("onnxruntime-node");

for (const dtype of Object.keys(web.files)) {
  test(`${dtype}: labels and logits of the sample clips are Python's`, async () => {
    const path = join(MODEL, web.files[dtype].path);
    const classifier = await VideoClassifier.load(ort, web, path);
    assert.ok((await classifier.verify()) > 0.999);
    assert.equal(expected.clips.length, 9);
    for (const { label, raw, width, height, logits } of expected.clips) {
      const all = readFileSync(raw);
      const size = width * height * 3;
      const chosen = classifier.sample(all.length / size);
      const frames = chosen.map((i) => all.subarray(i * size, (i + 1) * size));
      const found = await classifier.classify(new Uint8Array(Buffer.concat(frames)), height, width);
      assert.equal(found.predictions[0].label, label);
      assert.ok(cosine(found.logits, logits[dtype]) > 0.999, label);
    }
    await assert.rejects(classifier.classify(new Uint8Array(3), 1, 1), /8 RGB frames of 1x1/);
    await classifier.close();
  });
}

test("verify finds a machine that computes other numbers than PyTorch", async () => {
  const golden = { ...web.golden, values: [...web.golden.values].reverse() };
  const path = join(MODEL, web.files.int8.path);
  const classifier = await VideoClassifier.load(ort, { ...web, golden }, path);
  assert.ok((await classifier.verify()) < 0.98);
  await classifier.close();
});

test("options of the session keep 8-bit products from overflowing", async () => {
  const given = [];
  const create = (_, options) => given.push(options);
  const fake = { InferenceSession: { create } };
  await VideoClassifier.load(fake, web, "m.onnx", { extra: { session: { set_denormal_as_zero: "1" } } });
  await VideoClassifier.load(fake, web, "m.onnx", { extra: { session: { x64quantprecision: "0" } } });
  assert.deepEqual(given, [
    { extra: { session: { x64quantprecision: "1", set_denormal_as_zero: "1" } } },
    { extra: { session: { x64quantprecision: "0" } } },
  ]);
});

test("a web.json of another format is refused", async () => {
  const load = (values) => VideoClassifier.load(ort, { ...web, ...values }, "absent.onnx");
  await assert.rejects(load({ format: "2" }), /format 2; this module has 1/);
  await assert.rejects(load({ frame_sampling: { method: "dense" } }), /sampling dense/);
  await assert.rejects(load({ function: "argmax" }), /function argmax; this module has softmax, /);
});

test("scores are made of logits as the model's problem_type says", async () => {
  assert.equal(web.function, "softmax");
  assert.deepEqual(scores([0, 0]), [0.5, 0.5]); // a web.json without a function
  assert.deepEqual(scores([0, 1000], "softmax"), [0, 1]);
  assert.deepEqual(scores([0, 1000, -1000], "sigmoid"), [0.5, 1, 0]);
  assert.deepEqual(scores([0, 5], "none"), [0, 5]);
  const path = join(MODEL, web.files.int8.path);
  const classifier = await VideoClassifier.load(ort, { ...web, function: "sigmoid" }, path);
  const { predictions, logits } = await classifier.classify(new Uint8Array(8 * 4 * 4 * 3), 4, 4, 9);
  assert.ok(predictions.reduce((sum, { score }) => sum + score, 0) > 1.01);
  assert.equal(predictions[0].score, 1 / (1 + Math.exp(-Math.max(...logits))));
  await classifier.close();
});

test("the command reads a file and a pipe", () => {
  for (const { label, raw, width, height } of expected.clips.slice(0, 2)) {
    const options = [COMMAND, MODEL, "--size", `${width}x${height}`];
    const fromFile = execFileSync("node", [...options, raw], { encoding: "utf8" });
    const pipe = openSync(raw, "r");
    const fromPipe = execFileSync("node", [...options, "-"], { encoding: "utf8", stdio: [pipe, "pipe", "inherit"] });
    assert.equal(fromPipe, fromFile);
    assert.match(fromFile.split("\n")[0], new RegExp(`^0\\.\\d+  ${label}$`));
    const json = execFileSync("node", [...options, "--json", "--dtype", "fp32", "--top-k", "2", raw]);
    assert.equal(JSON.parse(json).predictions.length, 2);
  }
});

test("the command refuses bad input in one line", () => {
  const { raw, width, height } = expected.clips[0];
  const size = `${width}x${height}`;
  for (const [options, message] of [
    [[MODEL, "--size", "7x7", raw], /not whole RGB frames of 147 bytes/],
    [[MODEL, "--size", "0x7", raw], /usage: /],
    [[MODEL, "--size", size, "--top-k", "0", raw], /--top-k is 0; it must be/],
    [[MODEL, "--size", size, "--dtype", "q8", raw], /has no q8, only fp32, int8, fp16/],
    [[MODEL, "--size", size, "--dtype", "constructor", raw], /has no constructor, only/],
    [[MODEL, "--size", size, "--what", raw], /--what/],
    [[MODEL, "--size", size, `${raw}.none`], /no such file/],
    [[WORK, "--size", size, raw], /web\.json.*timesformer-export --web/],
  ]) {
    const done = spawnSync("node", [COMMAND, ...options], { encoding: "utf8" });
    assert.equal(done.status, 2, options.join(" "));
    assert.match(done.stderr, message);
    assert.equal(done.stderr.trim().split("\n").length, 1, done.stderr);
  }
});

test("the command fails where its answer cannot be written", () => {
  const { raw, width, height } = expected.clips[0];
  const stdio = ["ignore", openSync("/dev/full", "w"), "pipe"];
  for (const more of [[], ["--json"]]) {
    const options = [COMMAND, MODEL, "--size", `${width}x${height}`, ...more, raw];
    const done = spawnSync("node", options, { encoding: "utf8", stdio });
    assert.equal(done.status, 2);
    assert.match(done.stderr, /^classify: ENOSPC.*\n$/);
  }
});

test("the command refuses a web.json that is not one", () => {
  const folder = join(WORK, "damaged-web");
  mkdirSync(folder, { recursive: true });
  const { frame_sampling } = web;
  for (const content of [null, {}, [], { format: "1" }, { format: "1", frame_sampling }, { ...web, devices: {} }]) {
    writeFileSync(join(folder, "web.json"), JSON.stringify(content));
    const options = [COMMAND, folder, "--size", "8x8", "absent.rgb"];
    const done = spawnSync("node", options, { encoding: "utf8" });
    assert.equal(done.status, 2);
    assert.match(done.stderr, /^classify: .*web\.json: .*; export the model with timesformer-export --web\n$/);
  }
});

test("sampling is numpy.linspace", () => {
  assert.deepEqual(uniform(48, 8), [0, 6, 13, 20, 26, 33, 40, 47]);
  assert.deepEqual(uniform(3, 8), [0, 0, 0, 0, 1, 1, 1, 2]);
  assert.deepEqual(uniform(5, 1), [0]);
  assert.throws(() => uniform(0, 8), /0 frames/);
});

test("windows end where the video ends", () => {
  assert.deepEqual(windows(1, 2, 2), [{ start: 0, end: 1, times: [0.25, 0.75] }]);
  assert.equal(windows(4, 25, 8).length, 1);
  assert.deepEqual(windows(7, 25, 8).map(({ start, end }) => [start, end]), [[0, 4], [2, 6], [4, 7]]);
  assert.deepEqual(windows(9, 25, 8).map(({ start }) => start), [0, 2, 4, 6]);
  assert.throws(() => windows(9, 0, 8), /rate is 0/);
});

test("windows have the frames of Python's, also where one starts between two frames", () => {
  const firsts = (duration, rate, settings) =>
    windows(duration, rate, 8, settings).map(({ times }) => Math.floor(times[0] * rate));
  // SlidingWindows(WindowSettings(1, 0.5), 25, ...): 12.5 and 37.5 are rounded to even numbers.
  assert.deepEqual(firsts(3, 25, { length: 1, stride: 0.5 }), [0, 12, 25, 38, 50]);
  // Eight times 0.1 is 0.8; the sum of eight strides is less.
  const starts = windows(4, 25, 8, { length: 1, stride: 0.1 }).map(({ start }) => start);
  assert.deepEqual(starts, Array.from({ length: starts.length }, (_, i) => i * 0.1));
});
