/** The page: takes a video, gives it to the worker, and shows the worker's answers. */

// Seconds without any sign of life after which the worker counts as hanging; ?patience=N.
const PATIENCE = Number(new URLSearchParams(location.search).get("patience")) || 60;
const LOAD_PATIENCE = 300; // a large model takes long to prepare on a slow device
const COLOURS = 8; // of style.css

const element = (id) => document.getElementById(id);
const device = element("device");

let worker;
let timer;
let waiting; // a file that was dropped while the model was being loaded
let current; // the video: its name and, once it is known, its duration
let colours = new Map(); // by label
let isScored; // whether the answers are scores from 0 to 1

const handlers = {
  progress({ text, share }) {
    const isBusy = document.body.dataset.state === "busy";
    element("status-text").textContent = isBusy ? `${text}: ${current.name}` : text;
    if (share === undefined) element("progress").removeAttribute("value");
    else element("progress").value = share;
  },
  ready({ dtype, threads, scored }) {
    isScored = scored;
    const onCpu = device.value === "wasm" ? `, ${threads} ${threads === 1 ? "thread" : "threads"}` : "";
    element("model").textContent = `Model: ${dtype}${onCpu}`;
    show("ready");
    if (waiting) classify(waiting);
  },
  whole({ predictions, duration }) {
    element("facts").textContent = `${clock(duration)} long`;
    element("labels").replaceChildren(...predictions.map(prediction));
    element("result").hidden = false;
    current.duration = duration;
  },
  thumbnail({ bitmap, seconds }) {
    const canvas = document.createElement("canvas");
    canvas.width = bitmap.width;
    canvas.height = bitmap.height;
    canvas.title = clock(seconds);
    canvas.getContext("bitmaprenderer").transferFromImageBitmap(bitmap);
    element("frames").append(canvas);
  },
  window({ start, end, predictions }) {
    element("timeline").hidden = false;
    element("length").textContent = clock(current.duration);
    addWindow(start, end, predictions[0]);
  },
  done: () => show("done"),
  error: ({ message }) => fail(message),
};

/** Starts a worker, which loads the model. */
function start() {
  worker?.terminate();
  worker = new Worker("worker.js", { type: "module" });
  worker.onmessage = ({ data: { type, ...values } }) => {
    watch();
    handlers[type](values);
  };
  worker.onerror = (event) => fail(`a part of the page did not run: ${event.message ?? "not loaded"}`);
  element("model").textContent = "";
  show("loading");
  handlers.progress({ text: "Loading the model" });
  worker.postMessage({ load: { device: device.value } });
  watch();
}

/** Classifies a file, or remembers it until the model is there. */
function classify(file) {
  const { state } = document.body.dataset;
  waiting = file;
  if (state === "loading") return;
  if (state === "busy" || state === "broken") {
    start(); // ends what the worker does
    return;
  }
  waiting = undefined;
  current = { name: file.name };
  clear();
  show("busy");
  worker.postMessage({ classify: { file } });
  watch();
}

/** Waits for the worker's next message; a worker that stays silent is ended. */
function watch() {
  clearTimeout(timer);
  const { state } = document.body.dataset;
  if (state !== "loading" && state !== "busy") return;
  const seconds = state === "loading" ? LOAD_PATIENCE : PATIENCE;
  timer = setTimeout(() => {
    worker.terminate();
    show("broken");
    fail(
      state === "loading"
        ? `the model did not load within ${seconds} s; reload the page`
        : `nothing happened for ${seconds} s: ${current.name} may be damaged; drop another video`,
    );
  }, seconds * 1000);
}

function fail(message) {
  const isBroken = ["loading", "broken"].includes(document.body.dataset.state);
  show(isBroken ? "broken" : "error");
  const about = current && !isBroken ? `${current.name}: ` : "";
  element("status-text").textContent = `${about}${message}`;
}

/** Shows a state: loading, ready, busy, done, error (of a video) or broken (no worker or model). */
function show(state) {
  document.body.dataset.state = state;
  clearTimeout(timer);
  element("status-text").textContent = "";
}

function clear() {
  element("name").textContent = current.name;
  element("facts").textContent = "";
  for (const id of ["labels", "frames", "strip", "legend", "rows"]) element(id).replaceChildren();
  for (const id of ["result", "timeline"]) element(id).hidden = true;
  colours = new Map();
}

function prediction({ label, score }) {
  const item = document.createElement("li");
  const bar = span("bar", "");
  bar.append(span("filled", ""));
  bar.firstChild.style.width = `${score * 100}%`;
  if (!isScored) bar.style.visibility = "hidden";
  item.append(span("label", label), bar, span("score", shown(score)));
  return item;
}

function addWindow(start, end, { label, score }) {
  const isNew = !colours.has(label);
  if (isNew) colours.set(label, colours.size % COLOURS);
  const colour = `colour-${colours.get(label)}`;
  const cell = span(colour, "");
  cell.role = "listitem";
  cell.title = `${clock(start)} to ${clock(end)}: ${label}, ${shown(score)}`;
  cell.setAttribute("aria-label", cell.title);
  // Windows overlap: a cell reaches to the start of the next window, the last one to the end.
  const before = element("strip").lastElementChild;
  if (before) before.style.flexGrow = start - Number(before.dataset.start);
  cell.dataset.start = start;
  cell.style.flexGrow = current.duration - start;
  element("strip").append(cell);
  if (isNew) {
    const item = document.createElement("li");
    item.append(span(colour, ""), label);
    element("legend").append(item);
  }
  const row = element("rows").insertRow();
  for (const text of [clock(start), clock(end), label, shown(score)]) {
    row.insertCell().textContent = text;
  }
}

function span(name, text) {
  const made = document.createElement("span");
  made.className = name;
  made.textContent = text;
  return made;
}

function shown(score) {
  if (!isScored) return score.toFixed(3);
  return `${(score * 100).toFixed(score > 0.995 ? 0 : 1)} %`;
}

function clock(seconds) {
  const tenths = Math.round(seconds * 10);
  if (tenths < 600) return `${(tenths / 10).toFixed(1)} s`;
  return `${Math.floor(tenths / 600)}:${((tenths % 600) / 10).toFixed(1).padStart(4, "0")}`;
}

element("file").addEventListener("change", ({ target }) => {
  if (target.files.length) classify(target.files[0]);
  target.value = ""; // so that the same file can be chosen again
});
device.addEventListener("change", start);
for (const type of ["dragenter", "dragover", "dragleave", "drop"]) {
  document.addEventListener(type, (event) => {
    event.preventDefault();
    document.body.classList.toggle("dragging", type === "dragenter" || type === "dragover");
    if (type === "drop" && event.dataTransfer.files.length) classify(event.dataTransfer.files[0]);
  });
}
start();
