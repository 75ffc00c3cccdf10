// The panel: a switch, an opacity and a legend for every kind of layer.

import { byId, el } from "./dom.js";
import { WINDOWS, firstOf, hasAreas, kinds, layersOf, scene } from "./manifest.js";
import { percent, valueText } from "./format.js";
import { changed, layerOf, onChange, setOutlined, state, toggleLayer } from "./state.js";
import { toneControls } from "./tone.js";

const rows = new Map();
const WINDOWS_HINT = "The part of each window that is used; zoom in to see it. Point at one to see the whole window.";

/** The layer whose legend is shown: of the prediction people look at. */
function present(kind) {
  const prediction = state.predictions.find((number) => number >= 0) ?? 0;
  return layerOf(kind, prediction) ?? firstOf(kind);
}

function row(kind, place) {
  const { title } = firstOf(kind);
  const box = el("input", { type: "checkbox", id: `layer-${kind}`, onchange: () => toggleLayer(kind) });
  const share = el("output", { class: "number", for: `opacity-${kind}` });
  const range = el("input", {
    type: "range", id: `opacity-${kind}`, min: 0, max: 100, step: 5, "aria-label": `Opacity of ${title}`,
    oninput: () => {
      state.layers[kind].opacity = range.value / 100;
      changed();
    },
  });
  const more = el("div", { class: "more" }, el("div", { class: "slider" }, el("span", {}, "Opacity"), range, share), fill(kind), legend(kind));
  const key = place < 9 ? el("kbd", { "aria-hidden": "true" }, String(place + 1)) : null;
  const head = el("label", { class: "head", for: box.id }, box, el("span", { class: "name" }, title), key);
  rows.set(kind, { box, range, share, more });
  return el("li", { class: "layer", "data-kind": kind }, head, more);
}

/** Whether areas are filled or outlined; null of layers without any. */
function fill(kind) {
  if (!hasAreas(kind)) return null;
  const box = el("input", { type: "checkbox", class: "outlined", id: `outlined-${kind}`, onchange: () => {
    setOutlined(kind, box.checked);
    changed();
  } });
  return el("label", { class: "choice" }, box, "Outlines only");
}

function legend(kind) {
  const layer = present(kind);
  if (kind === "image") return toneControls(layer);
  if (kind === WINDOWS) return el("div", {}, classLegend(kind, layer), el("p", { class: "hint" }, WINDOWS_HINT));
  if (layer.scale) return el("div", {}, options(kind), scaleLegend(layer));
  if (layer.option) return el("div", {}, options(kind), classLegend(kind, layer));
  return layer.classes.length ? classLegend(kind, layer) : null;
}

function classLegend(kind, layer) {
  const list = el("ul", { class: "classes", "aria-label": `Classes of ${layer.title}` });
  for (const entry of layer.classes.filter((item) => item.color)) list.append(classRow(kind, layer, entry));
  return list;
}

function classRow(kind, layer, entry) {
  const { hidden } = state.layers[kind];
  const box = el("input", {
    type: "checkbox", class: "swatch", "data-code": entry.code,
    onchange: () => {
      const now = state.layers[kind].hidden;
      box.checked ? now.delete(entry.code) : now.add(entry.code);
      changed();
    },
  });
  box.checked = !hidden.has(entry.code);
  box.style.setProperty("--class", entry.color);
  const only = el("button", { type: "button", class: "only", "aria-label": `Show only ${entry.name}`,
    onclick: () => showOnly(kind, layer, entry.code) }, "only");
  const share = entry.share === null ? null : el("span", { class: "number" }, percent(entry.share));
  return el("li", {}, el("label", {}, box, el("span", { class: "name" }, entry.name), share), only);
}

/** Hide all other classes; when they are hidden already, show all. */
function showOnly(kind, layer, code) {
  const others = layer.classes.filter((item) => item.color && item.code !== code).map((item) => item.code);
  const { hidden } = state.layers[kind];
  const done = others.every((other) => hidden.has(other)) && !hidden.has(code);
  state.layers[kind].hidden = new Set(done ? [] : others);
  changed();
}

function scaleLegend({ title, scale }) {
  const bar = el("div", { class: "gradient", role: "img",
    "aria-label": `${title} from ${valueText(scale.low, scale.unit)} to ${valueText(scale.high, scale.unit)}` });
  bar.style.setProperty("--stops", scale.stops.join(", "));
  const ends = [scale.low, (scale.low + scale.high) / 2, scale.high].map((value) => valueText(value, scale.unit));
  return el("div", { class: "scale" }, bar, el("div", { class: "ends number" }, ...ends.map((text) => el("span", {}, text))));
}

/** The choice of one of several layers of a kind, such as the class whose probability is shown; null of one alone. */
function options(kind) {
  const all = layersOf(kind, firstOf(kind).prediction);
  if (all.length < 2) return null;
  const choose = el("select", { class: "option", "aria-label": `${all[0].title} of`, onchange: () => {
    state.layers[kind].option = Number(choose.value);
    changed();
  } });
  choose.append(...all.map(({ option }, place) => el("option", { value: place }, option)));
  return choose;
}

function draw() {
  for (const [kind, { box, range, share, more }] of rows) {
    const { on, opacity, hidden, outlined } = state.layers[kind];
    box.checked = on;
    more.hidden = !on;
    range.value = Math.round(100 * opacity);
    share.textContent = `${Math.round(100 * opacity)} %`;
    const lines = more.querySelector("input.outlined");
    if (lines) lines.checked = outlined;
    const choose = more.querySelector("select");
    if (choose) choose.value = state.layers[kind].option;
    for (const swatch of more.querySelectorAll("input.swatch")) swatch.checked = !hidden.has(Number(swatch.dataset.code));
  }
}

/** Fill the panel. */
export function startPanel() {
  byId("layers").append(...kinds().map(row));
  for (const text of scene.notices) byId("notices").append(el("li", {}, text));
  onChange(draw);
}
