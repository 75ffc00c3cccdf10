// Where the pointer is, on the image and on the ground, and what each layer says there: always from the tile at full
// resolution, whatever is on screen.

import { byId, el } from "./dom.js";
import { WINDOWS, scene } from "./manifest.js";
import { valueOf } from "./colours.js";
import { groundText, integer, valueText } from "./format.js";
import { loadCodes } from "./tiles.js";
import { shownPanes } from "./panes.js";
import { isChosen, state } from "./state.js";

let asked = 0;
let pending = null;

/** The code of a layer at a point in pixels of the image; null outside. */
async function codeAt(layer, x, y) {
  const [col, row] = [Math.floor(x / layer.pixel), Math.floor(y / layer.pixel)];
  if (col < 0 || row < 0 || col >= layer.width || row >= layer.height) return null;
  const [tileCol, tileRow] = [Math.floor(col / scene.tile), Math.floor(row / scene.tile)];
  const tile = await loadCodes(layer, layer.maxLevel, tileCol, tileRow);
  return tile.codes[(row - tileRow * scene.tile) * tile.width + (col - tileCol * scene.tile)];
}

/** All classes of a code, in the colour of the first. */
function setInWords(layer, code) {
  const there = code === 255 ? [] : layer.classes.filter((item) => (code >> item.code) & 1);
  return there.length ? { text: there.map((item) => item.name).join(" and "), color: there[0].color } : null;
}

/** A code in words, with the colour it is drawn in: {text, color}; null where there is nothing. */
function inWords(layer, code) {
  if (code === null) return null;
  if (layer.scale) {
    const value = valueOf(layer.scale, code);
    return value === null ? null : { text: valueText(value, layer.scale.unit), color: "" };
  }
  if (layer.sets) return setInWords(layer, code);
  const entry = layer.classes.find((item) => item.code === (layer.border ? code % layer.border : code));
  return entry ? { text: entry.name, color: entry.color } : null;
}

function ground({ x, y }) {
  const place = scene.georeference;
  if (!place) return null;
  const [a, b, c, d, e, f] = place.transform;
  return { name: place.name || "ground", text: groundText(a * x + b * y + c, d * x + e * y + f, place) };
}

/** A pair of name and value. */
function fact(name, text, color) {
  const value = el("dd", {}, text);
  if (color) {
    const dot = el("span", { class: "dot", "aria-hidden": "true" });
    dot.style.setProperty("--class", color);
    value.prepend(dot);
  }
  return el("div", { class: "fact" }, el("dt", {}, name), value);
}

function layersOf(pane) {
  const mine = (layer) => layer.prediction === pane.prediction || (layer.prediction === null && pane.prediction !== -1);
  // The classes are read out even where they are not drawn: they are what the page is about.
  const asked = (layer) => state.layers[layer.kind].on || layer.kind === "classes";
  const read = (layer) => layer.media === "png" && layer.kind !== WINDOWS && isChosen(layer);
  return scene.layers.filter((layer) => read(layer) && mine(layer) && asked(layer));
}

async function factsAt(point) {
  const panes = shownPanes();
  const seen = new Set();
  const facts = [];
  for (const pane of panes) {
    const whose = panes.length > 1 && scene.predictions.length > 1;
    const named = (title, prediction) => (whose && prediction !== null ? `${title}, ${scene.predictions[prediction]}` : title);
    for (const layer of layersOf(pane).filter((item) => !seen.has(item.index))) {
      seen.add(layer.index);
      const words = inWords(layer, await codeAt(layer, point.x, point.y));
      const title = layer.option ? `${layer.title} of ${layer.option}` : layer.title;
      facts.push(fact(named(title, layer.prediction), words ? words.text : "none", words?.color));
    }
    const windows = await pane.windows.namesAt(point);
    if (windows.length) facts.push(fact(named("Windows", pane.prediction), windows.join("; ")));
  }
  return facts;
}

function inside({ x, y }) {
  return x >= 0 && y >= 0 && x < scene.width && y < scene.height;
}

/** Read out a point of the image, in pixels; spoken as well when it was reached by the keyboard. */
export function readAt(point, spoken = false) {
  const place = byId("readout");
  place.setAttribute("aria-live", spoken ? "polite" : "off");
  asked += 1;
  const mine = asked;
  clearTimeout(pending);
  if (!inside(point)) {
    place.replaceChildren(el("p", { class: "hint" }, "outside the image"));
    return;
  }
  const where = [fact("x, y", `${integer(point.x)}, ${integer(point.y)}`)];
  const there = ground(point);
  if (there) where.push(fact(there.name, there.text));
  const position = el("dl", { class: "where" }, ...where);
  if (place.querySelector(".where")) place.querySelector(".where").replaceWith(position);
  else place.replaceChildren(position);
  pending = setTimeout(async () => {
    const facts = await factsAt(point).catch(() => [fact("values", "cannot be read")]);
    if (mine !== asked) return; // the pointer went on
    place.replaceChildren(position, el("dl", {}, ...facts));
  }, 30);
}

/** Follow the pointer over a pane. */
export function watch(pane) {
  const at = (event) => {
    const box = pane.element.getBoundingClientRect();
    return pane.imagePoint(event.clientX - box.left, event.clientY - box.top);
  };
  const move = (event) => {
    const point = at(event);
    shownPanes().forEach((other) => {
      other.cross.hidden = true;
      other.windows.point(point);
    });
    readAt(point);
  };
  pane.element.addEventListener("pointermove", move);
  pane.element.addEventListener("pointerdown", move);
}

/** Read out the middle of a pane, marked by a cross: for people who work with the keyboard. */
export function readMiddle(pane) {
  const { x, y } = pane.view();
  shownPanes().forEach((other) => {
    other.cross.hidden = false;
    other.windows.point({ x, y });
  });
  readAt({ x, y }, true);
}
