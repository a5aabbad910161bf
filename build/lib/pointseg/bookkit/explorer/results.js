// What was found, in words and in a table.

import { element } from "./panel.js";
import { colourOf, css } from "./drawing.js";

const percent = (share) => `${Math.round(share * 100)} %`;

// Each key-point with its cell, its part precision and what becomes of it: rows of text, and [AS Alg. 1] behind them.
export function fates({ filtered, groups }, { filter_threshold, merge_threshold }) {
  const { precision, area } = filtered, rows = [];
  for (const k of filtered.removed) {
    const why = area[k] ? `${percent(precision[k])} of its part on the foreground, T_f asks ${percent(filter_threshold)}`
      : "owns no token";
    rows.push({ k, fate: "removed", why });
  }
  for (const { largest, members, likeness } of groups)
    members.forEach((k, i) => rows.push(k === largest
      ? { k, fate: "kept", why: members.length > 1 ? `largest of ${members.length} merged` : "unlike every larger one" }
      : { k, fate: `merged into ${largest + 1}`, why: `cosine ${likeness[i].toFixed(3)} > T_m ${merge_threshold}` }));
  return rows.sort((a, b) => a.k - b.k).map((row) => ({ ...row, area: area[row.k], precision: precision[row.k] }));
}

export function fateTable(end, state) {
  const head = ["Key-point", "Tokens", "Precision", "Fate", "Why"].map((text) => element("th", { scope: "col" }, text));
  const rows = fates(end, state).map(({ k, area, precision, fate, why }) => {
    const swatch = element("span", { class: "ps-swatch", style: `background:${css(colourOf(k))}` });
    const cells = [area, percent(precision), fate, why].map((text) => element("td", {}, String(text)));
    return element("tr", { class: `ps-${fate.split(" ")[0]}` }, element("th", { scope: "row" }, swatch, String(k + 1)), ...cells);
  });
  const caption = element("caption", {}, "What filtering and merging do, and why");
  return element("table", {}, caption, element("thead", {}, element("tr", {}, ...head)), element("tbody", {}, ...rows));
}

// The figures beside the picture.
export function scores({ groups, filtered, mask, object, iou, recall, step, known }, { box }) {
  const pairs = [
    ["Pointed at", object ? object.name : known ? "no object" : "– (no masks known)"],
    ["IoU with the truth", iou == null ? "–" : percent(iou)],
    ["Part recall", recall == null ? "–" : percent(recall)],
    ["Key-points", `${groups.length} of ${filtered.area.length}, ${filtered.removed.length} removed`],
    ["Rounds", String(step)],
    ["Box", box.map(Math.round).join(", ")],
    ["Mask", `${mask.filter(Boolean).length} tokens`],
  ];
  return pairs.flatMap(([name, value]) => [element("dt", {}, name), element("dd", {}, value)]);
}

// The same as one sentence for screen readers.
export function spoken({ groups, filtered, object, iou, recall, step, known }, { box }, [x, y]) {
  const truth = object ? `, on ${object.name}` : known ? ", on no object" : "";
  const meets = iou == null ? "" : ` The mask meets the truth with IoU ${percent(iou)}`
    + (recall == null ? "." : ` and holds ${percent(recall)} of the parts.`);
  return `Point at ${Math.round(x)}, ${Math.round(y)}${truth}. After ${step} rounds ${groups.length} key-points are left `
    + `and ${filtered.removed.length} removed. Box from ${box.slice(0, 2).map(Math.round).join(", ")} to `
    + `${box.slice(2).map(Math.round).join(", ")}.${meets}`;
}
