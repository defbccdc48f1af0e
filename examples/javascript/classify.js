/**
 * Classifies raw RGB frames in Node:
 *
 *   ffmpeg -i video.mp4 -f rawvideo -pix_fmt rgb24 - | node classify.js MODEL --size 1280x720 -
 *
 * MODEL is the folder that `timesformer-export --web` wrote. In place of `-`, a file is read only
 * where its chosen frames are.
 */

import { closeSync, fstatSync, openSync, readFileSync, readSync } from "node:fs";
import { join } from "node:path";
import { parseArgs } from "node:util";

import { InputError, VideoClassifier, checkWeb } from "./timesformer.js";

const USAGE = "usage: node classify.js MODEL --size WIDTHxHEIGHT [--dtype int8] [--top-k 5] [--json] FILE|-";
const MOST_BYTES = 2 ** 30; // of a pipe: its frames stay in memory until their number is known
process.env.ORT_DISABLE_TELEMETRY ??= "1"; // before ONNX Runtime is imported

try {
  await main();
} catch (error) {
  console.error(`classify: ${String(error.message).split("\n")[0]}`);
  process.exitCode = 2;
}

async function main() {
  const { model, file, options } = parse();
  const web = readWeb(model);
  const dtype = options.dtype ?? web.devices.wasm[0].dtype;
  if (!Object.hasOwn(web.files, dtype)) {
    throw new InputError(`${model} has no ${dtype}, only ${Object.keys(web.files).join(", ")}`);
  }
  const [width, height] = options.size;
  const ort = (await import("onnxruntime-node")).default;
  const classifier = await VideoClassifier.load(ort, web, join(model, web.files[dtype].path));
  const read = file === "-" ? await pipeFrames(width * height * 3) : fileFrames(file, width * height * 3);
  const clip = read((count) => classifier.sample(count));
  const { predictions, logits } = await classifier.classify(clip, height, width, options["top-k"]);
  await classifier.close();
  const lines = predictions.map(({ label, score }) => `${score.toFixed(4)}  ${label}`);
  const json = JSON.stringify({ predictions, logits: Array.from(logits) });
  await print(options.json ? json : lines.join("\n"));
}

/** Prints a text. Unlike console.log, it fails where the text cannot be written. */
function print(text) {
  return new Promise((resolve, reject) => {
    process.stdout.once("error", reject);
    process.stdout.write(`${text}\n`, (error) => (error ? reject(error) : resolve()));
  });
}

function parse() {
  const string = { type: "string" };
  const known = { size: string, dtype: string, "top-k": string, json: { type: "boolean" } };
  const { values, positionals } = parseArgs({ options: known, allowPositionals: true });
  const size = /^([1-9]\d{0,4})x([1-9]\d{0,4})$/.exec(values.size ?? "");
  const topK = Number(values["top-k"] ?? 5);
  if (positionals.length !== 2 || !size) throw new InputError(USAGE);
  if (!Number.isInteger(topK) || topK < 1) {
    throw new InputError(`--top-k is ${values["top-k"]}; it must be an integer of at least 1`);
  }
  const options = { ...values, size: [Number(size[1]), Number(size[2])], "top-k": topK };
  return { model: positionals[0], file: positionals[1], options };
}

function readWeb(model) {
  const path = join(model, "web.json");
  try {
    const web = JSON.parse(readFileSync(path, "utf8"));
    checkWeb(web);
    if (!web.files || !web.devices?.wasm?.[0]) throw new InputError("it names no files or devices");
    return web;
  } catch (error) {
    throw new InputError(`${path}: ${error.message}; export the model with timesformer-export --web`);
  }
}

/** Returns a function that reads the chosen frames of a file of raw frames. */
function fileFrames(path, frameBytes) {
  return (choose) => {
    const file = openSync(path, "r");
    try {
      const chosen = choose(frameCount(fstatSync(file).size, frameBytes));
      const clip = new Uint8Array(chosen.length * frameBytes);
      chosen.forEach((index, i) => {
        let filled = 0;
        while (filled < frameBytes) {
          const start = i * frameBytes + filled;
          const at = index * frameBytes + filled;
          const bytes = readSync(file, clip, start, frameBytes - filled, at);
          if (bytes === 0) throw new InputError(`${path} became shorter while it was read`);
          filled += bytes;
        }
      });
      return clip;
    } finally {
      closeSync(file);
    }
  };
}

/** Reads a pipe to its end; returns a function that gives its chosen frames. */
async function pipeFrames(frameBytes) {
  const chunks = [];
  let bytes = 0;
  for await (const chunk of process.stdin) {
    chunks.push(chunk);
    bytes += chunk.length;
    if (bytes > MOST_BYTES) {
      throw new InputError(
        `the pipe has more than ${MOST_BYTES} bytes; write the frames to a file, or let FFmpeg ` +
          "make them smaller (-vf scale=-2:360)",
      );
    }
  }
  const all = Buffer.concat(chunks);
  return (choose) => {
    const chosen = choose(frameCount(bytes, frameBytes));
    const frames = chosen.map((i) => all.subarray(i * frameBytes, (i + 1) * frameBytes));
    return new Uint8Array(Buffer.concat(frames));
  };
}

function frameCount(bytes, frameBytes) {
  if (bytes === 0 || bytes % frameBytes !== 0) {
    throw new InputError(
      `there are ${bytes} bytes, which are not whole RGB frames of ${frameBytes} bytes; check --size`,
    );
  }
  return bytes / frameBytes;
}
