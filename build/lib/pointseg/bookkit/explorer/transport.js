// Cheapest paths on the grid and the transport from points to cells: pointseg.ops.paths and pointseg.ops.transport.
// A grid is [h, w]; planes of steps are in the order right, down, down-right, down-left, as HALF in paths.py.

const HALF_STEPS = [[0, 1], [1, 0], [1, 1], [1, -1]];
const LEAST_MASS = 1e-8; // guard of log 0, as in transport.py

// Prices of the four kinds of steps, flat [4 * h * w]: d(P^s) + beta d(P^b) + the instance feature's. [P2M Eq. 3]
export function stepPrices({ semantic, boundary, manifold }, beta, manifoldWeight) {
  return semantic.map((price, i) => price + beta * boundary[i] + manifoldWeight * manifold[i]);
}

// Neighbours of a cell with the price of going there.
function* reachable(cell, prices, [h, w]) {
  const row = Math.floor(cell / w), column = cell % w, count = h * w;
  for (let k = 0; k < 4; k++) {
    const [down, right] = HALF_STEPS[k];
    for (const [sign, from] of [[1, 0], [-1, 1]]) {
      const r = row + sign * down, c = column + sign * right;
      if (r < 0 || r >= h || c < 0 || c >= w) continue;
      const other = r * w + c;
      yield [other, prices[k * count + (from ? other : cell)]];
    }
  }
}

// Dijkstra from one cell: { length [N], before [N] }, `before` being the last cell of the cheapest path to each.
export function cheapestPaths(prices, grid, start) {
  const count = grid[0] * grid[1];
  const length = new Float64Array(count).fill(Infinity), before = new Int32Array(count).fill(-1);
  const done = new Uint8Array(count), heap = [[0, start]];
  length[start] = 0;
  while (heap.length) {
    const [far, cell] = taken(heap);
    if (done[cell]) continue;
    done[cell] = 1;
    for (const [other, price] of reachable(cell, prices, grid))
      if (far + price < length[other]) {
        length[other] = far + price;
        before[other] = cell;
        put(heap, [length[other], other]);
      }
  }
  return { length, before };
}

function put(heap, item) {
  let at = heap.push(item) - 1;
  while (at && heap[(at - 1) >> 1][0] > item[0]) {
    heap[at] = heap[(at - 1) >> 1];
    at = (at - 1) >> 1;
  }
  heap[at] = item;
}

function taken(heap) {
  const first = heap[0], item = heap.pop();
  if (!heap.length) return first;
  let at = 0;
  for (;;) {
    let child = 2 * at + 1;
    if (child >= heap.length) break;
    if (child + 1 < heap.length && heap[child + 1][0] < heap[child][0]) child += 1;
    if (heap[child][0] >= item[0]) break;
    heap[at] = heap[child];
    at = child;
  }
  heap[at] = item;
  return first;
}

// Cells of the cheapest path that ends in `goal`, from the start on.
export function pathTo({ before }, goal) {
  const cells = [goal];
  while (before[cells[0]] >= 0) cells.unshift(before[cells[0]]);
  return cells;
}

// Supplier potentials [n] after `rounds` of Sinkhorn; cost is n rows over the consumers. [P2M-S Eq. 2]
export function sinkhornPotentials(cost, supply, demand, epsilon, rounds) {
  const x = supply.map((v) => Math.log(v + LEAST_MASS)), y = Array.from(demand, (v) => Math.log(v + LEAST_MASS));
  const c = cost.map((row) => Float64Array.from(row, (v) => -v / epsilon));
  let u = supply.map(() => 1 / epsilon);
  const v = new Float64Array(y.length);
  for (let round = 0; round < rounds; round++) {
    for (let j = 0; j < y.length; j++) v[j] = y[j] - logSumExp(c.length, (i) => c[i][j] + u[i]);
    u = c.map((row, i) => x[i] - logSumExp(y.length, (j) => row[j] + v[j]));
  }
  return u.map((value) => value * epsilon);
}

function logSumExp(count, term) {
  let top = -Infinity, sum = 0;
  for (let i = 0; i < count; i++) top = Math.max(top, term(i));
  for (let i = 0; i < count; i++) sum += Math.exp(term(i) - top);
  return Math.log(sum) + top;
}

// Label argmin_i c_ij - u_i of every cell that has a demand, -1 elsewhere.
export function ownersOf(cost, potentials, demand) {
  return Int16Array.from(demand, (wanted, j) => {
    if (!(wanted > 0)) return -1;
    let best = 0;
    for (let i = 1; i < cost.length; i++) if (cost[i][j] - potentials[i] < cost[best][j] - potentials[best]) best = i;
    return best;
  });
}

// Units of all suppliers: the counted ones with one of them multiplied, scaled to the whole demand.
export function scaledUnits(counted, thing, factor, demand) {
  const units = counted.map((v, i) => v * (i === thing ? factor : 1));
  const whole = demand.reduce((a, b) => a + b, 0), sum = units.reduce((a, b) => a + b, 0);
  return units.map((v) => (v * whole) / sum);
}

// Everything that follows from a picture and a state.
export function solved(picture, { beta, solver, epsilon, rounds, thing, factor }) {
  const { grid, steps, demand, things } = picture;
  const prices = stepPrices(steps, beta, picture.manifold_weight);
  const paths = things.map(({ cell }) => cheapestPaths(prices, grid, cell));
  const cost = paths.map(({ length }) => length), none = things.map(() => 0);
  const chosen = Math.min(thing, things.length - 1), units = scaledUnits(things.map((t) => t.units), chosen, factor, demand);
  const wanting = Array.from(demand.keys()).filter((j) => demand[j] > 0);
  const potentials = solver === "none" || things.length < 2 ? none : sinkhornPotentials(
    cost.map((row) => wanting.map((j) => row[j])), units, wanting.map((j) => demand[j]), epsilon, rounds);
  return { paths, cost, units, potentials, nearest: ownersOf(cost, none, demand), owner: ownersOf(cost, potentials, demand) };
}
