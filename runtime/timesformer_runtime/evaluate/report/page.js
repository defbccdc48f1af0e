/** Makes the tables sort and filter, draws large confusion matrices, lists the mistakes. */
"use strict";

const data = JSON.parse(document.getElementById("data").textContent);
const collator = new Intl.Collator("en", { numeric: true });
const number = new Intl.NumberFormat("en");
const NOTHING = "\u2013";
const STEP = 25; // mistakes that are shown at a time

/** Makes an element with texts and elements in it. */
function element(name, ...children) {
  const made = document.createElement(name);
  made.append(...children);
  return made;
}

/** A name from the data: kept apart from the text around it, whatever direction it has. */
function named(text) {
  const made = element("bdi", text);
  made.title = text; // long names are cut
  return made;
}

const percent = (share) => (share == null ? NOTHING : `${(100 * share).toFixed(1)}\u00a0%`);
const score = (value) =>
  data.isShare ? percent(value) : value == null ? NOTHING : value.toFixed(3);

/** Compares numbers or texts; null and NaN stay at the end in both directions. */
function comparer(key, isText, direction) {
  const missing = (value) => value == null || Number.isNaN(value);
  return (a, b) => {
    const [one, two] = [key(a), key(b)];
    if (missing(one) || missing(two)) return missing(one) - missing(two);
    return direction * (isText ? collator.compare(one, two) : one - two);
  };
}

/** Calls `sort(column, isText, direction)` when a heading of a table is pressed. */
function onSort(table, sort) {
  const headings = [...table.tHead.rows[0].cells];
  table.tHead.addEventListener("click", (event) => {
    const button = event.target.closest("button.sort");
    if (!button) return;
    const heading = button.closest("th");
    const isText = button.dataset.kind === "text";
    const first = isText ? "ascending" : "descending";
    const second = isText ? "descending" : "ascending";
    const order = heading.ariaSort === first ? second : first;
    for (const other of headings) other.ariaSort = other === heading ? order : "none";
    sort(headings.indexOf(heading), isText, order === "ascending" ? 1 : -1);
  });
}

/** Shows a table of classes only where names match, and sorts its rows. */
function classesTable(section) {
  const table = section.querySelector("table.sortable");
  const body = table.tBodies[0];
  const rows = [...body.rows].map((row) => ({
    row,
    values: [...row.cells].map((cell, column) =>
      column ? (cell.dataset.v === "" ? null : Number(cell.dataset.v)) : cell.textContent,
    ),
  }));
  onSort(table, (column, isText, direction) => {
    rows.sort(comparer(({ values }) => values[column], isText, direction));
    body.append(...rows.map(({ row }) => row));
  });
  const filter = section.querySelector(".filter");
  const [input, output] = [filter.querySelector("input"), filter.querySelector("output")];
  filter.hidden = false;
  input.addEventListener("input", () => {
    const wanted = input.value.trim().toLowerCase();
    let shown = 0;
    for (const { row, values } of rows) {
      row.hidden = !values[0].toLowerCase().includes(wanted);
      shown += !row.hidden;
    }
    table.hidden = !shown;
    output.value = !wanted
      ? ""
      : shown
        ? `${number.format(shown)} of ${number.format(rows.length)} classes`
        : "no class matches";
  });
}

