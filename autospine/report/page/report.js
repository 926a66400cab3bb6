"use strict";
// The page of a report: table of cases, pictures and marks. Names are set as text, never as HTML.

const LAYERS = ["prediction", "reference", "difference", "image"];
const LAYER_NAMES = { prediction: "prediction", reference: "reference", difference: "differences", image: "image alone" };
const MARKS = ["", "pass", "fail", "artefact"];
const FLICKER_MS = 600;
const STORE = "autospine-report:" + document.body.dataset.report;

const byId = (id) => document.getElementById(id);
const rows = byId("table") ? Array.from(byId("table").tBodies[0].rows) : [];
const scores = JSON.parse(byId("table-data").textContent);
const marks = readMarks();
let chosen = null; // the row that is shown
let layer = "prediction";
let flickering = 0;
let showInVolumes = null; // shows a layer in the open viewer in 3D
let sorted = { key: "", descending: false };

function element(name, text, attributes = {}) {
  const made = document.createElement(name);
  if (text) made.textContent = text;
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  return made;
}

// Marks: {case: {mark, grade, note}}, kept in this browser until they are saved as a file.

function readMarks() {
  try {
    return cleaned(JSON.parse(localStorage.getItem(STORE) || "{}"));
  } catch {
    return new Map();
  }
}

function cleaned(found) {
  const kept = new Map();
  for (const [name, entry] of Object.entries(found || {})) {
    if (!entry || typeof entry !== "object") continue;
    const mark = MARKS.includes(entry.mark) ? entry.mark : "";
    const grade = Number.isInteger(entry.grade) && entry.grade >= 0 && entry.grade <= 9 ? entry.grade : null;
    const note = typeof entry.note === "string" ? entry.note.slice(0, 1000) : "";
    if (mark || grade !== null || note) kept.set(name, { mark, grade, note });
  }
  return kept;
}

function storeMarks() {
  try {
    localStorage.setItem(STORE, JSON.stringify(Object.fromEntries(marks)));
  } catch {
    say("This browser keeps no marks for files: save them before you close the page.");
  }
}

function markOf(row) {
  return marks.get(row.dataset.name) || { mark: "", grade: null, note: "" };
}

function change(values) {
  if (!chosen) return;
  const entry = { ...markOf(chosen), ...values };
  if (entry.mark || entry.grade !== null || entry.note) marks.set(chosen.dataset.name, entry);
  else marks.delete(chosen.dataset.name);
  storeMarks();
  showMarkIn(chosen);
  showMark();
}

function showMarkIn(row) {
  const entry = markOf(row);
  row.querySelector(".mark").textContent = entry.mark + (entry.note ? " ✎" : "");
  row.querySelector(".grade").textContent = entry.grade === null ? "" : entry.grade;
}

function showMark() {
  const entry = markOf(chosen);
  for (const radio of document.querySelectorAll("input[name=mark]")) radio.checked = radio.value === entry.mark;
  byId("grade").value = entry.grade === null ? "" : String(entry.grade);
  if (document.activeElement !== byId("note")) byId("note").value = entry.note;
}

function say(text) {
  byId("message").textContent = text;
}

function download(name, kind, text) {
  const link = element("a", "", { download: name, href: URL.createObjectURL(new Blob([text], { type: kind })) });
  document.body.append(link);
  link.click();
  link.remove();
  setTimeout(() => URL.revokeObjectURL(link.href), 10000);
}

function marksAsJson() {
  const content = {
    format_version: 1,
    kind: "autospine marks",
    report: document.body.dataset.title,
    folder: document.body.dataset.folder,
    cases: Object.fromEntries(Array.from(marks).sort(([a], [b]) => (a < b ? -1 : 1))),
  };
  return JSON.stringify(content, null, 1) + "\n";
}

function marksAsCsv() {
  // A spreadsheet would run what begins like a formula.
  const cell = (text) => '"' + String(text).replace(/^([=+\-@\t\r])/, "'$1").replaceAll('"', '""') + '"';
  const lines = rows.filter((row) => marks.has(row.dataset.name)).map((row) => {
    const { mark, grade, note } = markOf(row);
    return [row.dataset.name, mark, grade === null ? "" : grade, note].map(cell).join(",");
  });
  return ["case,mark,grade,note", ...lines].join("\r\n") + "\r\n";
}

async function loadMarks(file) {
  try {
    const content = JSON.parse(await file.text());
    if (content.kind !== "autospine marks" || content.format_version !== 1) throw new Error("no marks of a report");
    const loaded = cleaned(content.cases);
    for (const [name, entry] of loaded) marks.set(name, entry);
    storeMarks();
    rows.forEach(showMarkIn);
    if (chosen) showMark();
    const here = rows.filter((row) => loaded.has(row.dataset.name)).length;
    say(`${here} marks loaded` + (here < loaded.size ? `, ${loaded.size - here} of cases that are not here` : ""));
  } catch (error) {
    say(`${file.name} has no marks that can be read: ${error.message}`);
  }
}

