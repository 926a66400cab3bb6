// The table: search, filters and order.

let sorted = { key: "", descending: false };

function valueOf(id) {
  return byId(id) ? byId(id).value : "";
}

function scoreOf(row) {
  const name = valueOf("choose-class");
  const entry = scores.cases[row.dataset.case];
  return name ? (entry.classes[name] ?? null) : entry.mean;
}

// Cases without a result are the worst, whatever the table is filtered or ordered by.
function isFailed(row) {
  return ["failed", "no prediction"].includes(row.dataset.status);
}

function isShown(row) {
  const name = valueOf("choose-class");
  const mark = valueOf("choose-mark");
  const words = valueOf("search").toLowerCase().split(/\s+/);
  const text = `${row.textContent} ${markOf(row).note}`.toLowerCase();
  return (
    words.every((word) => text.includes(word)) &&
    ["modality", "site"].every((key) => !valueOf(`choose-${key}`) || row.dataset[key] === valueOf(`choose-${key}`)) &&
    (!name || isFailed(row) || name in scores.cases[row.dataset.case].classes) &&
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
  const all = rows.length === 1 ? "1 case" : `${rows.length} cases`;
  byId("count").textContent = n === rows.length ? all : `${n} of ${all}`;
}

function sortKey(row, key) {
  if (key === "score" && isFailed(row)) return scores.descending ? Infinity : -Infinity;
  if (key === "score") return scoreOf(row);
  if (key === "grade") return markOf(row).grade;
  if (key === "mark") return markOf(row).mark || null;
  return row.dataset[key] || null;
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
