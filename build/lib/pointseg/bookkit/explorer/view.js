// The key-point-shift explorer: one picture, one point, and everything that follows from it.

import { button, change, choice, element, linked, player, pointable, remembered, scheduled } from "./panel.js";
import { decoded } from "./bundle.js";
import { tokenAt, tokenCentre } from "./grid.js";
import { DEFAULTS, finished, places, shifted } from "./labelpath.js";
import { paint, svgText } from "./drawing.js";
import { STAGES, layerOf, shapesOf } from "./shapes.js";
import { nearestDot, paintScatter } from "./scatter.js";
import { fateTable, scores, spoken } from "./results.js";
import { controls, shownRound } from "./controls.js";
import { exports } from "./export.js";

const LARGE = 512, SMALL = 72; // canvas pixels of the longer side
const SHIFTING = ["map_kind", "layer", "head", "depth", "instance_map", "foreground", "background", "seed_threshold",
  "box_threshold", "keypoints", "rounds", "alpha", "point"];
const ROUND_BY_ROUND = new Set(["parts", "kept", "mask"]);
// All that a permanent link holds.
export const STATE = { ...DEFAULTS, picture: 0, point: [64.5, 64.5], stage: "parts", opacity: 0.6,
  show_paths: true, show_box: true, show_truth: true };

export function render({ model, el }) {
  const view = { model, el, picture: null, hovered: null, rows: null };
  // null stands for an alpha without limit where JSON carries the state
  view.state = () => ({ ...Object.fromEntries(Object.keys(STATE).map((name) => [name, model.get(name)])),
    alpha: model.get("alpha") ?? Infinity });
  view.compute = remembered((picture, state) => {
    const found = shifted(picture, state);
    return { ...found, places: places(found) };
  });
  view.redraw = scheduled(() => draw(view));
  build(view);
  const wake = () => view.redraw();
  Object.keys(STATE).forEach((name) => model.on(`change:${name}`, wake));
  model.on("change:bundle", () => openBundle(view));
  model.on("change:picture", () => model.load && openBundle(view));
  model.on("msg:custom", (message) => {
    if (message.kind === "rows") takeRows(view, message);
    if (message.kind === "refused") view.status.textContent = message.text;
  });
  const theme = new MutationObserver(wake); // the scatter plot takes its line colour from the page
  theme.observe(document.documentElement, { attributeFilter: ["data-theme", "class"] });
  const follow = () => change(model, linked(model, STATE).read());
  if (model.get("links")) {
    addEventListener("hashchange", follow);
    follow();
  }
  openBundle(view);
  return () => {
    removeEventListener("hashchange", follow);
    theme.disconnect();
    view.play.stop();
  };
}

export default { render };

function build(view) {
  const { model, el } = view;
  el.classList.add("pointseg-explorer");
  view.status = element("p", { class: "ps-status", role: "status", "aria-live": "polite" });
  view.numbers = element("dl", { class: "ps-scores" });
  view.table = element("div", { class: "ps-table", tabindex: 0, role: "region", "aria-label": "Key-points" });
  view.large = largePicture(view);
  view.scatter = scatterPlot(view);
  view.stages = stageButtons(view);
  view.play = player("Play the shift", (first) => advance(model, first));
  view.controls = controls(model, () => view.picture, view.play.element);
  view.top = topRow(view);
  const canvases = element("div", { class: "ps-views" },
    element("figure", {}, view.large, view.caption = element("figcaption")),
    element("figure", {}, view.scatter, element("figcaption", {},
      "Patch features in the plane of their two main directions; key-points with rims. Point at a dot to see its patch.")));
  const below = element("div", { class: "ps-results" }, view.numbers, view.table);
  el.replaceChildren(view.top.element, element("div", { class: "ps-stages", role: "group", "aria-label": "Stage shown" },
    ...view.stages.map((s) => s.element)), canvases, element("div", { class: "ps-controls" }, ...view.controls.elements),
  below, view.status);
}

function largePicture(view) {
  const { model } = view, size = () => [view.picture?.width ?? 1, view.picture?.height ?? 1];
  return pointable({
    label: "Picture with a point. Arrow keys move the point by one patch, with Shift by one pixel.",
    size, stride: () => view.picture?.stride ?? 1, point: () => model.get("point"),
    move: (point) => change(model, { point }),
    hover: (place) => hover(view, place && view.picture && tokenAt(place, view.picture.grid, view.picture.stride)),
  });
}

