/**
 * Runs an exported TimeSformer on RGB frames, in Node and in browsers.
 *
 * The model comes from `timesformer-export --web`: its graph takes uint8 frames of any size, and
 * web.json holds labels and sampling. Give onnxruntime-node or onnxruntime-web as `ort`.
 */

const MASK = (1n << 64n) - 1n;
const KNOWN = { format: ["1"], sampling: ["uniform"], function: ["softmax", "sigmoid", "none"] };

/** Bad input: a model, a number or frames that this module does not take. */
export class InputError extends Error {}

export class VideoClassifier {
  /**
   * Loads a model.
   *
   * @param {object} ort The module onnxruntime-node or onnxruntime-web.
   * @param {object} web The contents of web.json.
   * @param {string|Uint8Array} model The path (only in Node) or the bytes of one of its files.
   * @param {object} options ONNX Runtime's session options, such as `executionProviders`.
   */
  static async load(ort, web, model, options = {}) {
    checkWeb(web);
    const session = await ort.InferenceSession.create(model, {
      ...options,
      // On x86 without VNNI, 8-bit products overflow without this switch. Elsewhere it is ignored.
      extra: { ...options.extra, session: { x64quantprecision: "1", ...options.extra?.session } },
    });
    return new VideoClassifier(ort, web, session);
  }

  constructor(ort, web, session) {
    Object.assign(this, { ort, web, session, numFrames: web.frame_sampling.num_frames });
  }

  /**
   * Classifies one clip.
   *
   * @param {Uint8Array} frames RGB, [frames, height, width, 3], as many frames as the model takes.
   * @param {number} height, width The size of a frame, in pixels.
   * @param {number} topK How many labels to return.
   * @returns {Promise<{predictions: {label: string, score: number}[], logits: Float32Array}>}
   *   The labels, best first; and the model's output.
   */
  async classify(frames, height, width, topK = 5) {
    if (this.web.task !== "video-classification") {
      throw new InputError(`the model's task is ${this.web.task}: it has no labels; call run()`);
    }
    const logits = await this.run(frames, height, width);
    return { predictions: best(logits, this.web.labels, topK, this.web.function), logits };
  }

  /** Returns the model's output for one clip: Float32Array, one value per label or feature. */
  async run(frames, height, width) {
    const shape = [1, this.numFrames, height, width, 3];
    const size = shape.reduce((product, side) => product * side);
    if (!(frames instanceof Uint8Array) || frames.length !== size) {
      throw new InputError(
        `the clip has ${frames.length} bytes; ${this.numFrames} RGB frames of ${width}x${height} ` +
          `pixels have ${size}`,
      );
    }
    const input = new this.ort.Tensor("uint8", frames, shape);
    const outputs = await this.session.run({ [this.web.input]: input }, [this.web.output]);
    const values = Float32Array.from(outputs[this.web.output].data);
    for (const tensor of [input, outputs[this.web.output]]) tensor.dispose();
    return values;
  }

  /**
   * Compares this machine's output for generated frames with PyTorch's.
   *
   * @returns {Promise<number>} The cosine of the two outputs; below 0.98 the machine is wrong.
   */
  async verify() {
    const { seed, shape, values } = this.web.golden;
    return cosine(await this.run(goldenFrames(seed, shape), shape[1], shape[2]), values);
  }

  /** Chooses the frames of a video of `count` frames: indices, ascending, counted from 0. */
  sample(count) {
    return uniform(count, this.numFrames);
  }

  /** Frees the model's memory. */
  close() {
    return this.session.release();
  }
}

/** Spreads `number` indices evenly from 0 to `count - 1`, as Hugging Face's examples do. */
export function uniform(count, number) {
  if (!Number.isInteger(count) || count < 1) {
    throw new InputError(`the video has ${count} frames; it must have at least 1`);
  }
  const step = (count - 1) / Math.max(number - 1, 1);
  // numpy.linspace sets the last value, which the product may miss by a rounding error.
  return Array.from({ length: number }, (_, i) =>
    i > 0 && i === number - 1 ? count - 1 : Math.trunc(i * step),
  );
}

