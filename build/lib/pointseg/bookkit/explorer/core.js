// Key-point shift in the browser: each function mirrors one of pointseg.ops (shift, keypoints, instance_map), and a
// test holds the two together. Vectors and flat row-by-row matrices are Float64Array; T tokens, S of them in the box,
// K key-points, d features.

export const TIE = 1e-6; // share by which a key-point must outbid the one before it

// Product of a row of `a` that starts at i with one of `b` that starts at j; four sums at once keep a processor busy.
export function dot(a, i, b, j, d) {
  let s0 = 0, s1 = 0, s2 = 0, s3 = 0, k = 0;
  for (; k + 3 < d; k += 4) {
    s0 += a[i + k] * b[j + k];
    s1 += a[i + k + 1] * b[j + k + 1];
    s2 += a[i + k + 2] * b[j + k + 2];
    s3 += a[i + k + 3] * b[j + k + 3];
  }
  for (; k < d; k++) s0 += a[i + k] * b[j + k];
  return s0 + s1 + s2 + s3;
}

// Rows of a [n, d] matrix at length one; a zero row stays zero.
export function normalised(matrix, d) {
  const out = new Float64Array(matrix.length);
  for (let row = 0; row < matrix.length; row += d) {
    const length = Math.max(Math.sqrt(dot(matrix, row, matrix, row, d)), 1e-12);
    for (let k = 0; k < d; k++) out[row + k] = matrix[row + k] / length;
  }
  return out;
}

// Chosen rows of a [n, d] matrix, one after the other.
export function rowsOf(matrix, d, index) {
  const out = new Float64Array(index.length * d);
  index.forEach((row, i) => out.set(matrix.subarray(row * d, (row + 1) * d), i * d));
  return out;
}

// Cosine [n, m] of rows [n, d] with unit rows [m, d].
export function cosine(rows, directions, d) {
  const unit = normalised(rows, d), n = unit.length / d, m = directions.length / d;
  const out = new Float64Array(n * m);
  for (let i = 0; i < n; i++)
    for (let j = 0; j < m; j++) out[i * m + j] = dot(unit, i * d, directions, j * d, d);
  return out;
}

// [T] map stretched to 0..1; a constant map becomes 0.
export function unitRange(map) {
  let low = Infinity, high = -Infinity;
  for (const v of map) {
    low = Math.min(low, v);
    high = Math.max(high, v);
  }
  return map.map((v) => (high > low ? (v - low) / Math.max(high - low, 1e-12) : 0));
}

// Sure foreground and background of an attention map in 0..1; the labelled token is always foreground. [AS Sec. 3.1]
export function tokenSets(attention, seed, foreground, background) {
  return {
    plus: Array.from(attention, (v, t) => v >= foreground || t === seed),
    minus: Array.from(attention, (v, t) => v < background && t !== seed),
  };
}

// Mean feature [d] of a token set; psi+ and psi- of [AS Eq. 1].
export function meanToken(tokens, d, members) {
  const mean = new Float64Array(d);
  let count = 0;
  members.forEach((inside, t) => {
    if (!inside) return;
    count += 1;
    for (let k = 0; k < d; k++) mean[k] += tokens[t * d + k];
  });
  return mean.map((v) => v / Math.max(count, 1e-12));
}

// Instance attention map as printed: each similarity over its sum in its own set. [AS Eq. 1]
export function mapPrinted(like, unlike, plus, minus) {
  const total = (v, members) => Math.max(v.reduce((s, x, t) => s + (members[t] ? x : 0), 0), 1e-6);
  const own = total(like, plus), other = total(unlike, minus);
  return like.map((v, t) => (v / own) * (1 - unlike[t] / other));
}

// Instance attention map of the official code: cos+ (1 - cos-), over its largest value. [AS Eq. 1]
export function mapReleased(like, unlike) {
  const product = like.map((v, t) => Math.max(v * (1 - unlike[t]), 0));
  const top = Math.max(product.reduce((a, b) => Math.max(a, b), 0), 1e-12);
  return product.map((v) => v / top);
}

// Token indices at a constant stride through an area; the fallback where it is empty. [AS Sec. 3.2]
export function spreadSeeds(area, count, fallback) {
  const members = [];
  area.forEach((inside, t) => inside && members.push(t));
  const nth = (k) => members[Math.floor((k * members.length) / count)];
  return Array.from({ length: count }, (_, k) => (members.length ? nth(k) : fallback));
}

// Part attention maps A^P [K, S]: similarity as a share of its sum over the tokens. [AS Eq. 2]
export function partMaps(similarity, K) {
  const share = similarity.map((v) => Math.max(v, 0)), S = share.length / K;
  for (let k = 0; k < K; k++) {
    const own = share.subarray(k * S, (k + 1) * S);
    const sum = Math.max(own.reduce((a, b) => a + b, 0), 1e-12);
    own.forEach((v, t) => (own[t] = v / sum));
  }
  return share;
}

