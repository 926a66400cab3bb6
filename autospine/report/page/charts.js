// Charts by keys: a chart is one stop of the Tab key, arrows go from point to point, and Enter opens the case.

function pointName(dot) {
  return dot.querySelector("title").textContent;
}

function readPoint(chart, dot) {
  const before = chart.querySelector(".dot.current");
  if (before) before.classList.remove("current");
  dot.classList.add("current");
  chart.setAttribute("aria-activedescendant", dot.id);
  chart.nextElementSibling.textContent = pointName(dot);
}

function onChartKey(event) {
  const chart = event.currentTarget;
  const dots = Array.from(chart.querySelectorAll(".dot[data-case]"));
  const at = dots.findIndex((dot) => dot.classList.contains("current"));
  if (event.key === "ArrowRight" || event.key === "ArrowDown") readPoint(chart, dots[Math.min(at + 1, dots.length - 1)]);
  else if (event.key === "ArrowLeft" || event.key === "ArrowUp") readPoint(chart, dots[Math.max(at - 1, 0)]);
  else if (event.key === "Home") readPoint(chart, dots[0]);
  else if (event.key === "End") readPoint(chart, dots[dots.length - 1]);
  else if ((event.key === "Enter" || event.key === " ") && at >= 0) openPoint(dots[at]);
  else return;
  event.preventDefault();
}

function openPoint(dot) {
  openCase(rows.find((row) => row.dataset.case === dot.dataset.case));
  byId("viewer").scrollIntoView({ block: "start" });
  byId("viewer").focus({ preventScroll: true });
}

function readCharts() {
  for (const [number, chart] of document.querySelectorAll("svg.chart").entries()) {
    const dots = chart.querySelectorAll(".dot[data-case]");
    if (!dots.length) continue;
    for (const [at, dot] of dots.entries()) {
      dot.id = `point-${number}-${at}`;
      dot.setAttribute("role", "option");
      dot.setAttribute("aria-label", pointName(dot));
    }
    chart.setAttribute("role", "listbox");
    chart.setAttribute("tabindex", "0");
    chart.after(element("p", "", { class: "reading", "aria-hidden": "true" }));
    chart.addEventListener("keydown", onChartKey);
    chart.addEventListener("focus", () => chart.querySelector(".dot.current") || readPoint(chart, dots[0]));
  }
}
