"use strict";
// Shared by the scripts of the page, which follow one another in one. Names are set as text, never as HTML.


const byId = (id) => document.getElementById(id);
const rows = byId("table") ? Array.from(byId("table").tBodies[0].rows) : [];
const scores = JSON.parse(byId("table-data").textContent);
let chosen = null; // the row that is shown

function element(name, text, attributes = {}) {
  const made = document.createElement(name);
  if (text) made.textContent = text;
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  return made;
}

function say(text) {
  byId("message").textContent = text;
}
