// One case: its pictures and their layers, and its details.

const LAYERS = ["prediction", "reference", "difference", "image"];
const LAYER_NAMES = { prediction: "prediction", reference: "reference", difference: "differences", image: "image alone" };
const FLICKER_MS = 600;
const SIDES = {
  sagittal: { left: "A", right: "P" },
  coronal: { left: "R", right: "L" },
  axial: { left: "R", right: "L" },
}; // what is anterior, posterior, and the patient's right and left
let layer = "prediction";
let flickering = 0;

function openCase(row, seen = true) {
  if (chosen) {
    chosen.classList.remove("chosen");
    chosen.removeAttribute("aria-current");
  }
  chosen = row;
  row.classList.add("chosen");
  row.setAttribute("aria-current", "true");
  if (seen) row.scrollIntoView({ block: "nearest" });
  const data = JSON.parse(byId(`case-${row.dataset.case}`).textContent);
  byId("viewer").hidden = false;
  byId("case-name").textContent = data.name;
  byId("findings").replaceChildren(...data.findings.map((text) => element("li", text)));
  byId("pictures").replaceChildren(...data.pictures.map((picture) => drawn(picture, data.name)));
  const labelled = data.pictures.filter((picture) => picture.prediction);
  const there = labelled.length ? LAYERS.filter((name) => labelled.some((picture) => picture[name])) : [];
  showChoices(there);
  byId("details").replaceChildren(...details(data));
  byId("larger").hidden = !data.pictures.length;
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
  for (const [at, text] of Object.entries(SIDES[picture.plane] || {})) {
    stack.append(element("span", text, { class: `side ${at}`, "aria-hidden": "true" }));
  }
  if (!picture.image) ground.style.visibility = "hidden";
  figure.picture = picture;
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
  if (view) view.show(name);
  for (const image of document.querySelectorAll("#pictures [data-layer]")) image.hidden = image.dataset.layer !== name;
  for (const radio of document.querySelectorAll("input[name=layer]")) radio.checked = radio.value === name;
}

function nextLayer(step) {
  const there = Array.from(document.querySelectorAll("input[name=layer]"), (radio) => radio.value);
  if (!there.length) return;
  stopFlicker();
  showLayer(there[(there.indexOf(layer) + step + there.length) % there.length]);
}

function toggleSize() {
  const large = byId("pictures").classList.toggle("large");
  byId("larger").setAttribute("aria-pressed", String(large));
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
