// Masks on the token grid and on pixels: components, boxes and the measures of pointseg.ops.components and
// pointseg.metrics.pseudo. Grids are [h, w]; boxes are [x0, y0, x1, y1] in pixels.

// Index of the token under a pixel point; points outside belong to the nearest token.
export function tokenAt([x, y], [h, w], stride) {
  const cut = (v, n) => Math.min(Math.max(Math.trunc(v / stride), 0), n - 1);
  return cut(y, h) * w + cut(x, w);
}

export function tokenCentre(token, [, w], stride) {
  return [((token % w) + 0.5) * stride, (Math.floor(token / w) + 0.5) * stride];
}

// The largest 8-connected component of a mask; of equally large ones the first in reading order. [AS Sec. 4]
export function largestComponent(mask, grid) {
  const seen = new Uint8Array(mask.length), out = Array(mask.length).fill(false);
  let best = [];
  mask.forEach((inside, start) => {
    if (!inside || seen[start]) return;
    const members = flood(mask, seen, start, grid);
    if (members.length > best.length) best = members;
  });
  best.forEach((t) => (out[t] = true));
  return out;
}

function flood(mask, seen, start, grid) {
  const members = [start];
  seen[start] = 1;
  for (let i = 0; i < members.length; i++)
    for (const t of neighbours(members[i], grid))
      if (mask[t] && !seen[t]) {
        seen[t] = 1;
        members.push(t);
      }
  return members;
}

function neighbours(token, [h, w]) {
  const r = Math.floor(token / w), c = token % w, near = [];
  for (let y = Math.max(r - 1, 0); y <= Math.min(r + 1, h - 1); y++)
    for (let x = Math.max(c - 1, 0); x <= Math.min(c + 1, w - 1); x++) near.push(y * w + x);
  return near;
}

// Box around a mask of tokens, cut at the picture; null around nothing.
export function tightBox(mask, [, w], stride, [width, height]) {
  let box = null;
  mask.forEach((inside, t) => {
    if (!inside) return;
    const x = t % w, y = Math.floor(t / w), b = box ?? [x, y, x, y];
    box = [Math.min(b[0], x), Math.min(b[1], y), Math.max(b[2], x), Math.max(b[3], y)];
  });
  if (!box) return null;
  const [x0, y0, x1, y1] = box;
  const far = [Math.min((x1 + 1) * stride, width), Math.min((y1 + 1) * stride, height)];
  return [x0 * stride, y0 * stride, ...far];
}

// Which tokens meet a box.
export function tokensInBox([x0, y0, x1, y1], [h, w], stride) {
  return Array.from({ length: h * w }, (_, t) => {
    const x = (t % w) * stride, y = Math.floor(t / w) * stride;
    return x + stride > x0 && x < x1 && y + stride > y0 && y < y1;
  });
}

// Token mask -> pixel mask [height * width]: bilinear between token centres, above one half.
export function pixelMask(mask, grid, stride, [width, height]) {
  const across = blends(width, grid[1], stride), down = blends(height, grid[0], stride);
  const out = new Uint8Array(width * height);
  for (let y = 0; y < height; y++) {
    const top = down[y].low * grid[1], bottom = down[y].high * grid[1], v = down[y].share;
    for (let x = 0; x < width; x++) {
      const { low, high, share } = across[x];
      const above = mask[top + low] * (1 - share) + mask[top + high] * share;
      const below = mask[bottom + low] * (1 - share) + mask[bottom + high] * share;
      out[y * width + x] = above * (1 - v) + below * v > 0.5 ? 1 : 0;
    }
  }
  return out;
}

function blends(pixels, tokens, stride) {
  return Array.from({ length: pixels }, (_, i) => {
    const place = Math.max((i + 0.5) / stride - 0.5, 0);
    const low = Math.min(Math.floor(place), tokens - 1);
    return { low, high: Math.min(low + 1, tokens - 1), share: place - Math.floor(place) };
  });
}

// Intersection over union with a true mask; void pixels count for nobody.
export function iou(mask, truth, nobody) {
  let both = 0, either = 0;
  for (let i = 0; i < truth.length; i++) {
    if (nobody[i]) continue;
    both += mask[i] & truth[i];
    either += mask[i] | truth[i];
  }
  return both / Math.max(either, 1);
}

// Share of an object's visible parts of which the mask holds more than half; null without parts.
export function partRecall(mask, truth, parts) {
  const whole = new Map(), held = new Map();
  for (let i = 0; i < truth.length; i++) {
    if (!truth[i] || !parts[i]) continue;
    whole.set(parts[i], (whole.get(parts[i]) ?? 0) + 1);
    if (mask[i]) held.set(parts[i], (held.get(parts[i]) ?? 0) + 1);
  }
  const hit = [...whole].filter(([part, area]) => 2 * (held.get(part) ?? 0) > area);
  return whole.size ? hit.length / whole.size : null;
}
