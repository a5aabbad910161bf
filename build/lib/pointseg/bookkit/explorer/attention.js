// Attention of a ViT from stored queries and keys, as pointseg.nets.attention forms it. `block` holds queries and keys
// [T, heads * size] of one block; T counts prefix tokens first, then patches row by row.

import { dot } from "./core.js";

// One row of one head: softmax(q k / sqrt(size)) [T].
export function attentionRow({ queries, keys }, heads, size, T, row, head) {
  const scores = new Float64Array(T), width = heads * size;
  let peak = -Infinity, total = 0;
  for (let t = 0; t < T; t++) {
    scores[t] = dot(queries, row * width + head * size, keys, t * width + head * size, size) / Math.sqrt(size);
    peak = Math.max(peak, scores[t]);
  }
  for (let t = 0; t < T; t++) total += scores[t] = Math.exp(scores[t] - peak);
  return scores.map((v) => v / total);
}

// One row averaged over the heads.
export function meanRow(block, heads, size, T, row) {
  const mean = new Float64Array(T);
  for (let head = 0; head < heads; head++)
    attentionRow(block, heads, size, T, row, head).forEach((v, t) => (mean[t] += v / heads));
  return mean;
}

// All rows averaged over the heads [T, T]; kept with the block, since a roll-out needs nearly all of them.
export function meanAttention(block, heads, size, T) {
  if (!block.mean) {
    block.mean = new Float32Array(T * T);
    for (let row = 0; row < T; row++) block.mean.set(meanRow(block, heads, size, T, row), row * T);
  }
  return block.mean;
}

// Attention roll-out of one row over the last `depth` blocks, from the last one downwards: rows of (A + I) / 2.
// UNSTATED [AS Sec. 3.2]: "self-attention map"; depth 1 is the last block alone.
export function rollout(blocks, heads, size, T, row, depth) {
  let chain = new Float64Array(T);
  chain[row] = 1;
  for (const block of blocks.slice(blocks.length - depth).reverse()) {
    const mean = meanAttention(block, heads, size, T);
    const next = chain.map((v) => v / 2);
    for (let i = 0; i < T; i++) {
      const half = chain[i] / 2;
      if (half) for (let t = 0; t < T; t++) next[t] += half * mean[i * T + t];
    }
    chain = next;
  }
  return chain;
}
