// Keys, and what is pressed.

function keysApply(event) {
  if (!byId("keys").checked || event.ctrlKey || event.altKey || event.metaKey) return false;
  const target = event.target;
  if (event.key.startsWith("Arrow") && target.matches("#details .scroll")) return false; // they scroll it
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
  else if (!chosen || chosen.hidden) return;
  else if (key === "f") change({ mark: MARKS[(MARKS.indexOf(markOf(chosen).mark) + 1) % MARKS.length] });
  else if (/^[0-9]$/.test(key)) change({ grade: Number(key) });
  else if (key === "n") writeNote();
  else return;
  event.preventDefault();
}

// The field comes into view by the shortest way, so that the case stays in view too.
function writeNote() {
  byId("note").focus({ preventScroll: true });
  byId("marks").scrollIntoView({ block: "nearest" });
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
addCopyButtons();

if (rows.length) {
  readCharts();
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
    openPoint(dot);
  });
  document.addEventListener("keydown", onKey);
  byId("layers").addEventListener("change", (event) => {
    stopFlicker();
    showLayer(event.target.value);
  });
  byId("flicker").addEventListener("click", toggleFlicker);
  byId("larger").addEventListener("click", toggleSize);
  byId("volume").addEventListener("click", toggleVolumes);
  byId("pictures").addEventListener("click", moveToPicture);
  byId("marks").addEventListener("input", (event) => {
    if (event.target.name === "mark") change({ mark: event.target.value });
    else if (event.target.id === "grade") change({ grade: event.target.value === "" ? null : Number(event.target.value) });
    else change({ note: event.target.value });
  });
  byId("save-json").addEventListener("click", () => save("marks.json", "application/json", marksAsJson()));
  byId("save-csv").addEventListener("click", () => save("marks.csv", "text/csv", marksAsCsv()));
  byId("load").addEventListener("change", async (event) => {
    const [file] = event.target.files;
    if (file) await loadMarks(file);
    event.target.value = ""; // so that the same file can be loaded again
  });
  addEventListener("hashchange", openPlace);
  rows.forEach(showMarkIn);
  update();
  openCase(rows[0], false); // the page begins at its top
  openPlace();
}
