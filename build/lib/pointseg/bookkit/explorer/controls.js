// The controls of the key-point explorer, in the order of the method.

import { change, choice, group, slider, steps, toggle } from "./panel.js";

const ALPHAS = [0.1, 0.2, 0.3, 0.5, 0.7, 1, 1.5, 2, 3, 5, 10, Infinity];
const two = (v) => v.toFixed(2);

// `picture` gives the decoded picture, `play` is the button that runs the rounds.
export function controls(model, picture, play) {
  const count = (low, high) => steps(low, high, 1);
  const unit = { options: steps(0, 1, 0.01), text: two };
  const kind = (...kinds) => () => kinds.includes(model.get("map_kind"));
  const line = (settings) => slider(model, settings);
  const groups = [
    ["1 Attention", [
      choice(model, { name: "map_kind", label: "Map", hint: "where the search for the object starts",
        options: () => [["rollout", "attention roll-out"], ["attention", "self-attention"], ["similarity", "similarity"]] }),
      line({ name: "depth", label: "Depth", hint: "how many of the last blocks the roll-out runs through",
        options: () => count(1, picture()?.blocks ?? 1)(), text: (v) => `last ${v}`, when: kind("rollout") }),
      line({ name: "layer", label: "Layer", hint: "block of the ViT", when: kind("attention"),
        options: () => count(0, (picture()?.blocks ?? 1) - 1)(), text: (v) => String(v + 1),
        get: () => (model.get("layer") < 0 ? (picture()?.blocks ?? 1) - 1 : model.get("layer")) }),
      line({ name: "head", label: "Head", hint: "one head, or the mean over all", when: kind("attention"),
        options: () => count(-1, (picture()?.heads ?? 1) - 1)(), text: (v) => (v < 0 ? "mean" : String(v + 1)) }),
      choice(model, { name: "instance_map", label: "Eq. 1", hint: "how the map is cleaned",
        options: () => [["released", "official code"], ["printed", "as printed"], ["none", "not at all"]] }),
      line({ name: "foreground", label: "Φ+ above", hint: "tokens above are sure foreground", ...unit }),
      line({ name: "background", label: "Φ− below", hint: "tokens below are sure background", ...unit }),
    ]],
    ["2 Box and seeds", [
      line({ name: "box_threshold", label: "Box level", hint: "level at which the instance map is cut for the box", ...unit }),
      line({ name: "seed_threshold", label: "Seed level", hint: "tokens above hold seeds and count as foreground", ...unit }),
      line({ name: "keypoints", label: "K seeds", hint: "number of key-points at the start", options: count(1, 40) }),
    ]],
    ["3 Shift", [
      line({ name: "rounds", label: "N rounds", hint: "rounds of the shift", options: count(0, 20) }),
      line({ name: "alpha", label: "α", hint: "sharpness of the density, Eq. 5; without limit every token of a cell weighs alike",
        options: () => ALPHAS, get: () => model.get("alpha") ?? Infinity, text: (v) => (v === Infinity ? "∞" : String(v)) }),
      line({ name: "step", label: "Shown round", hint: "key-points after that many rounds", options: () => count(0, model.get("rounds"))(),
        get: () => shownRound(model), set: (v) => change(model, { step: v >= model.get("rounds") ? -1 : v }) }),
      { element: play, refresh() {} },
    ]],
    ["4 Filter and merge", [
      line({ name: "filter_threshold", label: "T_f", hint: "least share of a part on the foreground, Alg. 1", ...unit }),
      line({ name: "merge_threshold", label: "T_m", hint: "key-points more alike than this are merged, Alg. 1", ...unit }),
    ]],
    ["Show", [
      line({ name: "opacity", label: "Layer", hint: "how strongly the layer covers the picture", options: steps(0, 1, 0.05), text: two }),
      toggle(model, { name: "show_paths", label: "key-points and their ways" }),
      toggle(model, { name: "show_box", label: "pseudo box" }),
      toggle(model, { name: "show_truth", label: "true outline" }),
    ]],
  ];
  const all = groups.flatMap(([, list]) => list);
  const element = groups.map(([title, list]) => group(title, ...list.map((c) => c.element)));
  return { elements: element, refresh: () => all.forEach((c) => c.refresh()) };
}

export function shownRound(model) {
  const step = model.get("step"), rounds = model.get("rounds");
  return step < 0 ? rounds : Math.min(step, rounds);
}