// The table: search, filters and order.

function valueOf(id) {
  return byId(id) ? byId(id).value : "";
}

function scoreOf(row) {
  const name = valueOf("choose-class");
  const entry = scores.cases[row.dataset.case];
  return name ? (entry.classes[name] ?? null) : entry.mean;
}

function isShown(row) {
  const name = valueOf("choose-class");
  const mark = valueOf("choose-mark");
  const words = valueOf("search").toLowerCase().split(/\s+/);
  const text = `${row.textContent} ${markOf(row).note}`.toLowerCase();
  return (
    words.every((word) => text.includes(word)) &&
    ["modality", "site"].every((key) => !valueOf(`choose-${key}`) || row.dataset[key] === valueOf(`choose-${key}`)) &&
    (!name || name in scores.cases[row.dataset.case].classes) &&
    (!mark || (markOf(row).mark || "none") === mark)
  );
}

function update() {
  for (const row of rows) {
    row.hidden = !isShown(row);
    const cell = row.querySelector(".score");
    const value = scoreOf(row);
    if (cell) cell.textContent = value === null ? "–" : value.toFixed(3);
  }
  const name = valueOf("choose-class");
  const title = byId("score-title");
  if (title) {
    title.dataset.title ||= title.textContent;
    title.textContent = title.dataset.title + (name ? ` of ${name}` : "");
  }
  const n = rows.filter((row) => !row.hidden).length;
  byId("count").textContent = n === rows.length ? `${n} cases` : `${n} of ${rows.length} cases`;
}

function sortKey(row, key) {
  if (key === "score") return scoreOf(row);
  if (key === "grade") return markOf(row).grade;
  if (key === "mark") return markOf(row).mark || null;
  return row.dataset[key];
}

function compare(a, b) {
  // What is unknown comes last in either order.
  if (a === null || b === null) return a === b ? 0 : a === null ? 1 : -1;
  const order = typeof a === "number" ? a - b : a.localeCompare(b, "en", { numeric: true });
  return sorted.descending ? -order : order;
}

function sortBy(key, descending) {
  sorted = { key, descending };
  for (const head of byId("table").tHead.rows[0].cells) {
    if (head.dataset.key === key) head.setAttribute("aria-sort", descending ? "descending" : "ascending");
    else head.removeAttribute("aria-sort");
  }
  rows.sort((a, b) => compare(sortKey(a, key), sortKey(b, key)));
  byId("table").tBodies[0].append(...rows);
}

function move(step) {
  const shown = rows.filter((row) => !row.hidden);
  const at = shown.indexOf(chosen);
  const next = shown[at < 0 ? 0 : Math.min(Math.max(at + step, 0), shown.length - 1)];
  if (next) openCase(next);
}

// The viewer: pictures, layers and details of one case.

function openCase(row) {
  if (chosen) chosen.classList.remove("chosen");
  chosen = row;
  row.classList.add("chosen");
  row.scrollIntoView({ block: "nearest" });
  const data = JSON.parse(byId(`case-${row.dataset.case}`).textContent);
  byId("viewer").hidden = false;
  byId("case-name").textContent = data.name;
  byId("findings").replaceChildren(...data.findings.map((text) => element("li", text)));
  byId("pictures").replaceChildren(...data.pictures.map((picture) => drawn(picture, data.name)));
  const labelled = data.pictures.filter((picture) => picture.prediction);
  const there = labelled.length ? LAYERS.filter((name) => labelled.some((picture) => picture[name])) : [];
  showChoices(there);
  byId("details").replaceChildren(...details(data));
  byId("flicker").hidden = !there.includes("reference");
  byId("legend").querySelector(".difference").hidden = !there.includes("difference");
  byId("legend").hidden = !there.length;
  stopFlicker();
  closeVolumes();
  byId("volume").hidden = !byId(`volumes-${row.dataset.case}`);
  showLayer(there.includes(layer) ? layer : "prediction");
  showMark();
  for (const dot of document.querySelectorAll(".dot")) dot.classList.toggle("chosen", dot.dataset.case === row.dataset.case);
}

