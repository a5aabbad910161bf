// Parts any explorer is built from: controls bound to a model, a picture one can point at, playing, permanent links.
// A model is anywidget's or the stand-in of page.py: get, set, save_changes, on("change:name"), off.

const OWN_KEYS = { "data-lm-suppress-shortcuts": "true" }; // JupyterLab would take the arrow keys of a control

export function element(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
    else if (value !== false && value != null) made.setAttribute(name, value === true ? "" : value);
  }
  made.append(...children);
  return made;
}

// Sets model values in one go and tells the kernel, if there is one.
export function change(model, values) {
  for (const [name, value] of Object.entries(values)) model.set(name, value);
  model.save_changes();
}

// A control is its element and `refresh`, which brings it in line with the model.
// Range input over whole steps of `options`: a function that returns the values one can choose, in order.
export function slider(model, { name, label, hint, options, text = String, when = () => true, get, set }) {
  const read = get ?? (() => model.get(name));
  const write = set ?? ((value) => change(model, { [name]: value }));
  const input = element("input", { type: "range", min: 0, step: 1, "data-name": name, ...OWN_KEYS });
  const output = element("output");
  input.addEventListener("input", () => write(options()[input.valueAsNumber]));
  const line = element("label", { class: "ps-slider", title: hint }, element("span", {}, label), input, output);
  const refresh = () => {
    const values = options(), value = read();
    const index = values.reduce((best, v, i) => (Math.abs(v - value) < Math.abs(values[best] - value) ? i : best), 0);
    input.max = values.length - 1;
    input.value = value === Infinity ? values.length - 1 : index;
    output.textContent = text(value);
    input.setAttribute("aria-valuetext", text(value));
    line.hidden = !when();
  };
  return { element: line, refresh };
}

// Evenly spaced values for a slider.
export function steps(low, high, step) {
  const count = Math.round((high - low) / step) + 1;
  return () => Array.from({ length: count }, (_, i) => Math.round((low + i * step) * 1e6) / 1e6);
}

// Select box; `options` returns pairs of value and text.
export function choice(model, { name, label, hint, options, pick, when = () => true }) {
  const select = element("select", { "data-name": name, ...OWN_KEYS });
  let shown = "";
  select.addEventListener("change", () => {
    const value = options()[select.selectedIndex][0];
    pick ? pick(value) : change(model, { [name]: value });
  });
  const line = element("label", { class: "ps-choice", title: hint }, element("span", {}, label), select);
  const refresh = () => {
    const pairs = options(), key = JSON.stringify(pairs);
    if (key !== shown) select.replaceChildren(...pairs.map(([value, text]) => element("option", { value }, text)));
    shown = key;
    select.selectedIndex = Math.max(pairs.findIndex(([value]) => value === model.get(name)), 0);
    line.hidden = !when();
  };
  return { element: line, refresh };
}

export function toggle(model, { name, label }) {
  const input = element("input", { type: "checkbox", "data-name": name });
  input.addEventListener("change", () => change(model, { [name]: input.checked }));
  const refresh = () => (input.checked = model.get(name));
  return { element: element("label", { class: "ps-toggle" }, input, label), refresh };
}

export function button(text, action, attributes = {}) {
  return element("button", { type: "button", onclick: action, ...attributes }, text);
}

export function group(title, ...controls) {
  return element("fieldset", {}, element("legend", {}, title), ...controls);
}

// A canvas one can point at with mouse, finger or arrow keys. `size` and `stride` are functions: pixels of the picture
// and of an arrow key's step; `point` reads and `move` writes the place in pixels.
export function pointable({ label, size, stride, point, move, hover = () => {} }) {
  const canvas = element("canvas", {
    class: "ps-picture", tabindex: 0, role: "application", "aria-roledescription": "picture with a point",
    "aria-label": label, ...OWN_KEYS,
  });
  const inside = ([x, y]) => {
    const [width, height] = size();
    return [Math.min(Math.max(x, 0.5), width - 0.5), Math.min(Math.max(y, 0.5), height - 0.5)];
  };
  const place = (event) => {
    const box = canvas.getBoundingClientRect(), [width, height] = size();
    const pixel = (share, pixels) => Math.floor(share * pixels) + 0.5; // pixel centres
    return inside([pixel((event.clientX - box.left) / box.width, width), pixel((event.clientY - box.top) / box.height, height)]);
  };
  canvas.addEventListener("pointerdown", (event) => {
    canvas.focus({ preventScroll: true });
    move(place(event));
  });
  canvas.addEventListener("pointermove", (event) => (event.buttons ? move(place(event)) : hover(place(event))));
  canvas.addEventListener("pointerleave", () => hover(null));
  canvas.addEventListener("keydown", (event) => {
    const direction = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key];
    if (!direction) return;
    event.preventDefault();
    const reach = event.shiftKey ? 1 : stride(), [x, y] = point();
    move(inside([x + direction[0] * reach, y + direction[1] * reach]));
  });
  return canvas;
}

// Runs `draw` once at the next frame, however often it is asked to.
export function scheduled(draw) {
  let waiting = 0;
  return () => {
    if (!waiting)
      waiting = requestAnimationFrame(() => {
        waiting = 0;
        draw();
      });
  };
}

// Play and pause: calls `advance` until it returns false.
export function player(label, advance, milliseconds = 350) {
  let timer = 0;
  const stop = () => {
    clearInterval(timer);
    timer = 0;
    play.textContent = `▶ ${label}`;
    play.setAttribute("aria-pressed", "false");
  };
  const play = button(`▶ ${label}`, () => {
    if (timer) return stop();
    timer = setInterval(() => advance() || stop(), milliseconds);
    play.textContent = "⏸ Pause";
    play.setAttribute("aria-pressed", "true");
    advance(true);
  }, { class: "ps-play", "aria-pressed": "false" });
  return { element: play, stop };
}

// State in the part of the address behind `#`: only what differs from the defaults is written.
export function linked(model, defaults, mark = "explore") {
  const differs = (name) => JSON.stringify(model.get(name)) !== JSON.stringify(defaults[name]);
  const read = () => {
    const text = decodeURIComponent(location.hash.slice(1));
    if (!text.startsWith(`${mark}?`)) return {};
    const given = Object.fromEntries(new URLSearchParams(text.slice(mark.length + 1)));
    const known = Object.keys(given).filter((name) => name in defaults);
    return { ...defaults, ...Object.fromEntries(known.map((name) => [name, parsed(given[name], defaults[name])])) };
  };
  const address = () => {
    const pairs = Object.keys(defaults).filter(differs).map((name) => [name, written(model.get(name))]);
    return `#${mark}?${new URLSearchParams(pairs)}`;
  };
  return { read, address };
}

function written(value) {
  return Array.isArray(value) ? value.join(",") : value === Infinity ? "inf" : String(value);
}

// A value of the default's type; the default where the text is not one.
function parsed(text, example) {
  if (Array.isArray(example)) {
    const numbers = text.split(",").map(Number);
    return numbers.length === example.length && numbers.every(Number.isFinite) ? numbers : example;
  }
  if (typeof example === "boolean") return text === "true";
  if (typeof example !== "number") return text;
  const number = text === "inf" ? Infinity : Number(text);
  return Number.isNaN(number) ? example : number;
}

// Keeps the last answer of a costly function for as long as its key stays the same.
export function remembered(compute) {
  let last = null, answer;
  return (key, ...given) => {
    if (key !== last) answer = compute(...given);
    last = key;
    return answer;
  };
}