function scatterPlot(view) {
  const canvas = element("canvas", { width: 440, height: 440, class: "ps-scatter", role: "img",
    "aria-label": "Patch features in two dimensions with the key-points moving among them" });
  const near = ({ clientX, clientY }) => {
    const box = canvas.getBoundingClientRect();
    return nearestDot(canvas, view.picture, [(clientX - box.left) / box.width, (clientY - box.top) / box.height]);
  };
  canvas.addEventListener("pointermove", (event) => view.picture && hover(view, near(event)));
  canvas.addEventListener("pointerleave", () => hover(view, null));
  canvas.addEventListener("click", (event) => {
    const { grid, stride } = view.picture;
    change(view.model, { point: tokenCentre(near(event), grid, stride).map((v) => Math.floor(v) + 0.5) });
  });
  return canvas;
}

function hover(view, token) {
  if (token === view.hovered) return;
  view.hovered = token;
  view.redraw();
}

function stageButtons(view) {
  return STAGES.map(([name, label, hint]) => {
    const canvas = element("canvas", { "aria-hidden": "true" });
    const made = button("", () => change(view.model, { stage: name }), { title: hint, "data-stage": name });
    made.append(canvas, element("span", {}, label));
    return { name, canvas, hint, element: made };
  });
}

// Pictures, presets, and what concerns the whole: reset, link, saving, own pictures, points that are kept.
function topRow(view) {
  const { model } = view;
  const pictures = choice(model, { name: "picture", label: "Picture",
    options: () => model.get("entries").map((p, i) => [i, p.title]), pick: (picture) => choosePicture(view, picture) });
  const presets = choice(model, { name: "preset", label: "Try", options: () => [["", "a preset"],
    ...model.get("presets").map((p, i) => [i, p.title])], pick: (i) => i !== "" && usePreset(view, i) });
  const row = element("div", { class: "ps-top" }, pictures.element, presets.element,
    button("Reset", () => reset(view)));
  if (model.get("links")) row.append(button("Link to this", () => copyLink(view)));
  if (!model.get("links")) row.append(button("Keep this point", () => change(model, { kept: [...model.get("kept"), keptPoint(view)] })),
    uploader(model));
  row.append(exports("pointseg-explorer", view.large, () => svgOf(view), () => record(view)));
  view.preset = element("p", { class: "ps-preset", hidden: true });
  return { element: element("div", {}, row, view.preset), refresh: () => [pictures, presets].forEach((c) => c.refresh()) };
}

function usePreset(view, i) {
  const { text, state } = view.model.get("presets")[i];
  change(view.model, { ...STATE, ...state });
  view.preset.textContent = text;
  view.preset.hidden = false;
}

// Where the point stands when a picture is opened.
function startOf({ model }, picture) {
  const { start } = model.get("entries")[picture] ?? {};
  return start ?? STATE.point;
}

function reset(view) {
  const picture = view.model.get("picture");
  view.preset.hidden = true;
  change(view.model, { ...STATE, picture, point: startOf(view, picture) });
}

function choosePicture(view, picture) {
  view.preset.hidden = true;
  change(view.model, { picture, point: startOf(view, picture) });
}

function keptPoint(view) {
  return { picture: view.model.get("picture"), point: view.model.get("point"), name: view.end.object?.name ?? "" };
}

function uploader(model) {
  const input = element("input", { type: "file", accept: "image/*", "aria-label": "Own picture" });
  input.addEventListener("change", () => {
    const reader = new FileReader();
    reader.addEventListener("load", () => change(model, { upload: reader.result }));
    if (input.files[0]) reader.readAsDataURL(input.files[0]);
  });
  return element("label", { class: "ps-upload" }, element("span", {}, "Own picture"), input);
}

async function copyLink(view) {
  history.replaceState(null, "", linked(view.model, STATE).address());
  try {
    await navigator.clipboard.writeText(location.href);
    view.status.textContent = "Link copied.";
  } catch {
    view.status.textContent = "The address of this page now holds the state; copy it from there.";
  }
}

