// What is drawn: a list of shapes in pixels of the picture, painted on a canvas or written as SVG.

// Okabe and Ito's colours without black, then the same lighter: the palette of pointseg.bookkit.figures.
const PALETTE = [[230, 159, 0], [86, 180, 233], [0, 158, 115], [240, 228, 66], [0, 114, 178], [213, 94, 0], [204, 121, 167]];
// Anchors of viridis, dark to light.
const HEAT = [[68, 1, 84], [70, 50, 127], [54, 92, 141], [39, 127, 142], [31, 161, 135], [74, 194, 109], [159, 218, 58], [253, 231, 37]];

export function colourOf(k) {
  const base = PALETTE[k % PALETTE.length], lift = Math.floor(k / PALETTE.length) % 2 ? 0.45 : 0;
  return base.map((v) => Math.round(v + (255 - v) * lift));
}

export function heatOf(value) {
  const place = Math.min(Math.max(value, 0), 1) * (HEAT.length - 1), low = Math.min(Math.floor(place), HEAT.length - 2);
  return HEAT[low].map((v, i) => Math.round(v + (HEAT[low + 1][i] - v) * (place - low)));
}

export const css = ([r, g, b], alpha = 1) => `rgba(${r},${g},${b},${alpha})`;

// Cells of `cell` pixels; `paint` gives [r, g, b] or null of each.
export function raster([rows, columns], cell, paint, alpha) {
  const colours = Array.from({ length: rows * columns }, (_, i) => paint(i));
  return { kind: "raster", rows, columns, cell, colours, alpha };
}

// Border of a pixel mask as edges between pixels: [x, y, across] with length 1.
export function edgesOf(mask, width) {
  const edges = [], height = mask.length / width;
  for (let i = 0; i < mask.length; i++) {
    if (!mask[i]) continue;
    const x = i % width, y = Math.floor(i / width);
    if (x === 0 || !mask[i - 1]) edges.push([x, y, false]);
    if (x === width - 1 || !mask[i + 1]) edges.push([x + 1, y, false]);
    if (y === 0 || !mask[i - width]) edges.push([x, y, true]);
    if (y === height - 1 || !mask[i + width]) edges.push([x, y + 1, true]);
  }
  return edges;
}

const PAINTERS = {
  raster(context, { rows, columns, cell, colours, alpha }, scale) {
    const small = document.createElement("canvas");
    small.width = columns;
    small.height = rows;
    const data = new ImageData(columns, rows);
    for (let i = 0; i < colours.length; i++) {
      if (!colours[i]) continue;
      [data.data[i * 4], data.data[i * 4 + 1], data.data[i * 4 + 2]] = colours[i];
      data.data[i * 4 + 3] = 255;
    }
    small.getContext("2d").putImageData(data, 0, 0);
    context.imageSmoothingEnabled = false;
    context.globalAlpha = alpha;
    context.drawImage(small, 0, 0, columns * cell * scale, rows * cell * scale);
    context.globalAlpha = 1;
  },
  line(context, { points, colour, width }, scale) {
    context.beginPath();
    points.forEach(([x, y]) => context.lineTo(x * scale, y * scale));
    stroke(context, colour, width);
  },
  box(context, { box: [x0, y0, x1, y1], colour, width }, scale) {
    context.beginPath();
    context.rect(x0 * scale, y0 * scale, (x1 - x0) * scale, (y1 - y0) * scale);
    stroke(context, colour, width);
  },
  edges(context, { edges, colour, width }, scale) {
    context.beginPath();
    for (const [x, y, across] of edges) {
      context.moveTo(x * scale, y * scale);
      context.lineTo((x + (across ? 1 : 0)) * scale, (y + (across ? 0 : 1)) * scale);
    }
    stroke(context, colour, width);
  },
  dot(context, { at: [x, y], colour, radius }, scale) {
    context.beginPath();
    context.arc(x * scale, y * scale, radius, 0, 7);
    context.fillStyle = colour;
    context.fill();
    stroke(context, "#fff", 2);
  },
  star(context, { at: [x, y], radius }, scale) {
    for (const [colour, width] of [["#fff", 5], ["#000", 2]]) {
      context.beginPath();
      for (const [dx, dy] of [[1, 0], [0, 1]]) {
        context.moveTo(x * scale - dx * radius, y * scale - dy * radius);
        context.lineTo(x * scale + dx * radius, y * scale + dy * radius);
      }
      stroke(context, colour, width);
    }
  },
};

function stroke(context, colour, width) {
  context.strokeStyle = colour;
  context.lineWidth = width;
  context.stroke();
}

// Paints the picture and its shapes; one pixel of the picture is `scale` pixels of the canvas.
export function paint(canvas, image, [width, height], shapes, scale) {
  const [across, down] = [Math.round(width * scale), Math.round(height * scale)];
  if (canvas.width !== across || canvas.height !== down) [canvas.width, canvas.height] = [across, down];
  const context = canvas.getContext("2d");
  context.imageSmoothingEnabled = true;
  context.drawImage(image, 0, 0, across, down);
  for (const shape of shapes) PAINTERS[shape.kind](context, shape, scale);
}

const WRITERS = {
  raster({ columns, cell, colours, alpha }) {
    const rects = [];
    for (let i = 0; i < colours.length; i++) {
      if (!colours[i]) continue;
      let end = i + 1; // one rectangle for equal neighbours in a row
      while (end % columns && String(colours[end]) === String(colours[i])) end += 1;
      const x = (i % columns) * cell, y = Math.floor(i / columns) * cell;
      rects.push(`<rect x="${x}" y="${y}" width="${(end - i) * cell}" height="${cell}" fill="${css(colours[i])}"/>`);
      i = end - 1;
    }
    return `<g opacity="${alpha}" shape-rendering="crispEdges">${rects.join("")}</g>`;
  },
  line: ({ points, colour, width }, scale) =>
    `<polyline points="${points.map((p) => p.join()).join(" ")}" fill="none" stroke="${colour}" stroke-width="${width / scale}"/>`,
  box: ({ box: [x0, y0, x1, y1], colour, width }, scale) =>
    `<rect x="${x0}" y="${y0}" width="${x1 - x0}" height="${y1 - y0}" fill="none" stroke="${colour}" stroke-width="${width / scale}"/>`,
  edges: ({ edges, colour, width }, scale) =>
    `<path d="${edges.map(([x, y, across]) => `M${x} ${y}${across ? "h1" : "v1"}`).join("")}" stroke="${colour}" stroke-width="${width / scale}"/>`,
  dot: ({ at, colour, radius }, scale) =>
    `<circle cx="${at[0]}" cy="${at[1]}" r="${radius / scale}" fill="${colour}" stroke="#fff" stroke-width="${2 / scale}"/>`,
  star: ({ at: [x, y], radius }, scale) => {
    const r = radius / scale, cross = `M${x - r} ${y}h${2 * r}M${x} ${y - r}v${2 * r}`;
    return `<path d="${cross}" stroke="#fff" stroke-width="${5 / scale}"/><path d="${cross}" stroke="#000" stroke-width="${2 / scale}"/>`;
  },
};

// Text of anybody's, as XML shows it.
const escaped = (text) => text.replace(/[&<>"]/g, (c) => `&#${c.charCodeAt(0)};`);

export function svgText(href, [width, height], shapes, scale, title) {
  const body = shapes.map((shape) => WRITERS[shape.kind](shape, scale)).join("\n");
  return `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${width} ${height}" width="${width * scale}" height="${height * scale}">
<title>${escaped(title)}</title>\n<image href="${escaped(href)}" width="${width}" height="${height}"/>\n${body}\n</svg>\n`;
}
