// What is under a point: always from the tile at full resolution, whatever is on screen.

import { scene } from "./manifest.js";
import { valueOf } from "./colours.js";
import { valueText } from "./format.js";
import { loadCodes } from "./tiles.js";

/** The code of a layer at a point in pixels of the image; null outside. */
export async function codeAt(layer, x, y) {
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
export function inWords(layer, code) {
  if (code === null) return null;
  if (layer.scale) {
    const value = valueOf(layer.scale, code);
    return value === null ? null : { text: valueText(value, layer.scale.unit), color: "" };
  }
  if (layer.sets) return setInWords(layer, code);
  const entry = layer.classes.find((item) => item.code === (layer.border ? code % layer.border : code));
  return entry ? { text: entry.name, color: entry.color } : null;
}