function drawn(picture, name) {
  const figure = element("figure", "", picture.plane === "page" ? { class: "page" } : {});
  const stack = element("div", "", { class: "stack" });
  const size = { width: picture.width, height: picture.height };
  const ground = element("img", "", { ...size, alt: `${picture.title} of ${name}` });
  ground.src = picture.image || picture.prediction;
  stack.append(ground);
  for (const key of ["prediction", "reference", "difference"]) {
    if (!picture[key]) continue;
    const over = element("img", "", { ...size, alt: "", "data-layer": key });
    over.src = picture[key];
    stack.append(over);
  }
  if (picture.marked) {
    const cross = element("span", "", { class: "cross" });
    cross.style.top = `${100 * picture.marked[0]}%`;
    cross.style.left = `${100 * picture.marked[1]}%`;
    stack.append(cross);
  }
  if (!picture.image) ground.style.visibility = "hidden";
  figure.append(stack, element("figcaption", picture.title));
  return figure;
}

function showChoices(there) {
  const field = byId("layers");
  field.hidden = !there.length;
  field.replaceChildren(element("legend", "Show"));
  for (const name of there) {
    const label = element("label");
    label.append(element("input", "", { type: "radio", name: "layer", value: name }), ` ${LAYER_NAMES[name]}`);
    field.append(label);
  }
}

function showLayer(name) {
  layer = name;
  if (showInVolumes) showInVolumes(name);
  for (const image of document.querySelectorAll("#pictures [data-layer]")) image.hidden = image.dataset.layer !== name;
  for (const radio of document.querySelectorAll("input[name=layer]")) radio.checked = radio.value === name;
}

function nextLayer(step) {
  const there = Array.from(document.querySelectorAll("input[name=layer]"), (radio) => radio.value);
  if (!there.length) return;
  stopFlicker();
  showLayer(there[(there.indexOf(layer) + step + there.length) % there.length]);
}

function stopFlicker() {
  clearInterval(flickering);
  flickering = 0;
  byId("flicker").setAttribute("aria-pressed", "false");
}

function toggleFlicker() {
  if (flickering) {
    stopFlicker();
    return;
  }
  byId("flicker").setAttribute("aria-pressed", "true");
  flickering = setInterval(() => showLayer(layer === "prediction" ? "reference" : "prediction"), FLICKER_MS);
}

// The viewer in 3D, which volumes.js shows.

function closeVolumes() {
  const canvas = byId("canvas").querySelector("canvas");
  const context = canvas && canvas.getContext("webgl2");
  if (context) context.getExtension("WEBGL_lose_context").loseContext(); // a browser has few of them
  byId("canvas").replaceChildren();
  byId("scene").hidden = true;
  byId("volume").setAttribute("aria-pressed", "false");
  showInVolumes = null;
}

async function toggleVolumes() {
  if (!byId("scene").hidden) {
    closeVolumes();
    return;
  }
  const row = chosen;
  const data = JSON.parse(byId(`volumes-${row.dataset.case}`).textContent);
  const label = `Volumes of ${row.dataset.name}: three slices and a view in 3D; the pictures below show the same case`;
  const canvas = element("canvas", "", { role: "img", "aria-label": label });
  byId("canvas").replaceChildren(canvas);
  byId("scene").hidden = false;
  byId("volume").setAttribute("aria-pressed", "true");
  byId("scene-note").textContent = "loading";
  try {
    const show = await showVolumes(canvas, data);
    if (chosen !== row || !canvas.isConnected) return;
    showInVolumes = show;
    show(layer);
    byId("scene-note").textContent = data.note;
  } catch (error) {
    byId("canvas").replaceChildren();
    byId("scene-note").textContent = `No view in 3D: ${error.message}`;
  }
}

function details(data) {
  const parts = [];
  const names = Object.keys(data.scores);
  if (names.length) {
    const titles = Object.keys(data.scores[names[0]]);
    const table = element("table");
    const head = table.createTHead().insertRow();
    head.append(element("th", "class", { scope: "col" }), ...titles.map((title) => element("th", title, { scope: "col", class: "number" })));
    const body = table.createTBody();
    for (const name of names) {
      const row = body.insertRow();
      row.append(element("th", name, { scope: "row" }));
      for (const title of titles) {
        const value = data.scores[name][title];
        row.append(element("td", value === null ? "–" : value.toFixed(3), { class: "number" }));
      }
    }
    parts.push(table);
  }
  parts.push(...data.tables.map(plainTable));
  if (data.facts.length) {
    const list = element("dl", "", { class: "facts" });
    for (const fact of data.facts) {
      const pair = element("div");
      const value = element("dd", fact.value);
      if (fact.reason) value.append(element("span", fact.reason, { class: "reason" }));
      pair.append(element("dt", fact.name), value);
      list.append(pair);
    }
    parts.push(list);
  }
  return parts;
}

