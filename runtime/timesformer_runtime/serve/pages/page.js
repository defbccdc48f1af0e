/** The page: sends a video to this server, and shows its frames, labels and timeline. */

const COLOURS = 8; // of style.css
const element = (id) => document.getElementById(id);

let running; // ends the requests for the video before
let colours; // by label
let duration;

/** Asks the server; an error has the server's own line. */
async function ask(path, options = {}) {
  const token = element("token").value;
  const headers = token ? { Authorization: `Bearer ${token}` } : {};
  let answer;
  try {
    answer = await fetch(path, { ...options, headers });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Error("the server does not answer, or it refused a video that is too large");
  }
  if (answer.status === 401) {
    element("access").hidden = false;
    element("token").focus();
    throw new Error("this server wants a token: enter it below, and drop the video again");
  }
  if (!answer.ok) throw new Error((await answer.json()).error);
  return answer;
}

async function loadModels() {
  const { models } = await (await ask("v1/models")).json();
  element("model").replaceChildren(
    ...models.map(({ name, dtype }) => new Option(dtype ? `${name} (${dtype})` : name, name)),
  );
}

/** Sends a file twice at the same time: for its labels and frames, and for its timeline. */
async function classify(file) {
  running?.abort();
  const mine = (running = new AbortController());
  clear(file.name);
  show("busy", `Reading ${file.name}`);
  const send = (path, options) => {
    const query = new URLSearchParams({ model: element("model").value, ...options });
    const body = new FormData();
    body.append("video", file);
    return ask(`${path}?${query}`, { method: "POST", body, signal: mine.signal });
  };
  try {
    if (!element("model").value) await loadModels();
    const whole = send("v1/classify", { pictures: true }).then(showWhole);
    const window = element("window").value;
    const timeline = send("v1/timeline", { window, stride: half(window) }).then(showTimeline);
    await Promise.all([whole, timeline]);
    show("done", "");
  } catch (error) {
    if (running === mine) {
      mine.abort();
      const isNamed = error.message.startsWith(file.name);
      show("error", isNamed ? error.message : `${file.name}: ${error.message}`);
    }
  }
}

function half(window) {
  const [, number, unit] = /^(\d+)(\D+)$/.exec(window);
  return `${number / 2}${unit}`;
}

async function showWhole(answer) {
  const result = await answer.json();
  element("facts").textContent = `${result.frames.count} frames`;
  element("damage").hidden = !result.damaged;
  element("damage").textContent = `Damaged: ${result.problems.join("; ")}`;
  element("labels").replaceChildren(...result.predictions.map(prediction));
  element("frames").replaceChildren(...result.pictures.map(picture));
  element("result").hidden = false;
}

async function showTimeline(answer) {
  for await (const [kind, values] of events(answer.body)) {
    if (kind === "error") throw new Error(values.error);
    if (kind === "segment") addSegment(values);
  }
}

/** Reads server-sent events; the browser's own EventSource cannot send a video. */
async function* events(stream) {
  const reader = stream.pipeThrough(new TextDecoderStream()).getReader();
  let text = "";
  for (let part = await reader.read(); !part.done; part = await reader.read()) {
    const blocks = (text + part.value).split("\n\n");
    text = blocks.pop();
    for (const block of blocks) {
      const [, kind, data] = /^event: (.*)\ndata: (.*)$/.exec(block);
      yield [kind, JSON.parse(data)];
    }
  }
}

function prediction({ label, score }) {
  const item = document.createElement("li");
  const bar = span("bar", "");
  bar.append(span("filled", ""));
  bar.firstChild.style.width = `${Math.min(1, Math.max(0, score)) * 100}%`;
  item.append(span("label", label), bar, span("score", percent(score)));
  return item;
}

function picture({ jpeg, index, time }) {
  const image = new Image();
  image.src = jpeg;
  image.title = `${clock(time)}, frame ${index}`;
  image.alt = `Frame ${index}`;
  return image;
}

function addSegment({ start, end, predictions, ...values }) {
  const [{ label, score }] = predictions;
  duration = Math.max(values.duration ?? 0, end, duration);
  element("timeline").hidden = false;
  element("length").textContent = clock(duration);
  element("progress").value = Math.min(1, end / duration);
  const isNew = !colours.has(label);
  if (isNew) colours.set(label, colours.size % COLOURS);
  const colour = `colour-${colours.get(label)}`;
  const cell = span(colour, "");
  cell.role = "listitem";
  cell.title = `${clock(start)} to ${clock(end)}: ${label}, ${percent(score)}`;
  cell.setAttribute("aria-label", cell.title);
  // Windows overlap: a cell reaches to the start of the next window, the last one to the end.
  const before = element("strip").lastElementChild;
  if (before) before.style.flexGrow = start - Number(before.dataset.start);
  cell.dataset.start = start;
  cell.style.flexGrow = duration - start;
  element("strip").append(cell);
  if (isNew) {
    const item = document.createElement("li");
    item.append(span(colour, ""), label);
    element("legend").append(item);
  }
  const row = element("rows").insertRow();
  for (const text of [clock(start), clock(end), label, percent(score)]) {
    row.insertCell().textContent = text;
  }
}

/** Shows a state: ready, busy, done or error. */
function show(state, text) {
  document.body.dataset.state = state;
  element("status-text").textContent = text;
  if (state === "busy") element("progress").removeAttribute("value");
}

function clear(name) {
  element("name").textContent = name;
  for (const id of ["labels", "frames", "strip", "legend", "rows"]) element(id).replaceChildren();
  for (const id of ["result", "timeline"]) element(id).hidden = true;
  colours = new Map();
  duration = 0;
}

function span(name, text) {
  const made = document.createElement("span");
  made.className = name;
  made.textContent = text;
  return made;
}

function percent(score) {
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
for (const type of ["dragenter", "dragover", "dragleave", "drop"]) {
  document.addEventListener(type, (event) => {
    event.preventDefault();
    document.body.classList.toggle("dragging", type === "dragenter" || type === "dragover");
    if (type === "drop" && event.dataTransfer.files.length) classify(event.dataTransfer.files[0]);
  });
}
element("token").addEventListener("change", () => loadModels().catch(({ message }) => show("error", message)));
loadModels().catch(({ message }) => show("error", message));