/** Lists the mistakes of a model; returns a function that shows those of one pair of labels. */
function mistakesTable(section, model) {
  const { file: fileAt, true: truth, best, score: scores, trueScore, rank } = model.mistakes;
  const file = fileAt.map((place) => data.files[place]);
  const label = (place) => (place == null ? null : data.labels[place]);
  const truthText = truth.map((places) => places.map(label).join(", "));
  const texts = file.map((name, i) =>
    `${name}\n${truthText[i]}\n${label(best[i]) ?? ""}`.toLowerCase(),
  );
  // Sorting compares numbers: labels are sorted once, and the files are in order.
  const places = (values) => {
    const known = [...new Set(values)].filter((value) => value != null).sort(collator.compare);
    const order = new Map(known.map((value, place) => [value, place]));
    return values.map((value) => order.get(value) ?? null);
  };
  const makers = [
    () => fileAt,
    () => places(truthText),
    () => places(best.map(label)),
    () => scores,
    () => trueScore,
    () => rank,
  ];
  const keys = [];
  const table = section.querySelector("table");
  const body = table.tBodies[0];
  const filter = section.querySelector(".filter");
  const [input, output] = [filter.querySelector("input"), filter.querySelector("output")];
  const [pairButton, more] = [filter.querySelector(".pair"), section.querySelector(".more")];
  let order = file.map((_, i) => i);
  let found = order;
  let pair = null;
  let shown = 0;

  const row = (i) =>
    element(
      "tr",
      ...[
        named(file[i]),
        named(truthText[i]),
        best[i] == null ? "not a number" : named(label(best[i])),
        score(scores[i]),
        score(trueScore[i]),
        rank[i] ?? NOTHING,
      ].map((value) => element("td", value)),
    );

  function showMore() {
    body.append(...found.slice(shown, shown + STEP).map(row));
    shown = Math.min(shown + STEP, found.length);
    more.hidden = shown === found.length;
    more.textContent = `Show ${number.format(Math.min(STEP, found.length - shown))} more`;
  }

  function update() {
    const wanted = input.value.trim().toLowerCase();
    found = order.filter(
      (i) =>
        (!pair || (truth[i].includes(pair[0]) && best[i] === pair[1])) &&
        (!wanted || texts[i].includes(wanted)),
    );
    pairButton.hidden = !pair;
    if (pair) {
      const [truthName, bestName] = pair.map((place) => named(label(place)));
      pairButton.replaceChildren(truthName, " \u2192 ", bestName, " \u00d7");
      pairButton.ariaLabel = "Show all pairs";
    }
    const total = model.mistakesCount;
    const left = total - file.length;
    output.value =
      `${number.format(found.length)} of ${number.format(total)} mistakes` +
      (left ? `; the ${number.format(file.length)} with the largest scores are listed here` : "");
    body.replaceChildren();
    table.hidden = !found.length;
    shown = 0;
    showMore();
  }

  onSort(table, (column, isText, direction) => {
    keys[column] ??= makers[column]();
    order.sort(comparer((i) => keys[column][i], false, direction));
    update();
  });
  input.addEventListener("input", update);
  more.addEventListener("click", showMore);
  pairButton.addEventListener("click", () => {
    pair = null;
    update();
    input.focus();
  });
  filter.hidden = false;
  update();
  return (truePlace, bestPlace) => {
    pair = [truePlace, bestPlace];
    input.value = "";
    update();
    section.scrollIntoView();
    pairButton.focus({ preventScroll: true });
  };
}

