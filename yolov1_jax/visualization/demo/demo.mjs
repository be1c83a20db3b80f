// The page: an image in, its boxes drawn, and what each cell of the grid predicts.

import { bestLabel, candidates, scoredBoxes } from "./detections.mjs";
import { openNetwork } from "./network.mjs";

const element = (id) => document.getElementById(id);
const settings = await (await fetch("settings.json")).json();
const [rows, columns, boxesPerCell] = settings.grid;
const network = openNetwork(settings); // the page works while it loads
const canvas = element("image");
const MAX_SHOWN = 1600; // pixels of its longer side
let turn = 0; // of the image shown; what an earlier one still computes is left out
let boxes = []; // every box of the network, see scoredBoxes
let cell = null; // the chosen one: {row, column}
let camera = null; // its MediaStream

/** A new element with a class, text or child elements, and style variables. */
function make(tag, className, content = [], style = {}) {
  const made = document.createElement(tag);
  made.className = className;
  made.append(...[content].flat());
  for (const [name, value] of Object.entries(style)) made.style.setProperty(name, value);
  return made;
}

const number = (value) => value.toFixed(Math.abs(value) < 0.1 ? 3 : 2);
const percent = (value) => `${(100 * value).toFixed(3)}%`;
const named = (label, value) => `${settings.class_names[label]} ${number(value)}`;
const colour = (label) => settings.colours[label % settings.colours.length];
const cellName = ({ row, column }) => `row ${row + 1}, column ${column + 1}`;

function say(text, isError = false) {
  element("message").textContent = text;
  element("message").classList.toggle("error", isError);
}

// --- Images -----------------------------------------------------------------------------------

/** Shows an image, or a frame of the camera with its boxes, and the boxes as soon as they are known. */
async function show(mine, source, width, height, file) {
  if (width * height > settings.max_pixels) {
    throw Error(`The image has more than ${settings.max_pixels / 1e6} million pixels.`);
  }
  const frame = Object.assign(document.createElement("canvas"), { width, height });
  frame.getContext("2d", { willReadFrequently: true }).drawImage(source, 0, 0);
  if (file) reveal(frame, []);
  const predictions = await (await network)(frame, file);
  if (mine === turn) reveal(frame, scoredBoxes(predictions, settings));
}

function reveal(frame, found) {
  const scale = Math.min(1, MAX_SHOWN / Math.max(frame.width, frame.height));
  canvas.width = Math.round(scale * frame.width);
  canvas.height = Math.round(scale * frame.height);
  canvas.getContext("2d").drawImage(frame, 0, 0, canvas.width, canvas.height);
  element("stage").style.setProperty("--ratio", frame.width / frame.height);
  element("hint").hidden = true;
  canvas.hidden = element("grid").hidden = false;
  boxes = found;
  draw();
}

async function showFile(file) {
  const mine = ++turn;
  stopCamera();
  say("Detecting ...");
  try {
    const image = await createImageBitmap(file, { colorSpaceConversion: "none" }).catch(() => {
      throw Error("This browser cannot read the file as an image.");
    });
    if (mine === turn) await show(mine, image, image.width, image.height, file);
  } catch (error) {
    if (mine === turn) say(error.message, true);
  }
}

async function startCamera() {
  const mine = ++turn;
  try {
    if (!navigator.mediaDevices) throw Error("The browser gives the camera to https pages and to localhost only.");
    camera = await navigator.mediaDevices.getUserMedia({ video: { facingMode: "environment" } });
    if (mine !== turn) return stopCamera(); // an image was chosen in the meantime
    element("camera").textContent = "Stop the camera";
    const video = Object.assign(document.createElement("video"), { srcObject: camera, muted: true, playsInline: true });
    await video.play();
    while (mine === turn) {
      await show(mine, video, video.videoWidth, video.videoHeight);
      await new Promise(requestAnimationFrame);
    }
  } catch (error) {
    if (mine !== turn) return;
    stopCamera();
    say(error.message, true);
  }
}

function stopCamera() {
  camera?.getTracks().forEach((track) => track.stop());
  camera = null;
  element("camera").textContent = "Use the camera";
}

// --- Boxes and cells --------------------------------------------------------------------------

/** A rectangle over the image: one of the "boxes" that are kept, or of the cell that is "shown". */
function drawBox(layer, className, [left, top, right, bottom], text, style = {}) {
  const place = { left: percent(left), top: percent(top), width: percent(right - left), height: percent(bottom - top) };
  const box = make("div", className, make("span", "", text), { ...place, ...style });
  box.classList.toggle("at-top", top < 0.06);
  box.classList.toggle("at-bottom", bottom > 0.94);
  box.classList.toggle("at-right", left > 0.8);
  element(layer).append(box);
}

function draw() {
  const found = candidates(boxes, settings);
  const kept = found.filter((one) => one.by === null);
  element("boxes").replaceChildren();
  element("shown").replaceChildren();
  for (const { box, label, score } of kept.toReversed()) {
    const [red, green, blue] = colour(label).match(/\w\w/g).map((digits) => parseInt(digits, 16));
    const ink = 0.3 * red + 0.6 * green + 0.1 * blue > 140 ? "#000" : "#fff";
    const above = kept.filter((one) => one.box === box && one.score > score).length; // its other classes
    drawBox("boxes", "box", box.xyxy, named(label, score), { "--colour": colour(label), "--ink": ink, "--above": above });
  }
  for (const name of ["score", "iou"]) element(`${name}-value`).textContent = (+element(name).value).toFixed(2);
  const names = kept.slice(0, 10).map(({ label, score }) => named(label, score)).join(", ");
  const counts = `${boxes.length} boxes, ${found.length} from the threshold on, ${kept.length} after NMS`;
  if (boxes.length) say(names ? `${counts}: ${names}${kept.length > 10 ? ", ..." : ""}` : counts);
  explain(found);
}

