// The planned windows: every target with the colour of the field of view it is looked at with.

import { between, valueOf } from "./colours.js";
import { layerOf, scene } from "./manifest.js";
import { loadCodes } from "./tiles.js";

const SMALLEST = 9; // screen pixels; smaller targets would only be a grey veil

/** The field of view chosen at a point, from the foveation map; null where it is not known. */
export function chosenView(targets, fov, tiles, x, y) {
  if (!fov) return targets.views.length === 1 ? targets.views[0] : null;
  const col = Math.min(Math.floor(x / fov.pixel), fov.width - 1);
  const row = Math.min(Math.floor(y / fov.pixel), fov.height - 1);
  const tile = tiles.get(`${Math.floor(col / scene.tile)}/${Math.floor(row / scene.tile)}`);
  const value = tile ? valueOf(fov.scale, tile.codes[(row % scene.tile) * tile.width + (col % scene.tile)]) : null;
  if (value === null) return null;
  return targets.views.reduce((best, view) => (Math.abs(view - value) < Math.abs(best - value) ? view : best));
}

/** The tiles of the foveation map under an area, by "column/row"; those that are not there yet are asked for. */
function tilesUnder(fov, area, known, arrived) {
  const first = (start) => Math.max(0, Math.floor(start / fov.pixel / scene.tile));
  const last = (end, length) => Math.min(Math.floor(end / fov.pixel), length - 1) / scene.tile;
  for (let row = first(area.top); row <= last(area.bottom, fov.height); row += 1) {
    for (let col = first(area.left); col <= last(area.right, fov.width); col += 1) {
      const key = `${col}/${row}`;
      if (known.has(key)) continue;
      known.set(key, null);
      loadCodes(fov, fov.maxLevel, col, row).then((tile) => arrived(key, tile), () => known.delete(key));
    }
  }
}

function viewColour(targets, fov, view) {
  if (!fov || targets.views.length === 1) return "#ffffff";
  const [low, high] = [targets.views[0], targets.views[targets.views.length - 1]];
  return `rgb(${between(fov.scale.stops, (view - low) / (high - low)).join(" ")})`;
}

/** Draws over one pane. */
export class WindowsOverlay {
  constructor(canvas, pane) {
    this.canvas = canvas;
    this.pane = pane;
    this.known = new Map();
    this.prediction = null;
    this.pointer = null;
  }

  /** Point at a place, {x, y} in pixels of the image, whose whole window is outlined. */
  point(place) {
    this.pointer = place;
    this.draw();
  }

  draw() {
    const { canvas, pane } = this;
    const ratio = window.devicePixelRatio || 1;
    const [width, height] = [canvas.clientWidth, canvas.clientHeight];
    canvas.width = width * ratio;
    canvas.height = height * ratio;
    const targets = scene.targets[pane.prediction];
    if (!pane.windowsShown || !targets) return;
    const context = canvas.getContext("2d");
    context.scale(ratio, ratio);
    context.globalAlpha = pane.windowsOpacity;
    const view = pane.screen(); // {x, y, scale}: screen = (image - corner) * scale
    this.area = {
      left: Math.max(0, view.x),
      top: Math.max(0, view.y),
      right: Math.min(scene.width, view.x + width / view.scale) - 1e-6,
      bottom: Math.min(scene.height, view.y + height / view.scale) - 1e-6,
    };
    this.fov = layerOf("fov", pane.prediction);
    if (this.prediction !== pane.prediction) this.known.clear();
    this.prediction = pane.prediction;
    if (targets.side * view.scale >= SMALLEST) this.drawTargets(context, view, targets);
  }

  drawTargets(context, view, targets) {
    const { area, fov } = this;
    const arrived = (key, tile) => {
      this.known.set(key, tile);
      this.draw();
    };
    if (fov) tilesUnder(fov, area, this.known, arrived);
    const side = targets.side * view.scale;
    const inset = Math.min(2, side / 8);
    context.lineWidth = Math.min(2, Math.max(1, side / 16));
    for (let row = Math.floor(area.top / targets.side); row <= area.bottom / targets.side; row += 1) {
      for (let col = Math.floor(area.left / targets.side); col <= area.right / targets.side; col += 1) {
        const [x, y] = [(col + 0.5) * targets.side, (row + 0.5) * targets.side];
        const chosen = chosenView(targets, fov, this.known, Math.min(x, scene.width - 1), Math.min(y, scene.height - 1));
        context.strokeStyle = chosen === null ? "#9aa0a6" : viewColour(targets, fov, chosen);
        const [left, top] = [(col * targets.side - view.x) * view.scale, (row * targets.side - view.y) * view.scale];
        context.strokeRect(left + inset, top + inset, side - 2 * inset, side - 2 * inset);
      }
    }
    if (this.pointer) this.outline(context, view, targets);
  }

  /** The whole window of the target under the pointer, which may reach far around it. */
  outline(context, view, targets) {
    const [col, row] = [this.pointer.x, this.pointer.y].map((at) => Math.floor(at / targets.side));
    if (this.pointer.x < 0 || this.pointer.y < 0 || this.pointer.x >= scene.width || this.pointer.y >= scene.height) return;
    const [x, y] = [(col + 0.5) * targets.side, (row + 0.5) * targets.side];
    const chosen = chosenView(targets, this.fov, this.known, Math.min(x, scene.width - 1), Math.min(y, scene.height - 1));
    if (chosen === null) return;
    const [left, top, side] = [x - chosen / 2 - view.x, y - chosen / 2 - view.y, chosen].map((v) => v * view.scale);
    for (const [colour, width] of [["#000000", 5], [viewColour(targets, this.fov, chosen), 3]]) {
      context.strokeStyle = colour;
      context.lineWidth = width;
      context.strokeRect(left, top, side, side);
    }
  }
}
