// The transport explorer: pick a pixel, see its cheapest paths; move a unit count, see the border move.

import { button, change, choice, element, group, linked, pointable, remembered, scheduled, slider, steps, toggle } from "./panel.js";
import { halves, unrolled } from "./bundle.js";
import { pathTo, solved } from "./transport.js";
import { colourOf, css, edgesOf, heatOf, paint, raster, svgText } from "./drawing.js";
import { exports } from "./export.js";

const LARGE_SIDE = 512; // canvas pixels of the longer side
const SOLVING = ["beta", "solver", "epsilon", "rounds", "thing", "factor"];
const EPSILONS = [0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1];
const FACTORS = [0.1, 0.2, 0.3, 0.5, 0.7, 0.85, 1, 1.2, 1.5, 2, 3, 5, 10];
export const STATE = { picture: 0, point: [64.5, 64.5], beta: 0.1, solver: "sinkhorn", epsilon: 0.001, rounds: 80, thing: 0,
  factor: 1, layer: "owners", opacity: 0.55, show_nearest: true, show_truth: false };

export function read(raw) {
  const pixels = raw.width * raw.height;
  return { ...raw, demand: halves(raw.demand),
    steps: Object.fromEntries(Object.entries(raw.steps).map(([name, text]) => [name, halves(text)])),
    truth: raw.truth.objects.filter((o) => o.thing).map((o) => unrolled(o.runs, pixels)) };
}

export function render({ model, el }) {
  const view = { model, el, picture: null };
  view.state = () => Object.fromEntries(Object.keys(STATE).map((name) => [name, model.get(name)]));
  view.compute = remembered(solved);
  view.redraw = scheduled(() => drawTransport(view));
  lay(view);
  Object.keys(STATE).forEach((name) => model.on(`change:${name}`, () => view.redraw()));
  model.on("change:picture", () => openPicture(view));
  const follow = () => change(model, linked(model, STATE, "transport").read());
  addEventListener("hashchange", follow);
  follow();
  openPicture(view);
  return () => removeEventListener("hashchange", follow);
}

export default { render };

function lay(view) {
  const { model, el } = view, size = () => [view.picture?.width ?? 1, view.picture?.height ?? 1];
  el.classList.add("pointseg-explorer");
  view.status = element("p", { class: "ps-status", role: "status", "aria-live": "polite" });
  view.table = element("div", { class: "ps-table", tabindex: 0, role: "region", "aria-label": "Points and what they offer" });
  view.large = pointable({
    label: "Picture with a pixel. Arrow keys move the pixel by one cell, with Shift by one pixel.",
    size, stride: () => view.picture?.stride ?? 1, point: () => model.get("point"), move: (point) => change(model, { point }),
  });
  view.controls = transportControls(view);
  const pick = (picture) => change(model, { ...STATE, picture, point: model.get("entries")[picture].start });
  view.pictures = choice(model, { name: "picture", label: "Picture",
    options: () => model.get("entries").map((p, i) => [i, p.title]), pick });
  const top = element("div", { class: "ps-top" }, view.pictures.element,
    button("Reset", () => pick(model.get("picture"))),
    button("Link to this", () => history.replaceState(null, "", linked(model, STATE, "transport").address())),
    exports("pointseg-transport", view.large, () => svgText(view.raw.image, [view.picture.width, view.picture.height],
      view.shapes, LARGE_SIDE / view.picture.width, "pointseg"), () => ({ ...view.state(), potentials: view.found.potentials })));
  el.replaceChildren(top, element("div", { class: "ps-views" }, element("figure", {}, view.large, element("figcaption", {},
    "Colours: which point owns a cell. The lines are the cheapest paths from the two points that bid best for the pixel. ",
    "White: the border without transport.")), element("div", { class: "ps-controls" }, ...view.controls.elements)),
  view.table, view.status);
}