// Index [S] of the key-point with the largest share of each token; of equal ones the first. delta of [AS Eq. 3]
export function owners(similarity, K) {
  const share = partMaps(similarity, K), S = share.length / K;
  const owner = new Int16Array(S), best = new Float64Array(S).fill(-1);
  for (let k = 0; k < K; k++)
    for (let t = 0; t < S; t++) {
      const bid = share[k * S + t] * (1 - TIE * k);
      if (bid > best[t]) [best[t], owner[t]] = [bid, k];
    }
  return owner;
}

// Adaptive bandwidth beta [K]: one minus the mean similarity of a cell, 1 where it is empty. [AS Eq. 6]
export function bandwidths(similarity, owner, K, floor) {
  const S = owner.length, sum = new Float64Array(K), count = new Float64Array(K);
  owner.forEach((k, t) => {
    sum[k] += similarity[k * S + t];
    count[k] += 1;
  });
  return sum.map((s, k) => Math.max(1 - s / Math.max(count[k], 1), floor));
}

// Density weights w [S] of one cell, 0 outside it; null where it is empty. [AS Eq. 5]
export function densityWeights(similarity, owner, k, sharpness) {
  const S = owner.length, weight = new Float64Array(S);
  let peak = -Infinity, total = 0;
  for (let t = 0; t < S; t++) if (owner[t] === k) peak = Math.max(peak, similarity[k * S + t] * sharpness);
  if (peak === -Infinity) return null;
  for (let t = 0; t < S; t++)
    if (owner[t] === k) total += weight[t] = Math.exp(similarity[k * S + t] * sharpness - peak);
  return weight.map((w) => w / total);
}

// One round: key-points as weighted means of their cells; one that owns no token stays where it was. [AS Eq. 7]
export function shiftOnce(points, tokens, d, similarity, owner, beta, alpha) {
  const moved = Float64Array.from(points);
  beta.forEach((bandwidth, k) => {
    const weight = densityWeights(similarity, owner, k, 1 / (alpha * bandwidth));
    if (!weight) return;
    moved.fill(0, k * d, (k + 1) * d);
    weight.forEach((w, t) => {
      if (w > 0) for (let j = 0; j < d; j++) moved[k * d + j] += w * tokens[t * d + j];
    });
  });
  return moved;
}

// All rounds; entry i holds the key-points after i rounds, their similarity to the tokens and who owns each token.
// Tokens of `foreground` alone, Phi+, draw the key-points that own them. [AS Eq. 2], [AS Eq. 5-7]
export function shift(seeds, tokens, d, { alpha, rounds, floor = 1e-10, foreground = null }) {
  const directions = normalised(tokens, d), K = seeds.length / d, path = [];
  let points = Float64Array.from(seeds);
  for (let i = 0; ; i++) {
    const similarity = cosine(points, directions, d), owner = owners(similarity, K);
    path.push({ points, similarity, owner });
    if (i === rounds) return path;
    const drawing = foreground ? owner.map((k, t) => (foreground[t] ? k : -1)) : owner;
    points = shiftOnce(points, tokens, d, similarity, drawing, bandwidths(similarity, owner, K, floor), alpha);
  }
}

// Share [K] of each part that lies on the foreground; 0 for a part without tokens. [AS Alg. 1 l. 3]
export function partPrecision(owner, foreground, K) {
  const area = new Float64Array(K), good = new Float64Array(K);
  owner.forEach((k, t) => {
    area[k] += 1;
    good[k] += foreground[t] ? 1 : 0;
  });
  return { area, precision: good.map((g, k) => g / Math.max(area[k], 1)) };
}

// Which key-points go, which merge with which, and what is left, largest part first. [AS Alg. 1]
export function filterKeypoints(points, d, owner, foreground, filterThreshold, mergeThreshold) {
  const K = points.length / d, { area, precision } = partPrecision(owner, foreground, K);
  const unit = normalised(points, d), groups = [];
  const every = Array.from({ length: K }, (_, k) => k);
  let left = every.filter((k) => precision[k] >= filterThreshold);
  const removed = every.filter((k) => precision[k] < filterThreshold);
  while (left.length) {
    const largest = left.reduce((a, b) => (area[b] > area[a] ? b : a));
    const likeness = new Map(left.map((k) => [k, dot(unit, k * d, unit, largest * d, d)]));
    const members = left.filter((k) => k === largest || likeness.get(k) > mergeThreshold);
    const feature = meanToken(points, d, every.map((k) => members.includes(k)));
    groups.push({ largest, members, feature, likeness: members.map((k) => likeness.get(k)) });
    left = left.filter((k) => !members.includes(k));
  }
  return { precision, area, removed, groups };
}

// Index of the token most similar to a key-point. [AS Eq. 4]
export function nearestToken(feature, directions, d) {
  return largestIndex(cosine(feature, directions, d));
}

export function largestIndex(values) {
  let best = 0;
  for (let t = 1; t < values.length; t++) if (values[t] > values[best]) best = t;
  return best;
}