/**
 * Lists the windows of a long video, as `timesformer timeline` does.
 *
 * @param {number} duration Seconds from the first frame to the end of the last one.
 * @param {number} rate Frames per second.
 * @param {number} numFrames Frames in a clip.
 * @param {{length?: number, stride?: number}} settings Seconds that a window shows, and seconds
 *   from the start of one window to the start of the next.
 * @returns {{start: number, end: number, times: number[]}[]} For each window the times, in seconds
 *   from the first frame, of its frames: the frame that is shown at each time.
 */
export function windows(duration, rate, numFrames, { length = 4, stride = 2 } = {}) {
  for (const [name, value] of Object.entries({ duration, rate, length, stride })) {
    if (!(value > 0 && value < Infinity)) {
      throw new InputError(`${name} is ${value}; it must be a number above 0`);
    }
  }
  const all = Math.max(1, rounded(duration * rate));
  const positions = Math.min(all, Math.max(1, rounded(length * rate)));
  const chosen = uniform(positions, numFrames);
  const found = [];
  for (let number = 0, reached = 0; reached < all; number++) {
    const start = number * stride;
    const first = rounded(start * rate);
    // A last window of which the video shows less than half is left out.
    if (first > 0 && all - first < positions / 2) break;
    reached = first + positions;
    const times = chosen.map((index) => (Math.min(first + index, all - 1) + 0.5) / rate);
    found.push({ start, end: Math.min(start + length, duration), times });
  }
  return found;
}

/** Rounds as Python does: a half to the even number. */
function rounded(value) {
  return Math.abs(value % 1) === 0.5 ? 2 * Math.round(value / 2) : Math.round(value);
}

/** Turns logits into probabilities. */
export function softmax(logits) {
  const largest = logits.reduce((a, b) => Math.max(a, b));
  const powers = Array.from(logits, (logit) => Math.exp(logit - largest));
  const sum = powers.reduce((a, b) => a + b);
  return powers.map((power) => power / sum);
}

/** Turns logits into scores, by the function that web.json names. */
export function scores(logits, name = "softmax") {
  if (name === "softmax") return softmax(logits);
  return Array.from(logits, (logit) => (name === "sigmoid" ? 1 / (1 + Math.exp(-logit)) : logit));
}

/** Returns the `topK` labels with the highest scores, best first. */
export function best(logits, labels, topK, name) {
  return scores(logits, name)
    .map((score, i) => ({ label: labels[i], score }))
    .sort((a, b) => b.score - a.score)
    .slice(0, topK);
}

/** Computes the cosine of two lists of numbers. */
export function cosine(a, b) {
  const dot = (x, y) => x.reduce((sum, value, i) => sum + value * y[i], 0);
  return dot(a, b) / Math.sqrt(dot(a, a) * dot(b, b));
}

/** Generates the frames of the golden check, as docs/reference/file-formats.md defines them. */
export function goldenFrames(seed, [count, height, width, channels]) {
  const frames = new Uint8Array(count * height * width * channels);
  const [squares, noise] = [0n, 1n].map((kind) => mix(mix(BigInt(seed)) + kind));
  const down = (state, ...path) => path.reduce((z, step) => mix(z + BigInt(step)), state);
  const byte = (state) => Number(state >> 56n);
  for (let t = 0, i = 0; t < count; t++) {
    for (let y = 0; y < height; y++) {
      const row = down(noise, t, y);
      for (let x = 0, square; x < width; x++) {
        if (x % 16 === 0) {
          const state = down(squares, t >> 1, y >> 4, x >> 4);
          square = Array.from({ length: channels }, (_, c) => byte(down(state, c)));
        }
        const pixel = down(row, x);
        for (let c = 0; c < channels; c++) frames[i++] = (3 * square[c] + byte(down(pixel, c))) >> 2;
      }
    }
  }
  return frames;
}

function mix(z) {
  z &= MASK;
  z = ((z ^ (z >> 30n)) * 0xbf58476d1ce4e5b9n) & MASK;
  z = ((z ^ (z >> 27n)) * 0x94d049bb133111ebn) & MASK;
  return z ^ (z >> 31n);
}

export function checkWeb(web) {
  const { format, frame_sampling: sampling, function: name } = web ?? {};
  const found = { format, sampling: sampling?.method, function: name ?? "softmax" };
  for (const [key, known] of Object.entries(KNOWN)) {
    if (known.includes(found[key])) continue;
    throw new InputError(`web.json has the ${key} ${found[key]}; this module has ${known.join(", ")}`);
  }
}
