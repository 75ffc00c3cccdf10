// The address restores the view: everything that can be changed is in the part after "#".

import { changed, state } from "./state.js";
import { firstOf, scene } from "./manifest.js";

function layerParts() {
  return Object.entries(state.layers).map(([kind, { on, opacity, hidden, option, outlined }]) =>
    [kind, on ? 1 : 0, Math.round(100 * opacity), [...hidden].sort((a, b) => a - b).join("."), option || "", outlined ? 1 : ""]
      .join("~")
      .replace(/~+$/, "")
  );
}

/** The part of the address for the present state and a view {x, y, width} in pixels of the image. */
export function hashOf(view) {
  const parts = new URLSearchParams();
  parts.set("x", view.x.toFixed(1));
  parts.set("y", view.y.toFixed(1));
  parts.set("w", view.width.toFixed(1));
  parts.set("layers", layerParts().join(","));
  if (firstOf("image")) parts.set("tone", [...state.tone.ends.flat(), state.tone.gamma].map((value) => Number(value.toFixed(3))).join("~"));
  if (state.side) parts.set("side", "1");
  if (scene.predictions.length) parts.set("show", state.predictions.join("~"));
  return `#${parts.toString().replaceAll("%7E", "~").replaceAll("%2C", ",")}`;
}

function readLayer(text) {
  const [kind, on, opacity, hidden, option, outlined] = text.split("~");
  if (!Object.hasOwn(state.layers, kind)) return; // of another image
  const share = Number.parseInt(opacity, 10) / 100;
  state.layers[kind] = {
    on: on === "1",
    opacity: Number.isFinite(share) ? Math.min(Math.max(share, 0), 1) : 1,
    hidden: new Set((hidden ?? "").split(".").filter((code) => /^\d{1,3}$/.test(code)).map(Number)),
    option: /^\d{1,3}$/.test(option ?? "") ? Number(option) : 0,
    outlined: outlined === "1",
  };
}

function readPredictions(text) {
  const numbers = text.split("~").map(Number);
  const known = (number) => Number.isInteger(number) && number >= -1 && number < scene.predictions.length;
  if (numbers.length === 2 && numbers.every(known)) state.predictions = numbers;
}

function readTone(text) {
  const numbers = text.split("~").map(Number);
  const gamma = numbers.pop();
  const ends = state.tone.ends.map((_, place) => numbers.slice(2 * place, 2 * place + 2));
  const known = numbers.length === 2 * ends.length && ends.every(([black, white]) => black >= 0 && black < white && white <= 1);
  if (known && gamma >= 0.1 && gamma <= 10) state.tone = { ends, gamma };
}

/** Take over a part of an address; returns its view, or null where it names none that makes sense. */
export function restore(hash) {
  const parts = new URLSearchParams(hash.replace(/^#/, ""));
  if (parts.has("layers")) {
    parts.get("layers").split(",").forEach(readLayer);
    state.side = parts.get("side") === "1";
  }
  if (parts.has("tone")) readTone(parts.get("tone"));
  if (parts.has("show")) readPredictions(parts.get("show"));
  changed();
  const [x, y, width] = ["x", "y", "w"].map((name) => Number.parseFloat(parts.get(name)));
  return [x, y, width].every(Number.isFinite) && width > 0 ? { x, y, width } : null;
}