function transportControls(view) {
  const { model } = view, last = () => (view.picture?.things.length ?? 1) - 1;
  const line = (settings) => slider(model, settings), on = () => model.get("solver") !== "none";
  const groups = [
    ["1 Cost", [
      line({ name: "beta", label: "β", hint: "weight of the boundary map, Eq. 3", options: () => [0, 0.01, 0.05, 0.1, 0.2, 0.5, 1],
        text: String }),
    ]],
    ["2 Transport", [
      choice(model, { name: "solver", label: "Owner", hint: "who gets a cell",
        options: () => [["sinkhorn", "transport, Sinkhorn"], ["none", "the nearest point"]] }),
      line({ name: "rounds", label: "Rounds", hint: "of Sinkhorn; Table A2", options: steps(0, 120, 10), when: on }),
      line({ name: "epsilon", label: "ε", hint: "how much entropy the plan keeps", options: () => EPSILONS, text: String, when: on }),
    ]],
    ["3 Units", [
      line({ name: "thing", label: "Point", hint: "whose units are changed", when: on,
        options: () => steps(0, last(), 1)(), text: (v) => String(v + 1) }),
      line({ name: "factor", label: "Units ×", hint: "times the number that was counted; all are scaled to the whole", when: on,
        options: () => FACTORS, text: String }),
    ]],
    ["Show", [
      choice(model, { name: "layer", label: "Layer", hint: "what covers the picture",
        options: () => [["owners", "owners"], ["cost", "cost from the chosen point"], ["picture", "nothing"]] }),
      line({ name: "opacity", label: "Opacity", hint: "of the layer", options: steps(0, 1, 0.05), text: (v) => v.toFixed(2) }),
      toggle(model, { name: "show_nearest", label: "border without transport" }),
      toggle(model, { name: "show_truth", label: "true outlines" }),
    ]],
  ];
  const all = groups.flatMap(([, list]) => list);
  return { elements: groups.map(([title, list]) => group(title, ...list.map((c) => c.element))),
    refresh: () => all.forEach((c) => c.refresh()) };
}

async function openPicture(view) {
  const { model } = view, wanted = model.get("picture");
  try {
    const raw = await model.load(wanted);
    if (wanted !== model.get("picture") || raw === view.raw) return view.redraw();
    const image = new Image();
    image.src = raw.image;
    await image.decode();
    Object.assign(view, { raw, image, picture: read(raw) });
    view.redraw();
  } catch (error) {
    view.status.textContent = `This picture could not be opened: ${error.message}`;
  }
}

function drawTransport(view) {
  view.pictures.refresh();
  view.controls.refresh();
  const { picture, image, el } = view;
  if (!picture) return;
  const began = performance.now(), state = view.state();
  const key = JSON.stringify([state.picture, ...SOLVING.map((name) => state[name])]);
  const found = (view.found = view.compute(key, picture, state));
  const cell = cellAt(picture, state.point), bids = bidsFor(found, cell);
  view.shapes = shapesOfTransport(picture, state, found, cell, bids);
  paint(view.large, image, [picture.width, picture.height], view.shapes, LARGE_SIDE / Math.max(picture.width, picture.height));
  view.table.replaceChildren(bidTable(picture, found, cell, bids));
  view.status.textContent = saidOf(picture, found, cell, bids);
  el.dataset.drawn = String(Number(el.dataset.drawn ?? 0) + 1);
  el.dataset.milliseconds = (performance.now() - began).toFixed(1);
}

export function cellAt({ grid: [h, w], width, height }, [x, y]) {
  const at = (v, whole, n) => Math.min(Math.max(Math.trunc((v * n) / whole), 0), n - 1);
  return at(y, height, h) * w + at(x, width, w);
}

// Things in the order of what they bid for a cell, the best first.
function bidsFor({ cost, potentials }, cell) {
  const bid = (i) => cost[i][cell] - potentials[i];
  return cost.map((_, i) => i).sort((a, b) => bid(a) - bid(b));
}

