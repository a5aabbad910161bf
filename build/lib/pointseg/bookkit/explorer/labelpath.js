// From a point to key-points, box and mask: what pointseg.papers.attentionshift.method.Labeller does for one object.

import * as core from "./core.js";
import { attentionRow, meanRow, rollout } from "./attention.js";
import * as grids from "./grid.js";

// UNSTATED thresholds are those of the official code; the others as [AS Tab. 4] and [AS Tab. 5] choose them.
export const DEFAULTS = {
  map_kind: "rollout", layer: -1, head: -1, depth: 3, instance_map: "released",
  foreground: 0.2, background: 0.1, seed_threshold: 0.35, box_threshold: 0.35,
  keypoints: 20, rounds: 10, step: -1, alpha: 1, filter_threshold: 0.85, merge_threshold: 0.85,
};

// Raw self-attention or similarity map [T] of the pointed-at token.
export function rawMap(picture, state, seed) {
  const { dim, heads, size, prefix, count, directions } = picture;
  if (state.map_kind === "similarity")
    return core.cosine(core.rowsOf(directions, dim, [seed]), directions, dim);
  const blocks = picture.attention, T = prefix + count, row = prefix + seed;
  if (!blocks) return askedMap(picture, state, seed);
  if (state.map_kind === "rollout")
    return rollout(blocks, heads, size, T, row, Math.min(state.depth, blocks.length)).slice(prefix);
  const block = blocks.at(state.layer) ?? blocks.at(-1);
  const whole = state.head < 0 ? meanRow(block, heads, size, T, row)
    : attentionRow(block, heads, size, T, row, Math.min(state.head, heads - 1));
  return whole.slice(prefix);
}

// Maps that a kernel computed: [blocks * (heads + 1) + blocks, T], per block its heads and their mean, then roll-outs.
function askedMap(picture, state, seed) {
  const { rows, heads, blocks, count } = picture;
  if (!rows || rows.token !== seed) return new Float64Array(count);
  const layer = state.layer < 0 ? blocks + state.layer : Math.min(state.layer, blocks - 1);
  const place = state.map_kind === "rollout" ? blocks * (heads + 1) + Math.min(state.depth, blocks) - 1
    : layer * (heads + 1) + (state.head < 0 ? heads : Math.min(state.head, heads - 1));
  return rows.values.slice(place * count, (place + 1) * count);
}

// Instance attention map A^I in 0..1 with the sets it comes from. [AS Eq. 1]
export function instanceMap({ tokens, directions, dim }, attention, seed, state) {
  const { plus, minus } = core.tokenSets(attention, seed, state.foreground, state.background);
  const like = core.cosine(core.meanToken(tokens, dim, plus), directions, dim);
  const unlike = core.cosine(core.meanToken(tokens, dim, minus), directions, dim);
  const values = state.instance_map === "none" ? attention
    : state.instance_map === "printed" ? core.unitRange(core.mapPrinted(like, unlike, plus, minus))
      : core.mapReleased(like, unlike);
  return { plus, minus, values };
}

// Box around the largest component of the binarised map, else around the pointed-at token. [AS Sec. 4]
export function pseudoBox({ grid, stride, width, height }, values, seed, threshold) {
  let area = Array.from(values, (v) => v >= threshold);
  if (!area.includes(true)) area = area.map((_, t) => t === seed);
  return grids.tightBox(grids.largestComponent(area, grid), grid, stride, [width, height]);
}

// Everything up to the last round of the shift.
export function shifted(picture, state) {
  const { dim, grid, stride, tokens } = picture;
  const seed = grids.tokenAt(state.point, grid, stride);
  const attention = core.unitRange(rawMap(picture, state, seed));
  const instance = instanceMap(picture, attention, seed, state);
  const box = pseudoBox(picture, instance.values, seed, state.box_threshold);
  const inBox = grids.tokensInBox(box, grid, stride);
  const high = inBox.map((inside, t) => inside && instance.values[t] >= state.seed_threshold);
  const index = inBox.flatMap((inside, t) => (inside ? [t] : []));
  const seeds = core.spreadSeeds(high, state.keypoints, seed);
  const held = core.rowsOf(tokens, dim, index);
  const path = core.shift(core.rowsOf(tokens, dim, seeds), held, dim, { ...state, foreground: index.map((t) => high[t]) });
  return { seed, attention, instance, box, inBox, high, index, seeds, held, path };
}

// Filtering, merging, places and mask of the key-points after `step` rounds; -1 is the last. [AS Alg. 1]
export function finished(picture, state, found) {
  const { dim, grid, stride, width, height } = picture, { index, high, path } = found;
  const step = state.step < 0 ? path.length - 1 : Math.min(state.step, path.length - 1), { points, owner } = path[step];
  const foreground = index.map((t) => high[t]);
  const filtered = core.filterKeypoints(points, dim, owner, foreground, state.filter_threshold, state.merge_threshold);
  const directions = core.normalised(found.held, dim);
  const groups = filtered.groups.map((g) => ({ ...g, token: index[core.nearestToken(g.feature, directions, dim)] }));
  const mask = tokenMask(found, owner, groups);
  const pixels = grids.pixelMask(mask.map(Number), grid, stride, [width, height]);
  return { step, filtered, groups, mask, pixels, ...measured(picture, state.point, pixels) };
}

// Cells of the key-points that survived; where there is none, the high-confidence area.
function tokenMask({ index, high }, owner, groups) {
  const survivors = new Set(groups.flatMap((g) => g.members)), mask = high.map(() => false);
  owner.forEach((k, i) => (mask[index[i]] = survivors.has(k)));
  return mask.includes(true) ? mask : high;
}

// The true object under the point, and how well a mask meets it; null where the truth is silent.
export function measured({ truth, width }, [x, y], pixels) {
  const at = Math.floor(y) * width + Math.floor(x);
  const object = truth?.objects.find((o) => o.mask[at]) ?? null;
  if (!object) return { object, iou: null, recall: null, known: Boolean(truth) };
  const recall = truth.parts ? grids.partRecall(pixels, object.mask, truth.parts) : null;
  return { object, iou: grids.iou(pixels, object.mask, truth.nobody), recall, known: true };
}

// Token of each key-point after each round, [rounds + 1][K]: where it is drawn in the picture. [AS Eq. 4]
export function places({ path, index }) {
  const S = index.length;
  return path.map(({ similarity }) =>
    Array.from({ length: similarity.length / S }, (_, k) =>
      index[core.largestIndex(similarity.subarray(k * S, (k + 1) * S))]));
}