/** Draws a confusion matrix of many labels, and tells of the cell at the pointer. */
function matrixMap(section, model, showPair) {
  const canvas = section.querySelector("canvas");
  const readout = section.querySelector(".readout");
  const size = data.labels.length;
  const scale = Math.max(1, Math.ceil(800 / size));
  const cells = new Map();
  for (let i = 0; i < model.confusion.length; i += 3) {
    const [truth, best, count] = model.confusion.slice(i, i + 3);
    cells.set(truth * size + best, count);
  }
  canvas.width = canvas.height = size * scale;
  const context = canvas.getContext("2d");
  // The class of each row and column, and the row of each class.
  const given = data.labels.map((_, place) => place);
  let classAt = given;
  let rowOf = given;
  let focus = null;

  // Colours with opacity, which suit light and dark pages and paper alike.
  function draw() {
    context.clearRect(0, 0, canvas.width, canvas.height);
    if (focus != null) {
      context.fillStyle = "rgb(128 128 128 / 0.35)";
      context.fillRect(0, rowOf[focus] * scale, canvas.width, scale);
      context.fillRect(rowOf[focus] * scale, 0, scale, canvas.height);
    }
    for (const [key, count] of cells) {
      const [truth, best] = [Math.floor(key / size), key % size];
      const share = Math.sqrt(count / model.counts[truth]);
      const [colour, least] = truth === best ? ["70 130 230", 0.4] : ["225 90 25", 0.35];
      context.fillStyle = `rgb(${colour} / ${least + (1 - least) * share})`;
      context.fillRect(rowOf[best] * scale, rowOf[truth] * scale, scale, scale);
    }
  }

  /** The cell at the pointer, or the nearest with videos within a few pixels. */
  function cellAt(event) {
    const box = canvas.getBoundingClientRect();
    const x = ((event.clientX - box.left) / box.width) * size;
    const y = ((event.clientY - box.top) / box.height) * size;
    const reach = Math.ceil((6 / box.width) * size);
    let nearest = null;
    let least = Infinity;
    for (let row = Math.floor(y) - reach; row <= y + reach; row++) {
      for (let column = Math.floor(x) - reach; column <= x + reach; column++) {
        const [truth, best] = [classAt[row], classAt[column]];
        const away = (column + 0.5 - x) ** 2 + (row + 0.5 - y) ** 2;
        if (away < least && cells.has(truth * size + best)) {
          [nearest, least] = [[truth, best], away];
        }
      }
    }
    return nearest;
  }

  /** A button that lists the videos of a cell. */
  function lister(text, truth, best) {
    const button = element("button", text);
    button.type = "button";
    button.addEventListener("click", () => showPair(truth, best));
    return button;
  }

  function describe(cell) {
    if (!cell) return;
    const [truth, best] = cell;
    const count = cells.get(truth * size + best);
    const share = percent(count / model.counts[truth]);
    const verb = truth === best ? " predicted rightly: " : " predicted as ";
    const what = truth === best ? [] : [named(data.labels[best]), ": "];
    const total = number.format(model.counts[truth]);
    const videos = `${number.format(count)} of ${total} videos (${share})`;
    readout.replaceChildren(named(data.labels[truth]), verb, ...what, videos);
    if (truth !== best) readout.append(" ", lister("List them", truth, best));
  }

  canvas.addEventListener("pointermove", (event) => describe(cellAt(event)));
  canvas.addEventListener("click", (event) => {
    const cell = cellAt(event);
    describe(cell);
    // A finger cannot hover: its first touch only tells of the cell.
    if (cell && cell[0] !== cell[1] && event.pointerType === "mouse") showPair(...cell);
  });
  const orders = section.querySelector(".order");
  orders.addEventListener("change", (event) => {
    classAt = event.target.value === "model" ? given : model.order;
    rowOf = [];
    for (const [row, place] of classAt.entries()) rowOf[place] = row;
    draw();
  });
  const find = section.querySelector(".find");
  orders.hidden = find.hidden = false;
  const input = find.querySelector("input");
  const list = section.querySelector(".found");
  input.addEventListener("input", () => {
    const wanted = input.value.trim().toLowerCase();
    const lower = data.labels.map((label) => label.toLowerCase());
    let place = wanted ? lower.indexOf(wanted) : -1;
    if (place < 0 && wanted) place = lower.findIndex((label) => label.includes(wanted));
    focus = place < 0 ? null : place;
    draw();
    list.replaceChildren(...(focus == null ? [] : neighbours(focus)));
    if (wanted && focus == null) list.replaceChildren("No class has this name.");
  });

  /** Lists the labels that videos of a class got, and the classes whose videos got its label. */
  function neighbours(place) {
    const entries = [...cells].map(([key, count]) => [Math.floor(key / size), key % size, count]);
    const part = (title, wanted, other) => {
      const some = entries.filter(wanted).sort((a, b) => b[2] - a[2]).slice(0, 8);
      if (!some.length) return [];
      const items = some.map(([truth, best, count]) => {
        const button = lister(number.format(count), truth, best);
        button.ariaLabel = `${count} videos: list them`;
        return element("li", named(data.labels[other(truth, best)]), " ", button);
      });
      return [element("p", title), element("ul", ...items)];
    };
    const right = cells.get(place * size + place) ?? 0;
    const total = model.counts[place];
    const name = () => named(data.labels[place]);
    const title = element("strong");
    title.append(name(), `: ${number.format(right)} of ${number.format(total)} videos right`);
    return [
      element("p", title),
      ...part("Its other videos were predicted as", ([t, b]) => t === place && b !== t, (_, b) => b),
      ...part("It was predicted for videos of", ([t, b]) => b === place && t !== b, (t) => t),
    ];
  }

  draw();
}

/** Chooses the model whose details are shown. */
function chooseModel(parts) {
  const picker = document.querySelector(".models");
  if (!picker) return;
  const buttons = [...picker.querySelectorAll("button")];
  const links = [...document.querySelectorAll("a[data-part]")];
  function choose(chosen) {
    for (const [i, part] of parts.entries()) part.hidden = i !== chosen;
    for (const [i, button] of buttons.entries()) button.ariaPressed = String(i === chosen);
    for (const link of links) {
      link.href = `#${link.dataset.part}${chosen ? `-${chosen}` : ""}`;
    }
  }
  picker.addEventListener("click", (event) => {
    const button = event.target.closest("button");
    if (button) choose(buttons.indexOf(button));
  });
  picker.hidden = false;
  choose(0);
}

const parts = [...document.querySelectorAll(".model")];
for (const [i, part] of parts.entries()) {
  const showPair = mistakesTable(part.querySelector(".mistakes"), data.models[i]);
  classesTable(part.querySelector("section:has(.sortable)"));
  const map = part.querySelector(".map");
  if (map) matrixMap(map.closest("section"), data.models[i], showPair);
  part.querySelector(".matrix")?.addEventListener("click", (event) => {
    const button = event.target.closest("button");
    if (button) showPair(Number(button.dataset.true), Number(button.dataset.best));
  });
}
chooseModel(parts);

const cards = document.querySelector("#cards");
const allCards = document.querySelector("#cards ~ .more");
if (allCards) {
  cards.classList.add("few");
  allCards.hidden = false;
  allCards.addEventListener("click", () => {
    cards.classList.remove("few");
    allCards.hidden = true;
  });
}
