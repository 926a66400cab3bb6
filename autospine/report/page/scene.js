// The view of a case's volumes in 3D, which volumes.js draws, and the place that it shares with the pictures.

const NEAR_MM = 3; // a place is shown in the pictures that pass as near to it
let view = null; // what changes the open view: its layer, and its place

function closeVolumes() {
  const canvas = byId("canvas").querySelector("canvas");
  const context = canvas && canvas.getContext("webgl2");
  if (context) context.getExtension("WEBGL_lose_context").loseContext(); // a browser has few of them
  byId("canvas").replaceChildren();
  byId("scene").hidden = true;
  byId("volume").setAttribute("aria-pressed", "false");
  for (const ring of byId("pictures").querySelectorAll(".place")) ring.remove();
  view = null;
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
  byId("place").textContent = "";
  byId("scene-note").textContent = "loading";
  try {
    const opened = await showVolumes(canvas, data, (place) => canvas.isConnected && showPlace(place, data));
    if (chosen !== row || !canvas.isConnected) return;
    view = opened;
    view.show(layer);
    view.moveTo(data.place);
    byId("scene-note").textContent = data.note + (data.reference ? "; for differences it shows the prediction" : "");
  } catch (error) {
    if (!canvas.isConnected) return; // another case is open by now
    byId("canvas").replaceChildren();
    byId("scene-note").textContent = `No view in 3D: ${error.message}`;
  }
}

// Say which place the crosshair is at and what is labelled there, and ring it in the pictures.
function showPlace({ voxel, labels }, data) {
  const mm = data.origin_mm.map((at, k) => at + voxel.reduce((sum, n, axis) => sum + n * data.axes_mm[axis][k], 0));
  const [x, y, z] = mm.map((value) => value.toFixed(1));
  const named = Object.entries(labels).map(([layer, name]) => `${layer}: ${name}`);
  byId("place").textContent = [`x ${x}, y ${y}, z ${z} mm (LPS)`, ...named].join("; ");
  for (const figure of byId("pictures").children) ringIn(figure, voxel, data);
}

function ringIn(figure, voxel, data) {
  const stack = figure.querySelector(".stack");
  let ring = stack.querySelector(".place");
  if (!ring) {
    ring = element("span", "", { class: "place" });
    stack.append(ring);
  }
  const at = inPicture(figure.picture, voxel, data);
  ring.hidden = !at;
  if (!at) return;
  ring.style.top = `${100 * at[0]}%`;
  ring.style.left = `${100 * at[1]}%`;
}

// Where a picture shows a voxel, as shares of its height and width; null if it passes elsewhere.
function inPicture(picture, voxel, data) {
  if (!picture.edge.length) return null;
  const first = picture.edge[0];
  const down = picture.edge[picture.edge.length - 1].map((value, k) => value - first[k]);
  const rowAxis = picture.plane === "axial" ? 1 : 0;
  const columnAxis = picture.plane === "sagittal" ? 1 : 2;
  const height = (voxel[rowAxis] - first[rowAxis]) / down[rowAxis];
  if (!(height >= 0 && height <= 1)) return null;
  const left = edgeAt(picture, height);
  const width = (voxel[columnAxis] - left[columnAxis]) / picture.across[columnAxis];
  if (!(width >= 0 && width <= 1)) return null;
  const through = 3 - rowAxis - columnAxis;
  const mm = Math.abs(voxel[through] - left[through]) * Math.hypot(...data.axes_mm[through]);
  return mm <= NEAR_MM ? [height, width] : null;
}

// The voxel at the left edge of a picture, at a share of its height.
function edgeAt(picture, height) {
  const at = height * (picture.edge.length - 1);
  const before = Math.min(Math.floor(at), picture.edge.length - 2);
  return picture.edge[before].map((value, k) => value + (at - before) * (picture.edge[before + 1][k] - value));
}

// Move the crosshair of the open view to where a picture is clicked.
function moveToPicture(event) {
  const stack = event.target.closest(".stack");
  const figure = event.target.closest("figure");
  if (!view || !stack || !figure.picture.edge.length) return;
  const box = stack.getBoundingClientRect();
  const height = Math.min(Math.max((event.clientY - box.top) / box.height, 0), 1);
  const width = Math.min(Math.max((event.clientX - box.left) / box.width, 0), 1);
  view.moveTo(edgeAt(figure.picture, height).map((value, k) => value + width * figure.picture.across[k]));
}
