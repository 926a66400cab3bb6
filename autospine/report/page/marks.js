// Marks: {case: {mark, grade, note}}, kept in this browser until they are saved as a file.

const MARKS = ["", "pass", "fail", "artefact"];
const STORE = "autospine-report:" + document.body.dataset.report;
const marks = readMarks();

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
  update();
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

function save(name, kind, text) {
  download(name, kind, text);
  const n = rows.filter((row) => marks.has(row.dataset.name)).length;
  const others = marks.size - n;
  const more = others && name.endsWith(".json") ? `, and marks of ${others} that are not here` : "";
  say(n || more ? `saved as ${name}: ${n} of ${rows.length} cases have marks${more}` : `${name} is empty, as no case is marked`);
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
    update();
    const here = rows.filter((row) => loaded.has(row.dataset.name)).length;
    const others = loaded.size - here;
    say(`marks of ${here === 1 ? "1 case" : `${here} cases`} loaded` + (others ? `, and of ${others} that are not here` : ""));
  } catch (error) {
    say(`${file.name} has no marks that can be read: ${error.message}`);
  }
}
