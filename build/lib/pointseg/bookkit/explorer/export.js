// Files a reader can keep.

import { button, element } from "./panel.js";

export function download(name, blob) {
  const url = URL.createObjectURL(blob);
  const anchor = element("a", { href: url, download: name });
  document.body.append(anchor);
  anchor.click();
  anchor.remove();
  setTimeout(() => URL.revokeObjectURL(url), 1000);
}

// Buttons for PNG, SVG and JSON; `canvas` is painted already, `svg` and `record` are functions.
export function exports(name, canvas, svg, record) {
  return element("span", { class: "ps-exports", role: "group", "aria-label": "Save" },
    button("PNG", () => canvas.toBlob((blob) => download(`${name}.png`, blob))),
    button("SVG", () => download(`${name}.svg`, new Blob([svg()], { type: "image/svg+xml" }))),
    button("JSON", () => download(`${name}.json`, new Blob([JSON.stringify(record(), null, 1)], { type: "application/json" }))));
}
