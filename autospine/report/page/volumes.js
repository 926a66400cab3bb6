// The volumes of a case in NiiVue, on demand: all that the page asks of that library is in this file.

const PREDICTION = 1; // positions of the volumes in the scene; the image is 0
const REFERENCE = 2;

async function inflated(text) {
  const bytes = Uint8Array.from(atob(text), (mark) => mark.charCodeAt(0));
  return new Response(new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"))).arrayBuffer();
}

async function loadNiivue() {
  if (globalThis.niivue) return;
  const script = document.createElement("script");
  // The page's policy lets this script run by its digest.
  script.textContent = new TextDecoder().decode(await inflated(document.getElementById("viewer-library").textContent.trim()));
  document.head.append(script);
}

function hasWebGl() {
  return document.createElement("canvas").getContext("webgl2") !== null;
}

// A colour table of labels: index 0 is clear, the others are those of the legend.
function labelTable(classes) {
  const table = { R: [0], G: [0], B: [0], A: [0], I: [0], labels: ["background"] };
  for (const [index, { name, colour }] of classes.entries()) {
    const value = parseInt(colour.slice(1), 16);
    table.R.push(value >> 16);
    table.G.push((value >> 8) & 255);
    table.B.push(value & 255);
    table.A.push(255);
    table.I.push(index + 1);
    table.labels.push(name);
  }
  return table;
}

// Voxels (S, P, L) of the whole image, and shares of the reduced volume from right to left, back to front, feet to head.

function voxelAt(share, { start, step, count }) {
  const along = [share[2], 1 - share[1], 1 - share[0]];
  return along.map((part, k) => start[k] + (part * count[k] - 0.5) * step[k]);
}

function shareOf(voxel, { start, step, count }) {
  const [s, p, l] = voxel.map((at, k) => Math.min(Math.max(((at - start[k]) / step[k] + 0.5) / count[k], 0), 1));
  return [1 - l, 1 - p, s];
}

// Show the volumes of a case; return what changes their layer and place, or throw where that is impossible.
async function showVolumes(canvas, volumes, onPlace) {
  if (!hasWebGl()) throw new Error("this browser has no WebGL 2; the pictures show the same case");
  await loadNiivue();
  const viewer = new niivue.Niivue({
    backColor: [0, 0, 0, 1],
    show3Dcrosshair: true,
    multiplanarShowRender: 1, // always
    multiplanarLayout: 2, // two by two
    isRadiologicalConvention: true, // as in the pictures: the patient's right at the left,
    sagittalNoseLeft: true, // and anterior at the left
    crosshairWidth: 0.4,
    crosshairColor: [1, 0.82, 0.4, 1], // that of the ring in the pictures
    isColorbar: false,
    dragAndDropEnabled: false,
    logLevel: "silent",
  });
  await viewer.attachToCanvas(canvas);
  await viewer.loadFromArrayBuffer(await inflated(volumes.image), "image.nii");
  await viewer.loadFromArrayBuffer(await inflated(volumes.prediction), "prediction.nii");
  if (volumes.reference) await viewer.loadFromArrayBuffer(await inflated(volumes.reference), "reference.nii");
  for (const labels of viewer.volumes.slice(PREDICTION)) labels.setColormapLabel(labelTable(volumes.classes));
  viewer.setSliceType(viewer.sliceTypeMultiplanar);
  viewer.setClipPlane([0, 270, 0]); // the left half of the image is cut away in 3D, that of the labels is not
  viewer.onLocationChange = ({ frac, values }) => {
    const name = (value) => (value ? volumes.classes[Math.round(value) - 1].name : "background");
    const labels = {};
    for (const [kind, at] of Object.entries({ prediction: PREDICTION, reference: REFERENCE })) {
      if (at < values.length) labels[kind] = name(values[at].value);
    }
    onPlace({ voxel: voxelAt(frac, volumes), labels });
  };
  const moveTo = (voxel) => {
    if (voxel) viewer.scene.crosshairPos = shareOf(voxel, volumes);
    viewer.drawScene();
    viewer.createOnLocationChange();
  };
  const show = (layer) => {
    viewer.setOpacity(PREDICTION, layer === "prediction" || layer === "difference" ? 0.6 : 0);
    if (viewer.volumes.length > REFERENCE) viewer.setOpacity(REFERENCE, layer === "reference" ? 0.6 : 0);
    viewer.updateGLVolume();
  };
  return { show, moveTo };
}
