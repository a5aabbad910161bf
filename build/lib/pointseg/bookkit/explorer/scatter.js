// Patch features in the plane of their two main directions, with the key-points moving among them.

import { colourOf, css, heatOf } from "./drawing.js";
import { projected } from "./bundle.js";

const MARGIN = 14;

// Places [T, 2] of the tokens in 0..1 and a function that brings other features there.
export function planeOf(picture) {
  if (!picture.flat) {
    const raw = projected(picture, picture.tokens);
    const span = [0, 1].map((axis) => {
      const values = raw.filter((_, i) => i % 2 === axis);
      return [Math.min(...values), Math.max(...values)];
    });
    const place = (values) => values.map((v, i) => (v - span[i % 2][0]) / Math.max(span[i % 2][1] - span[i % 2][0], 1e-9));
    picture.flat = { tokens: place(raw), place: (features) => place(projected(picture, features)) };
  }
  return picture.flat;
}

export function paintScatter(canvas, picture, found, end, hovered) {
  const context = canvas.getContext("2d"), plane = planeOf(picture);
  const on = (values, i) => [0, 1].map((axis) => MARGIN + values[i * 2 + axis] * (canvas.width - 2 * MARGIN));
  context.clearRect(0, 0, canvas.width, canvas.height);
  const owner = new Map(found.index.map((t, i) => [t, found.path[end.step].owner[i]]));
  for (let t = 0; t < picture.count; t++) {
    const colour = owner.has(t) ? css(colourOf(owner.get(t)), 0.85) : "rgba(128,128,128,.45)";
    disc(context, on(plane.tokens, t), owner.has(t) ? 4 : 2.5, colour);
  }
  walks(context, found, end, plane, on, picture.dim);
  disc(context, on(plane.tokens, found.seed), 6, "transparent", "currentColor");
  if (hovered != null) disc(context, on(plane.tokens, hovered), 9, "transparent", css(heatOf(0.5)));
}

function walks(context, { path }, { step, filtered }, plane, on, dim) {
  const removed = new Set(filtered.removed), K = path[0].points.length / dim;
  const rounds = path.slice(0, step + 1).map((round) => (round.flat ??= plane.place(round.points)));
  for (let k = 0; k < K; k++) {
    context.beginPath();
    rounds.forEach((places) => context.lineTo(...on(places, k)));
    context.strokeStyle = css(colourOf(k));
    context.lineWidth = 1.5;
    context.stroke();
    disc(context, on(rounds[step], k), removed.has(k) ? 4 : 7, css(colourOf(k)), "#fff");
  }
}

function disc(context, [x, y], radius, fill, rim) {
  context.beginPath();
  context.arc(x, y, radius, 0, 7);
  context.fillStyle = fill;
  context.fill();
  if (!rim) return;
  context.strokeStyle = rim === "currentColor" ? getComputedStyle(context.canvas).color : rim;
  context.lineWidth = 2;
  context.stroke();
}

// The token whose dot is nearest to a place of the canvas given as shares of its sides.
export function nearestDot(canvas, picture, [x, y]) {
  const places = planeOf(picture).tokens, at = (share, size) => (share * size - MARGIN) / (size - 2 * MARGIN);
  const [u, v] = [at(x, canvas.width), at(y, canvas.height)];
  let best = 0, least = Infinity;
  for (let t = 0; t < picture.count; t++) {
    const distance = (places[2 * t] - u) ** 2 + (places[2 * t + 1] - v) ** 2;
    if (distance < least) [best, least] = [t, distance];
  }
  return best;
}
