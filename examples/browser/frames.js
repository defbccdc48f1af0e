/** Decodes chosen frames of a video file with the browser's own decoder, as RGB. */

import {
  ALL_FORMATS,
  BlobSource,
  EncodedPacketSink,
  Input,
  VideoSampleSink,
} from "./lib/mediabunny.mjs";

const MOST_PIXELS = 4096 * 2304; // of a frame: eight frames of 4K take 200 MB as RGB

/** A file that is damaged, or that this browser does not decode. */
export class VideoError extends Error {}

/** Opens a video file (a Blob): its track, its frames' times in seconds, and its frame rate. */
export async function openVideo(file) {
  const input = new Input({ source: new BlobSource(file), formats: ALL_FORMATS });
  const track = await attempt(() => input.getPrimaryVideoTrack(), "the file is not a video");
  if (!track) throw new VideoError("the file has no video, or is not whole; give MP4, WebM, MKV, MOV or TS");
  if (!(await track.canDecode())) {
    throw new VideoError(
      `this browser does not decode ${(await track.getCodec()) ?? "this codec"}; convert the ` +
        "video: ffmpeg -i video -c:v libx264 -pix_fmt yuv420p converted.mp4",
    );
  }
  const times = [];
  const options = { metadataOnly: true };
  await attempt(async () => {
    for await (const packet of new EncodedPacketSink(track).packets(undefined, undefined, options)) {
      times.push(packet.timestamp);
    }
  }, "the file is damaged: its list of frames is not readable");
  if (times.length === 0) throw new VideoError("the video has no frames");
  times.sort((a, b) => a - b);
  const span = times.at(-1) - times[0];
  const rate = span > 0 ? (times.length - 1) / span : 30;
  const matrix = (await track.getColorSpace()).matrix;
  return { track, times, rate, duration: span + 1 / rate, matrix };
}

/**
 * Yields the frame that is shown at each time, in seconds, ascending: {pixels, width, height},
 * upright. A frame for two times is decoded once.
 */
export async function* framesAt(video, times) {
  const samples = new VideoSampleSink(video.track).samplesAtTimestamps(times);
  let before;
  while (true) {
    const next = await attempt(() => samples.next(), "the file is damaged: a frame does not decode");
    if (next.done) return;
    const sample = next.value;
    if (!sample) throw new VideoError("the file is damaged: a frame is missing");
    try {
      if (sample.timestamp !== before?.timestamp) {
        before = { timestamp: sample.timestamp, ...(await rgbOf(sample, video.matrix)) };
      }
      yield before;
    } finally {
      sample.close();
    }
  }
}

async function attempt(action, problem) {
  try {
    return await action();
  } catch (error) {
    const reason = String(error.message ?? error).split("\n")[0].replace(/\.$/, "");
    throw new VideoError(`${problem} (${reason})`);
  }
}

/** Converts a decoded frame to RGB without scaling, and turns it upright. */
async function rgbOf(sample, matrix) {
  const frame = sample.toVideoFrame();
  try {
    const { width, height } = frame.visibleRect;
    if (width * height > MOST_PIXELS) {
      throw new VideoError(`the frames have ${width}x${height} pixels, more than 4096x2304; make them smaller`);
    }
    const layout = planesOf(frame.format);
    let pixels;
    if (layout) {
      const data = new Uint8Array(frame.allocationSize());
      const planes = await frame.copyTo(data);
      pixels = toRgb(data, planes, layout, width, height, matrix, frame.colorSpace.fullRange);
    } else {
      pixels = await browserRgb(frame, width, height);
    }
    return turned(pixels, width, height, sample.rotation);
  } finally {
    frame.close();
  }
}

/** Describes the planes of a format such as I420, I422P10 or NV12; undefined for RGB formats. */
function planesOf(format) {
  const match = /^(?:I(420|422|444)(A?)(?:P(10|12))?|(NV12))$/.exec(format ?? "");
  if (!match) return undefined;
  const chroma = match[4] ? "420" : match[1];
  return {
    interleaved: Boolean(match[4]),
    shiftX: chroma === "444" ? 0 : 1,
    shiftY: chroma === "420" ? 1 : 0,
    depth: Number(match[3] ?? 8),
  };
}