/** What the chosen cell predicts, and what became of each of its boxes. */
function explain(found) {
  const own = cell === null ? [] : boxes.filter((box) => box.row === cell.row && box.column === cell.column);
  if (!own.length) {
    element("cell").replaceChildren(make("h2", "", "A cell of the grid"),
      make("p", "soft", "Click on the image: each cell predicts boxes and one distribution over the classes."));
    return;
  }
  const corners = [cell.column / columns, cell.row / rows, (cell.column + 1) / columns, (cell.row + 1) / rows];
  drawBox("shown", "cell", corners, "");
  const parts = [make("h2", "", `Cell in ${cellName(cell)}`)];
  for (const box of own) {
    drawBox("shown", "box", box.xyxy, `box ${box.k + 1}`);
    const mine = found.filter((one) => one.box === box);
    const verdicts = mine.length ? mine : [{ box, label: bestLabel(box.scores) }];
    parts.push(make("div", "predicted", [make("h3", "", `Box ${box.k + 1}`), ...verdicts.map(verdict)]));
  }
  const classes = own[0].classes.map((value, label) => [value, label]);
  const shown = classes.sort(([one], [other]) => other - one).slice(0, 20);
  parts.push(make("h2", "", "Class, if there is an object"), ...shown.map(([value, label]) =>
    make("div", "class", [make("span", "", settings.class_names[label]),
      make("div", "", [], { width: percent(Math.min(1, Math.max(0, value))), "--colour": colour(label) }),
      make("span", "number", number(value))])));
  element("cell").replaceChildren(...parts);
}

/** Of a box and a class: the score as a product, and why it is kept or not; `by` as of candidates. */
function verdict({ box, label, by, iou }) {
  const score = number(box.confidence * box.classes[label]);
  const product = `confidence ${number(box.confidence)} × ${named(label, box.classes[label])} = ${score}: `;
  let reason = [`below the threshold of ${settings.score_threshold.toFixed(2)}`];
  if (!box.hasArea) reason = ["no area within the image"];
  if (by === null) reason = [make("span", "kept", "kept")];
  if (by) {
    const link = make("button", "link", `box ${by.box.k + 1} of ${cellName(by.box)}`);
    link.onclick = () => choose(by.box);
    reason = [`suppressed, IoU ${number(iou)} with `, link];
  }
  return make("p", "", [product, make("span", "reason", reason)]);
}

/** Chooses a cell, or the nearest one to a place beside the grid. */
function choose({ row, column }) {
  const limit = (value, count) => Math.max(0, Math.min(count - 1, value));
  cell = { row: limit(row, rows), column: limit(column, columns) };
  draw();
}

// --- Start ------------------------------------------------------------------------------------

document.title = element("title").textContent = settings.title;
const { class_names: names, image_size: side, step } = settings;
element("subtitle").textContent = `${names.length} classes · ${rows} × ${columns} cells of ${boxesPerCell} boxes · `
  + `${side} × ${side} pixels · step ${step.toLocaleString("en")}`;
element("privacy").textContent = settings.model
  ? "The network runs in this browser: images do not leave it."
  : "Images go to the program that serves this page, and no further; it keeps none.";
for (const [name, key] of [["score", "score_threshold"], ["iou", "nms_iou_threshold"]]) {
  element(name).value = settings[key];
  element(name).oninput = (event) => {
    settings[key] = Number(event.target.value);
    draw();
  };
}
explain([]);
const grid = element("grid");
grid.style.backgroundSize = `${percent(1 / columns)} ${percent(1 / rows)}`;
grid.onclick = ({ offsetX, offsetY }) => choose({
  row: Math.floor((rows * offsetY) / grid.clientHeight),
  column: Math.floor((columns * offsetX) / grid.clientWidth),
});
grid.onkeydown = (event) => {
  const moves = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] };
  if (!(event.key in moves)) return;
  event.preventDefault();
  const [down, right] = cell ? moves[event.key] : [0, 0];
  choose({ row: (cell?.row ?? 0) + down, column: (cell?.column ?? 0) + right });
};
element("file").onchange = (event) => event.target.files[0] && showFile(event.target.files[0]);
element("camera").onclick = () => {
  if (!camera) return startCamera();
  turn++;
  stopCamera();
};
document.ondragover = (event) => {
  event.preventDefault();
  element("stage").classList.add("dropping");
};
document.ondragleave = () => element("stage").classList.remove("dropping");
document.ondrop = (event) => {
  event.preventDefault();
  element("stage").classList.remove("dropping");
  if (event.dataTransfer.files[0]) showFile(event.dataTransfer.files[0]);
};
document.onpaste = (event) => event.clipboardData.files[0] && showFile(event.clipboardData.files[0]);
async function showExample(url) {
  const mine = ++turn;
  const file = await (await fetch(url)).blob();
  if (mine === turn) await showFile(file);
}
for (const url of settings.examples) {
  const button = make("button", "", Object.assign(new Image(), { src: url, alt: "example" }));
  button.onclick = () => showExample(url);
  element("examples").append(button);
}
if (settings.examples.length) showExample(settings.examples[0]);
else network.then(() => say(""), (error) => say(error.message, true));