function shapesOfTransport(picture, state, found, cell, bids) {
  const { grid, stride, things, width } = picture, shapes = [], layer = layerOfTransport(picture, state, found);
  if (layer) shapes.push(layer);
  if (state.show_truth) for (const mask of picture.truth) shapes.push({ kind: "edges", edges: edgesOf(mask, width), colour: "#000", width: 2 });
  if (state.show_nearest) shapes.push(...borders(found.nearest, grid, stride));
  const centre = (c) => [((c % grid[1]) + 0.5) * stride, (Math.floor(c / grid[1]) + 0.5) * stride];
  for (const i of bids.slice(0, 2).reverse()) {
    const points = pathTo(found.paths[i], cell).map(centre);
    shapes.push({ kind: "line", points, colour: "#fff", width: 6 }, { kind: "line", points, colour: css(colourOf(i)), width: 3 });
  }
  things.forEach(({ point }, i) => shapes.push({ kind: "dot", at: point, colour: css(colourOf(i)), radius: 7 }));
  return [...shapes, { kind: "star", at: state.point, radius: 9 }];
}

function layerOfTransport({ grid, stride, demand }, { layer, opacity, thing }, { cost, owner }) {
  if (layer === "owners") return raster(grid, stride, (j) => (owner[j] < 0 ? null : colourOf(owner[j])), opacity);
  if (layer !== "cost") return null;
  const row = cost[Math.min(thing, cost.length - 1)], top = Math.max(...row.filter((_, j) => demand[j] > 0), 1e-9);
  return raster(grid, stride, (j) => (demand[j] > 0 ? heatOf(row[j] / top) : null), opacity);
}

// Lines between cells of different owners.
function borders(owner, [h, w], stride) {
  const lines = [], differs = (a, b) => owner[a] >= 0 && owner[b] >= 0 && owner[a] !== owner[b];
  for (let i = 0; i < h * w; i++) {
    const x = i % w, y = Math.floor(i / w);
    if (x + 1 < w && differs(i, i + 1)) lines.push([[x + 1, y], [x + 1, y + 1]]);
    if (y + 1 < h && differs(i, i + w)) lines.push([[x, y + 1], [x + 1, y + 1]]);
  }
  return lines.map((points) => ({ kind: "line", points: points.map((p) => p.map((v) => v * stride)), colour: "#fff", width: 2 }));
}

function bidTable({ things, demand }, { cost, potentials, units, nearest, owner }, cell, bids) {
  const held = (owners, i) => owners.reduce((n, o, j) => n + (o === i ? demand[j] : 0), 0).toFixed(0);
  const head = ["point", "cost c", "potential u", "c - u", "units", "cells, nearest", "cells, transport"];
  const rows = things.map(({ name }, i) => element("tr", { class: i === bids[0] ? "ps-kept" : "" },
    element("th", { scope: "row" }, element("span", { class: "ps-swatch", style: `background:${css(colourOf(i))}` }), `${i + 1} ${name}`),
    ...[cost[i][cell].toFixed(4), potentials[i].toFixed(4), (cost[i][cell] - potentials[i]).toFixed(4), units[i].toFixed(0),
      held(nearest, i), held(owner, i)].map((text) => element("td", {}, text))));
  return element("table", {}, element("caption", {}, "What the points bid for the chosen pixel; the smallest c - u owns it"),
    element("thead", {}, element("tr", {}, ...head.map((text) => element("th", { scope: "col" }, text)))), element("tbody", {}, ...rows));
}

function saidOf({ things, demand }, { nearest, owner }, cell, bids) {
  const moved = owner.reduce((n, o, j) => n + (o !== nearest[j] ? 1 : 0), 0);
  const which = demand[cell] > 0 ? `The pixel belongs to point ${bids[0] + 1}, ${things[bids[0]].name}.` : "The pixel is ground: no point bids for it.";
  return `${which} Transport gives ${moved} of ${owner.length} cells to another point than the nearest.`;
}
