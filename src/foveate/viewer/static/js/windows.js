// The windows that passed through the network: the used part of each, and the whole of those under the pointer.

import { isDark } from "./colours.js";
import { scene } from "./manifest.js";
import { loadCodes } from "./tiles.js";

const SMALLEST = 9; // screen pixels; smaller parts would only be a grey veil

/** The codes of a layer at full resolution, as far as they have arrived; what is missing is asked for. */
class Codes {
  constructor(layer, arrived) {
    this.layer = layer;
    this.arrived = arrived;
    this.tiles = new Map();
  }

  at(col, row) {
    const { layer } = this;
    if (col < 0 || row < 0 || col >= layer.width || row >= layer.height) return 0;
    const [tileCol, tileRow] = [Math.floor(col / scene.tile), Math.floor(row / scene.tile)];
    const tile = this.tile(tileCol, tileRow);
    return tile ? tile.codes[(row - tileRow * scene.tile) * tile.width + (col - tileCol * scene.tile)] : 0;
  }

  tile(col, row) {
    const key = `${col}/${row}`;
    if (!this.tiles.has(key)) this.load(col, row).then(() => this.arrived(), () => this.tiles.delete(key));
    return this.tiles.get(key);
  }

  async load(col, row) {
    const key = `${col}/${row}`;
    if (!this.tiles.get(key)) this.tiles.set(key, null);
    this.tiles.set(key, await loadCodes(this.layer, this.layer.maxLevel, col, row));
  }

  /** Wait for all that begins at most `reach` pixels of the image above or left of a point. */
  async loaded(x, y, reach) {
    const number = (at, length) => Math.floor(Math.min(Math.max(0, Math.floor(at / this.layer.pixel)), length - 1) / scene.tile);
    for (let row = number(y - reach, this.layer.height); row <= number(y, this.layer.height); row += 1) {
      for (let col = number(x - reach, this.layer.width); col <= number(x, this.layer.width); col += 1) await this.load(col, row);
    }
  }
}

/** Calls back with every used part {look, left, top}, in pixels of the image, that begins in an area or reaches into it. */
function eachPart(codes, look, area, found) {
  const { pixel, width, height } = codes.layer;
  const first = (start) => Math.max(0, Math.floor((start - look.side) / pixel) + 1);
  const [lastCol, lastRow] = [Math.min(width - 1, Math.floor(area.right / pixel)), Math.min(height - 1, Math.floor(area.bottom / pixel))];
  for (let row = first(area.top); row <= lastRow; row += 1) {
    for (let col = first(area.left); col <= lastCol; col += 1) {
      if (codes.at(col, row) & look.code) found({ look, left: col * pixel, top: row * pixel });
    }
  }
}

/** Draws over one pane. */
export class WindowsOverlay {
  constructor(canvas, pane) {
    this.canvas = canvas;
    this.pane = pane;
    this.codes = null;
    this.pointer = null;
  }

  /** Show the windows of a layer, if there is one, as a state {on, opacity, hidden} says. */
  show(layer, shown) {
    this.shown = layer && shown.on ? shown : null;
    if (layer && this.codes?.layer !== layer) this.codes = new Codes(layer, () => this.draw());
    this.draw();
  }

  /** Point at a place, {x, y} in pixels of the image, whose whole windows are outlined. */
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
    if (!this.shown) return;
    this.view = pane.screen(); // {x, y, scale}: screen = (image - corner) * scale
    this.context = canvas.getContext("2d");
    this.context.scale(ratio, ratio);
    this.context.globalAlpha = this.shown.opacity;
    const { x, y, scale } = this.view;
    this.drawParts({ left: x, top: y, right: x + width / scale, bottom: y + height / scale });
    if (this.pointer) this.drawWhole(this.pointer);
  }

  /** The looks that are switched on and large enough on screen, widest first, so that closer ones lie above. */
  looks() {
    const { layer } = this.codes;
    const visible = ({ code, side }) =>
      !this.shown.hidden.has(code) && side * this.view.scale >= SMALLEST && layer.pixel * this.view.scale >= 1;
    return layer.looks.filter(visible).reverse();
  }

  drawParts(area) {
    for (const look of this.looks()) {
      const length = look.side * this.view.scale;
      const [inset, line] = [Math.min(2, length / 8), Math.min(2, Math.max(1, length / 24))];
      eachPart(this.codes, look, area, (part) => this.outline(part.left, part.top, look, look.side, inset, line));
    }
  }

  /** What the windows are called whose used part is under a point; none where they are not shown. */
  async namesAt({ x, y }) {
    if (!this.shown) return [];
    const { codes, shown } = this;
    const looks = codes.layer.looks.filter(({ code }) => !shown.hidden.has(code)).reverse();
    await codes.loaded(x, y, Math.max(...codes.layer.looks.map(({ side }) => side)));
    const names = new Set();
    for (const look of looks) {
      eachPart(codes, look, { left: x, top: y, right: x, bottom: y }, () => names.add(this.entry(look).name));
    }
    return [...names];
  }

  entry(look) {
    return this.codes.layer.classes.find(({ code }) => code === look.code);
  }

  /** The whole windows whose used part is under a point; they may reach far around it. */
  drawWhole({ x, y }) {
    for (const look of this.looks()) {
      eachPart(this.codes, look, { left: x, top: y, right: x, bottom: y }, ({ left, top }) => {
        const rim = (look.view - look.side) / 2;
        this.outline(left, top, look, look.side, 0, 3);
        if (rim > 0) this.outline(left - rim, top - rim, look, look.view, 0, 3, [7, 5]);
      });
    }
  }

  /** A square in the colour of a look, on a rim that makes it visible on any image. */
  outline(left, top, look, side, inset, width, dash = []) {
    const { context, view } = this;
    const [x, y, length] = [(left - view.x) * view.scale + inset, (top - view.y) * view.scale + inset, side * view.scale - 2 * inset];
    const { color } = this.entry(look);
    const rim = isDark(color) ? "rgb(255 255 255 / 0.6)" : "rgb(0 0 0 / 0.6)";
    for (const [stroke, thickness, pattern] of [[rim, width + 1.5, []], [color, width, dash]]) {
      context.strokeStyle = stroke;
      context.lineWidth = thickness;
      context.setLineDash(pattern);
      context.strokeRect(x, y, length, length);
    }
  }
}