function plainTable(content) {
  const kinds = content.columns.map((_, i) => (content.numeric.includes(i) ? { class: "number" } : {}));
  const table = element("table");
  table.createCaption().textContent = content.title;
  const head = table.createTHead().insertRow();
  head.append(...content.columns.map((title, i) => element("th", title, { scope: "col", ...kinds[i] })));
  const body = table.createTBody();
  for (const cells of content.rows) {
    const row = body.insertRow();
    row.append(...cells.map((cell, i) => (i ? element("td", cell, kinds[i]) : element("th", cell, { scope: "row" }))));
  }
  const scroll = element("div", "", { class: "scroll", tabindex: "0", role: "region", "aria-label": content.title });
  scroll.append(table);
  if (!content.guide) return scroll;
  const whole = element("div");
  whole.append(scroll, guideOf(content.guide));
  return whole;
}

function guideOf(guide) {
  const list = element("dl", "", { class: "guide" });
  for (const [title, text] of [["What is shown", guide.shown], ["What is good", guide.good], ["What to do", guide.action]]) {
    const pair = element("div");
    pair.append(element("dt", title), element("dd", text));
    list.append(pair);
  }
  return list;
}

// Keys, and what is pressed.

function keysApply(event) {
  if (!byId("keys").checked || event.ctrlKey || event.altKey || event.metaKey) return false;
  const target = event.target;
  const field = target.closest("input, select, textarea");
  if (field && (field.type !== "radio" || event.key.startsWith("Arrow"))) return false; // they have keys of their own
  if (target.closest("#cases")) return true;
  const box = byId("viewer").getBoundingClientRect();
  return target === document.body && box.bottom > 0 && box.top < innerHeight;
}

function onKey(event) {
  if (event.key === "Escape" && event.target === byId("note")) byId("note").blur();
  if (!keysApply(event)) return;
  const key = event.key.toLowerCase();
  if (key === "arrowdown") move(1);
  else if (key === "arrowup") move(-1);
  else if (key === "arrowright") nextLayer(1);
  else if (key === "arrowleft") nextLayer(-1);
  else if (!chosen) return;
  else if (key === "f") change({ mark: MARKS[(MARKS.indexOf(markOf(chosen).mark) + 1) % MARKS.length] });
  else if (/^[0-9]$/.test(key)) change({ grade: Number(key) });
  else if (key === "n") byId("note").focus();
  else return;
  event.preventDefault();
}

function isDark() {
  const theme = document.documentElement.dataset.theme;
  return theme ? theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
}

function showTheme() {
  byId("theme").textContent = isDark() ? "Light" : "Dark";
}

function openPlace() {
  const found = /^#case-(\d+)$/.exec(location.hash);
  const row = found && rows.find((each) => each.dataset.case === found[1]);
  if (row) openCase(row);
}

byId("theme").addEventListener("click", () => {
  document.documentElement.dataset.theme = isDark() ? "light" : "dark";
  showTheme();
});
showTheme();

if (rows.length) {
  byId("tools").addEventListener("submit", (event) => event.preventDefault());
  byId("search").addEventListener("input", update);
  byId("tools").addEventListener("change", (event) => {
    update();
    if (event.target.id === "choose-class" && byId("score-title")) sortBy("score", scores.descending);
  });
  byId("table").tHead.addEventListener("click", (event) => {
    const head = event.target.closest("[data-key]");
    if (head) sortBy(head.dataset.key, sorted.key === head.dataset.key && !sorted.descending);
  });
  byId("table").tBodies[0].addEventListener("click", (event) => {
    const row = event.target.closest("tr");
    if (row) openCase(row);
  });
  document.addEventListener("click", (event) => {
    const dot = event.target.closest(".dot[data-case]");
    if (!dot) return;
    openCase(rows.find((row) => row.dataset.case === dot.dataset.case));
    byId("viewer").scrollIntoView({ block: "start" });
  });
  document.addEventListener("keydown", onKey);
  byId("layers").addEventListener("change", (event) => {
    stopFlicker();
    showLayer(event.target.value);
  });
  byId("flicker").addEventListener("click", toggleFlicker);
  byId("volume").addEventListener("click", toggleVolumes);
  byId("marks").addEventListener("input", (event) => {
    if (event.target.name === "mark") change({ mark: event.target.value });
    else if (event.target.id === "grade") change({ grade: event.target.value === "" ? null : Number(event.target.value) });
    else change({ note: event.target.value });
  });
  byId("save-json").addEventListener("click", () => download("marks.json", "application/json", marksAsJson()));
  byId("save-csv").addEventListener("click", () => download("marks.csv", "text/csv", marksAsCsv()));
  byId("load").addEventListener("change", (event) => event.target.files[0] && loadMarks(event.target.files[0]));
  addEventListener("hashchange", openPlace);
  rows.forEach(showMarkIn);
  update();
  openCase(rows[0]);
  openPlace();
}
