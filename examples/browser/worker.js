/**
 * Loads the model and classifies videos, away from the page, which stays responsive and can end
 * this worker where a damaged file makes it hang.
 *
 * Messages in: {load: {device}}, {classify: {file}}. Messages out: see `tell`.
 */

import { VideoClassifier, windows } from "./timesformer.js";
import { framesAt, openVideo } from "./frames.js";

const MODEL = new URL("./model/", import.meta.url);
const WRONG = 0.98; // cosine to PyTorch below which a device computes wrongly
const THUMBNAIL = 160; // pixels

let classifier;

self.onmessage = async ({ data }) => {
  try {
    if (data.load) await load(data.load.device);
    if (data.classify) await classify(data.classify.file);
  } catch (error) {
    tell("error", { message: String(error.message ?? error).split("\n")[0] });
  }
};

/** Sends the page a message: `type` and its values. */
function tell(type, values, transfer = []) {
  self.postMessage({ type, ...values }, transfer);
}

async function load(device) {
  tell("progress", { text: "Loading the model" });
  const web = await (await fetched(new URL("web.json", MODEL))).json();
  const choice = await choose(web, device);
  const ort = await import(`./lib/ort.${device === "webgpu" ? "webgpu" : "wasm"}.min.mjs`);
  ort.env.wasm.wasmPaths = new URL("./lib/", import.meta.url).href;
  // Threads share memory, which browsers allow only on cross-origin isolated pages.
  ort.env.wasm.numThreads = self.crossOriginIsolated ? Math.min(4, navigator.hardwareConcurrency) : 1;
  const bytes = await download(web.files[choice.dtype]);
  tell("progress", { text: "Preparing the model" });
  classifier = await VideoClassifier.load(ort, web, bytes, { executionProviders: [device] });
  if (device !== "wasm") {
    tell("progress", { text: "Checking the GPU's arithmetic" });
    const agreement = await classifier.verify();
    if (!(agreement >= WRONG)) {
      throw new Error(
        `this GPU computes wrongly (cosine ${agreement.toFixed(3)} to PyTorch); use the CPU`,
      );
    }
  }
  const scored = web.function !== "none"; // else the answers are numbers of their own
  tell("ready", { device, dtype: choice.dtype, threads: ort.env.wasm.numThreads, scored });
}

/** Chooses the file for a device: the first whose needs the device has. */
async function choose(web, device) {
  let features = new Set();
  if (device === "webgpu") {
    const adapter = await navigator.gpu?.requestAdapter();
    if (!adapter) throw new Error("this browser offers no WebGPU here; use the CPU");
    features = adapter.features;
  }
  const choice = web.devices[device].find(({ feature }) => !feature || features.has(feature));
  if (!choice) {
    throw new Error(
      device === "webgpu"
        ? "this GPU does not compute in 16 bits (shader-f16), and the model has no other file for " +
            "it; use the CPU, or export the model with --dtype fp32 too"
        : "the model has no file for the CPU; export it with --dtype int8",
    );
  }
  return choice;
}

async function fetched(url) {
  const response = await fetch(url);
  if (!response.ok) throw new Error(`${url.pathname} is missing (${response.status})`);
  return response;
}

/** Downloads one of the model's files; tells how much has come. */
async function download({ path, bytes }) {
  const response = await fetched(new URL(path, MODEL));
  const whole = new Uint8Array(bytes);
  let filled = 0;
  for (const reader = response.body.getReader(); ; ) {
    const { done, value } = await reader.read();
    if (done) break;
    if (filled + value.length > bytes) throw new Error(`${path} is longer than web.json says`);
    whole.set(value, filled);
    filled += value.length;
    const text = `Loading the model: ${(filled / 1e6).toFixed(1)} of ${(bytes / 1e6).toFixed(1)} MB`;
    tell("progress", { text, share: filled / bytes });
  }
  if (filled < bytes) throw new Error(`${path} is shorter than web.json says`);
  return whole;
}

async function classify(file) {
  tell("progress", { text: "Opening the video" });
  const video = await openVideo(file);
  const chosen = classifier.sample(video.times.length).map((index) => video.times[index]);
  for await (const { frames } of clips(video, [{ times: chosen }], "Reading frames")) {
    tell("whole", { ...(await answer(frames)), duration: video.duration });
    for (const [i, frame] of frames.entries()) {
      const bitmap = await thumbnail(frame);
      tell("thumbnail", { bitmap, seconds: chosen[i] - video.times[0] }, [bitmap]);
    }
  }
  const all = windows(video.duration, video.rate, classifier.numFrames).map((window) => ({
    ...window,
    times: window.times.map((time) => time + video.times[0]),
  }));
  if (all.length > 1) {
    for await (const { window, frames } of clips(video, all, "Reading the timeline")) {
      tell("window", { start: window.start, end: window.end, ...(await answer(frames)) });
    }
  }
  tell("done", {});
}

/** Yields each window with its frames, in order. Windows that overlap share a pass of decoding. */
async function* clips(video, all, text) {
  const wanted = all.flatMap((window, number) => window.times.map((time) => ({ time, number })));
  wanted.sort((a, b) => a.time - b.time || a.number - b.number);
  const open = all.map(() => []);
  let read = 0;
  for await (const frame of framesAt(video, wanted.map(({ time }) => time))) {
    const { number } = wanted[read];
    open[number].push(frame);
    read += 1;
    tell("progress", { text, share: read / (wanted.length + 1) });
    if (open[number].length === all[number].times.length) {
      yield { window: all[number], frames: open[number] };
      open[number] = undefined; // frees the frames
    }
  }
}

/** Classifies the frames of one clip. */
async function answer(frames) {
  const { width, height } = frames[0];
  if (frames.some((frame) => frame.width !== width || frame.height !== height)) {
    throw new Error("the size of the frames changes within the video; convert it first");
  }
  const clip = new Uint8Array(frames.length * width * height * 3);
  frames.forEach(({ pixels }, i) => clip.set(pixels, i * pixels.length));
  return classifier.classify(clip, height, width);
}

async function thumbnail({ pixels, width, height }) {
  const rgba = new Uint8ClampedArray(width * height * 4).fill(255);
  for (let i = 0, j = 0; j < pixels.length; i += 4, j += 3) {
    rgba[i] = pixels[j];
    rgba[i + 1] = pixels[j + 1];
    rgba[i + 2] = pixels[j + 2];
  }
  const scale = Math.min(1, THUMBNAIL / Math.max(width, height));
  return createImageBitmap(new ImageData(rgba, width, height), {
    resizeWidth: Math.max(1, Math.round(width * scale)),
    resizeHeight: Math.max(1, Math.round(height * scale)),
    resizeQuality: "high",
  });
}