// Weights of red and blue in the luma. A video that states no matrix is BT.601, as in FFmpeg;
// browsers assume BT.709 for it, which changes colours by up to 23 levels.
const WEIGHTS = { bt709: [0.2126, 0.0722], "bt2020-ncl": [0.2627, 0.0593] };
const BT601 = [0.299, 0.114];

function toRgb(data, planes, layout, width, height, matrix, fullRange) {
  const [red, blue] = WEIGHTS[matrix] ?? BT601;
  const green = 1 - red - blue;
  const wide = layout.depth > 8;
  const top = 1 << (layout.depth - 8);
  const values = wide ? new Uint16Array(data.buffer) : data;
  const unit = wide ? 2 : 1;
  const luma = (fullRange ? 1 : 255 / 219) / top;
  const chroma = (fullRange ? 1 : 255 / 224) / top;
  const black = fullRange ? 0 : 16 * top;
  const forRed = 2 * (1 - red) * chroma;
  const forBlue = 2 * (1 - blue) * chroma;
  const [redInGreen, blueInGreen] = [(-red / green) * forRed, (-blue / green) * forBlue];
  const step = layout.interleaved ? 2 : 1;
  const [yPlane, uPlane, vPlane = { ...uPlane, offset: uPlane.offset + unit }] = planes;
  const rgb = new Uint8ClampedArray(width * height * 3);
  for (let y = 0, i = 0; y < height; y++) {
    const yRow = (yPlane.offset + y * yPlane.stride) / unit;
    const uRow = (uPlane.offset + (y >> layout.shiftY) * uPlane.stride) / unit;
    const vRow = (vPlane.offset + (y >> layout.shiftY) * vPlane.stride) / unit;
    for (let x = 0; x < width; x++, i += 3) {
      const column = (x >> layout.shiftX) * step;
      const light = (values[yRow + x] - black) * luma;
      const u = values[uRow + column] - 128 * top;
      const v = values[vRow + column] - 128 * top;
      rgb[i] = light + forRed * v;
      rgb[i + 1] = light + redInGreen * v + blueInGreen * u;
      rgb[i + 2] = light + forBlue * u;
    }
  }
  return new Uint8Array(rgb.buffer);
}

/** Lets the browser convert, for formats other than planar YUV. */
async function browserRgb(frame, width, height) {
  const rgba = new Uint8Array(width * height * 4);
  await frame.copyTo(rgba, { format: "RGBA", layout: [{ offset: 0, stride: width * 4 }] });
  const rgb = new Uint8Array(width * height * 3);
  for (let i = 0, j = 0; j < rgb.length; i += 4) {
    rgb[j++] = rgba[i];
    rgb[j++] = rgba[i + 1];
    rgb[j++] = rgba[i + 2];
  }
  return rgb;
}

/** Turns a frame by 0, 90, 180 or 270 degrees, clockwise. */
function turned(pixels, width, height, degrees) {
  if (!degrees) return { pixels, width, height };
  const isQuarter = degrees % 180 !== 0;
  const [newWidth, newHeight] = isQuarter ? [height, width] : [width, height];
  const result = new Uint8Array(pixels.length);
  for (let y = 0; y < height; y++) {
    for (let x = 0; x < width; x++) {
      const newX = { 90: height - 1 - y, 180: width - 1 - x, 270: y }[degrees];
      const newY = { 90: x, 180: height - 1 - y, 270: width - 1 - x }[degrees];
      const from = (y * width + x) * 3;
      const to = (newY * newWidth + newX) * 3;
      for (let c = 0; c < 3; c++) result[to + c] = pixels[from + c];
    }
  }
  return { pixels: result, width: newWidth, height: newHeight };
}