// Live, a kernel puts the picture into `bundle`; in a page, `load` of the stand-in fetches its script.
async function openBundle(view) {
  const { model } = view, load = model.load;
  const wanted = model.get("picture");
  try {
    const raw = load ? await load(wanted) : model.get("bundle");
    if (wanted !== model.get("picture") || !raw?.features || raw === view.raw) return view.redraw();
    const picture = decoded(raw), image = new Image();
    image.src = raw.image;
    await image.decode();
    if (wanted === model.get("picture")) Object.assign(view, { raw, picture, image, rows: null, number: (view.number ?? 0) + 1 });
    view.redraw();
  } catch (error) {
    view.status.textContent = `This picture could not be opened: ${error.message}`;
  }
}

// Without queries and keys in the bundle, the kernel is asked for the maps of the pointed-at token.
function askRows(view, seed) {
  if (view.picture.attention || view.rows?.token === seed || view.asked === seed) return;
  view.asked = seed;
  view.model.send?.({ kind: "rows", token: seed, picture: view.model.get("picture") });
}

function takeRows(view, { token, values }) {
  view.picture.rows = view.rows = { token, values: Float64Array.from(values) };
  view.asked = null;
  view.redraw();
}

function advance(model, first) {
  const rounds = model.get("rounds"), shown = shownRound(model);
  if (first && shown >= rounds) change(model, { step: 0 });
  else change(model, { step: shown + 1 >= rounds ? -1 : shown + 1 });
  return shownRound(model) < rounds;
}

function draw(view) {
  const { model, picture, image } = view;
  view.controls.refresh();
  view.top.refresh();
  if (!picture) return;
  const began = performance.now(), state = view.state();
  askRows(view, tokenAt(state.point, picture.grid, picture.stride));
  const key = JSON.stringify([view.number, view.rows?.token, ...SHIFTING.map((name) => String(state[name]))]);
  const found = view.found = view.compute(key, picture, state);
  const end = view.end = finished(picture, state, found);
  const size = [picture.width, picture.height], scale = LARGE / Math.max(...size);
  view.shapes = shapesOf(picture, state, found, end, view.hovered);
  paint(view.large, image, size, view.shapes, scale);
  paintScatter(view.scatter, picture, found, end, view.hovered);
  paintStages(view, state.stage, found, end);
  tell(view, state, found, end);
  timed(view, performance.now() - began);
}

// The small pictures; what a round does not move is painted again only when the rest has changed.
function paintStages(view, shown, found, end) {
  const { picture, image } = view, size = [picture.width, picture.height];
  for (const { name, canvas, element: stage } of view.stages) {
    stage.setAttribute("aria-pressed", String(name === shown));
    if (found === view.painted && !ROUND_BY_ROUND.has(name)) continue;
    const layer = layerOf(name, picture, found, end, 0.75);
    paint(canvas, image, size, layer ? [layer] : [], SMALL / Math.max(...size));
  }
  view.painted = found;
}

// How long the last drawing took, for those who measure.
function timed(view, milliseconds) {
  view.el.dataset.drawn = String(Number(view.el.dataset.drawn ?? 0) + 1);
  view.el.dataset.milliseconds = milliseconds.toFixed(1);
}

function tell(view, state, found, end) {
  const { model } = view;
  view.caption.textContent = STAGES.find(([name]) => name === state.stage)?.[2] ?? "";
  view.numbers.replaceChildren(...scores(end, found));
  view.table.replaceChildren(fateTable(end, state));
  const answer = answerOf(view.picture, found, end), text = JSON.stringify(answer);
  if (text !== view.told) change(model, answer);
  view.told = text;
  clearTimeout(view.speaking); // a screen reader hears where a movement ends, not each of its steps
  view.speaking = setTimeout(() => {
    view.status.textContent = spoken(end, found, state.point);
    if (model.get("links")) history.replaceState(null, "", linked(model, STATE).address());
  }, 400);
}

// What is found, in the form that Python reads.
function answerOf({ grid, stride }, found, end) {
  return {
    key_points: end.groups.map((g) => tokenCentre(g.token, grid, stride)),
    box: found.box,
    mask: end.mask.map(Number),
    score: { object: end.object?.name ?? null, iou: end.iou, part_recall: end.recall },
  };
}

function svgOf({ picture, image, shapes, status }) {
  const size = [picture.width, picture.height];
  return svgText(image.src, size, shapes, LARGE / Math.max(...size), status.textContent);
}

function record(view) {
  const state = view.state(), alpha = Number.isFinite(state.alpha) ? state.alpha : "inf";
  return { title: view.picture.title, state: { ...state, alpha }, ...answerOf(view.picture, view.found, view.end) };
}
