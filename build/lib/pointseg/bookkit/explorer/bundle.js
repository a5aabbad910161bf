// One picture as written by pointseg.bookkit.explorer.bundle: base64 numbers and run lengths back to arrays.

import { normalised } from "./core.js";

function bytesOf(text) {
  return Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
}

// IEEE half precision, little endian.
export function halves(text) {
  const words = new Uint16Array(bytesOf(text).buffer);
  return Float64Array.from(words, (word) => {
    const sign = word & 0x8000 ? -1 : 1, exponent = (word >> 10) & 31, fraction = word & 1023;
    return sign * (exponent ? 2 ** (exponent - 15) * (1 + fraction / 1024) : 2 ** -14 * (fraction / 1024));
  });
}

// Bytes with one scale for each run of `size` of them; one Float64Array for each block.
function scaled({ values, scales }, blocks, size) {
  const numbers = new Int8Array(bytesOf(values).buffer), scale = halves(scales);
  const each = numbers.length / blocks;
  return Array.from({ length: blocks }, (_, block) =>
    Float64Array.from({ length: each }, (_, i) => numbers[block * each + i] * scale[Math.floor((block * each + i) / size)]));
}

// Alternating values and run lengths to a flat array.
export function unrolled(runs, length) {
  const out = new Uint8Array(length);
  let at = 0;
  for (let i = 0; i < runs.length; i += 2) {
    out.fill(runs[i], at, at + runs[i + 1]);
    at += runs[i + 1];
  }
  return out;
}

export function decoded(raw) {
  const { dim, heads, size, blocks } = raw;
  const tokens = halves(raw.features), pixels = raw.width * raw.height;
  const queries = raw.queries && scaled(raw.queries, blocks, size);
  const keys = raw.keys && scaled(raw.keys, blocks, size);
  return {
    ...raw,
    tokens,
    directions: normalised(tokens, dim),
    count: tokens.length / dim,
    attention: queries ? queries.map((q, i) => ({ queries: q, keys: keys[i] })) : null,
    plane: { mean: halves(raw.plane.mean), axes: halves(raw.plane.axes) },
    truth: raw.truth && {
      objects: raw.truth.objects.map((o) => ({ ...o, mask: unrolled(o.runs, pixels) })),
      parts: raw.truth.parts && unrolled(raw.truth.parts, pixels),
      nobody: unrolled(raw.truth.void, pixels),
    },
  };
}

// Features [n, dim] in the plane of the two main directions of the picture's tokens: [n, 2].
export function projected({ plane, dim }, features) {
  const out = new Float64Array((features.length / dim) * 2);
  for (let i = 0; i < features.length; i++)
    for (let axis = 0; axis < 2; axis++)
      out[Math.floor(i / dim) * 2 + axis] += (features[i] - plane.mean[i % dim]) * plane.axes[axis * dim + (i % dim)];
  return out;
}
