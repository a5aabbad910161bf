// The stages of the label path as shapes to draw over the picture.

import { colourOf, css, edgesOf, heatOf, raster } from "./drawing.js";
import { tokenCentre } from "./grid.js";

export const STAGES = [
  ["attention", "Attention map", "self-attention or similarity of the point, stretched to 0..1"],
  ["sets", "Φ+ and Φ−", "sure foreground in blue, sure background in orange"],
  ["instance", "Instance map", "attention cleaned by how object and ground look, Eq. 1"],
  ["parts", "Parts", "which key-point owns each token of the box, Eq. 2 and 3"],
  ["kept", "Kept parts", "what filtering and merging leave, Alg. 1"],
  ["mask", "Mask", "blue: right, orange: beyond the object, pink: missed"],
  ["picture", "Picture", "the picture alone"],
];
const BLUE = [86, 180, 233], ORANGE = [230, 110, 0], PINK = [204, 121, 167], GREY = [40, 40, 40];

const LAYERS = {
  picture: () => null,
  attention: ({ attention }) => (t) => heatOf(attention[t]),
  sets: ({ instance }) => (t) => (instance.plus[t] ? BLUE : instance.minus[t] ? ORANGE : null),
  instance: ({ instance }) => (t) => heatOf(instance.values[t]),
  parts({ index, path }, { step }) {
    const owner = new Map(index.map((t, i) => [t, path[step].owner[i]]));
    return (t) => (owner.has(t) ? colourOf(owner.get(t)) : null);
  },
  kept({ index, path }, { step, groups, filtered }) {
    const tint = new Map(groups.flatMap((g) => g.members.map((k) => [k, colourOf(g.largest)])));
    filtered.removed.forEach((k) => tint.set(k, GREY));
    const owner = new Map(index.map((t, i) => [t, path[step].owner[i]]));
    return (t) => (owner.has(t) ? tint.get(owner.get(t)) : null);
  },
};

// The coloured layer of one stage.
export function layerOf(stage, picture, found, end, alpha) {
  const { grid, stride, width, height } = picture;
  if (stage === "mask") return raster([height, width], 1, maskPaint(end), alpha);
  const colours = LAYERS[stage](found, end);
  return colours && raster(grid, stride, colours, alpha);
}

function maskPaint({ pixels, object }) {
  if (!object) return (i) => (pixels[i] ? BLUE : null);
  return (i) => (pixels[i] ? (object.mask[i] ? BLUE : ORANGE) : object.mask[i] ? PINK : null);
}

// All that lies over the picture in the large view, lowest first.
export function shapesOf(picture, state, found, end, hovered) {
  const { grid, stride } = picture, shapes = [layerOf(state.stage, picture, found, end, state.opacity)];
  if (state.show_truth && end.object) {
    const edges = (end.object.edges ??= edgesOf(end.object.mask, picture.width));
    shapes.push({ kind: "edges", edges, colour: "#000", width: 4 }, { kind: "edges", edges, colour: "#fff", width: 2 });
  }
  if (state.show_box) shapes.push({ kind: "box", box: found.box, colour: "#fff", width: 5 },
    { kind: "box", box: found.box, colour: "#0072b2", width: 2.5 });
  if (state.show_paths) shapes.push(...trails(picture, found, end));
  if (hovered != null) {
    const [x, y] = tokenCentre(hovered, grid, stride), half = stride / 2;
    shapes.push({ kind: "box", box: [x - half, y - half, x + half, y + half], colour: "#fff", width: 2 });
  }
  shapes.push({ kind: "star", at: state.point, radius: 11 });
  return shapes.filter(Boolean);
}

// Ways of the key-points so far and where they are; those that filtering removes are drawn small.
function trails(picture, { places }, { step, groups, filtered }) {
  const { grid, stride } = picture, K = places[0].length, removed = new Set(filtered.removed);
  // key-points on one token stand around its centre
  const centre = (token, k) => {
    const [x, y] = tokenCentre(token, grid, stride), turn = (2 * Math.PI * k) / K, reach = stride * 0.22;
    return [x + reach * Math.cos(turn), y + reach * Math.sin(turn)];
  };
  const every = Array.from({ length: K }, (_, k) => k);
  const lines = every.flatMap((k) => {
    const points = places.slice(0, step + 1).map((round) => centre(round[k], k));
    return [{ kind: "line", points, colour: "#fff", width: 3.5 }, { kind: "line", points, colour: css(colourOf(k)), width: 1.8 }];
  });
  const dots = every.map((k) =>
    ({ kind: "dot", at: centre(places[step][k], k), colour: css(colourOf(k)), radius: removed.has(k) ? 2.5 : 4.5 }));
  const kept = groups.map((g) =>
    ({ kind: "dot", at: tokenCentre(g.token, grid, stride), colour: css(colourOf(g.largest)), radius: 8 }));
  return [...lines, ...dots, ...kept];
}
