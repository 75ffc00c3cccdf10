// What is drawn of a tile, and drawn anew when it is to look otherwise: pictures in a tone, codes in colours.

import { lookUp, stripesOf } from "./colours.js";
import { scene, valueAt } from "./manifest.js";
import { hasTile, loadCodes } from "./tiles.js";

const STRIPE = 5; // pixels

/** Remembers what the tiles on screen were made of. */
class Painter {
  constructor() {
    this.sources = new WeakMap();
    this.live = new Set();
  }

  /** A canvas with the tile, as its context. */
  async contextOf(source) {
    const canvas = document.createElement("canvas");
    canvas.width = source.width;
    canvas.height = source.height;
    const context = canvas.getContext("2d");
    this.sources.set(context, source);
    this.live.add(new WeakRef(context));
    await this.paint(context, source);
    return context;
  }

  /** Draw all tiles anew. */
  async repaint() {
    const painted = [];
    for (const reference of this.live) {
      const context = reference.deref();
      if (context) painted.push(this.paint(context, this.sources.get(context)));
      else this.live.delete(reference);
    }
    await Promise.all(painted);
  }
}

/** Pictures, in a tone {ends, gamma}: shares of the codes that become black and white, and a gamma above 0. */
export class PicturePainter extends Painter {
  /** Of a layer with one contrast for all colours, or one for each. */
  constructor({ contrasts }) {
    super();
    this.contrasts = contrasts;
  }

  /** Show pictures in a tone; whether that is another one. */
  show({ ends, gamma }) {
    const tone = [ends, gamma].join();
    if (tone === this.tone) return false;
    this.tone = tone;
    const curves = this.contrasts.map((contrast, place) => curveOf(contrast, ends[place], gamma));
    this.curves = [0, 1, 2].map((colour) => curves[colour % curves.length]);
    this.plain = this.curves.every((curve) => curve.every((shown, byte) => shown === byte));
    return true;
  }

  paint(context, picture) {
    context.filter = "none";
    context.drawImage(picture, 0, 0);
    if (this.plain) return;
    try {
      this.paintPixels(context, picture);
    } catch {
      this.paintFiltered(context, picture);
    }
  }

  paintPixels(context, { width, height }) {
    const image = context.getImageData(0, 0, width, height);
    const { data } = image;
    for (let i = 0; i < data.length; i += 1) if (i % 4 !== 3) data[i] = this.curves[i % 4][data[i]];
    context.putImageData(image, 0, 0);
  }

  /** For pages from a disk, which may not read the pixels of pictures: the same by a filter of the browser. */
  paintFiltered(context, picture) {
    document.querySelectorAll("#tone feComponentTransfer > *").forEach((part, colour) => {
      part.setAttribute("tableValues", Array.from(this.curves[colour], (byte) => (byte / 255).toFixed(4)).join(" "));
    });
    context.filter = "url(#tone)";
    context.drawImage(picture, 0, 0);
  }
}

/** How bright each code of a contrast is, 0 to 255. */
function curveOf(contrast, [black, white], gamma) {
  const [low, high] = [valueAt(contrast, black), valueAt(contrast, white)];
  const share = (value) => Math.min(Math.max((value - low) / (high - low), 0), 1);
  return Uint8ClampedArray.from(contrast.values, (value) => 255 * share(value) ** (1 / gamma));
}

/** Codes, in the colours of their layer; filled, or only along the borders of classes. */
export class CodePainter extends Painter {
  constructor(layer) {
    super();
    this.layer = layer;
  }

  /** Show codes as a state {hidden, outlined} says; whether that is another one. */
  show({ hidden, outlined }) {
    const look = JSON.stringify([[...hidden], outlined]);
    if (look === this.look) return false;
    this.look = look;
    this.table = lookUp(this.layer, { hidden, outlined });
    this.stripes = this.layer.sets ? stripesOf(this.layer, { hidden }) : null;
    // Polygons have codes of their own for their borders.
    this.outlined = outlined && !this.layer.border;
    return true;
  }

  async paint(context, tile) {
    if (this.outlined && !tile.borders) tile.borders = bordersOf(tile, await this.around(tile));
    const outlined = this.outlined && tile.borders; // it may have changed meanwhile
    const image = context.createImageData(tile.width, tile.height);
    const pixels = new Uint32Array(image.data.buffer);
    const colour = this.stripes ? this.striped(tile) : this.plain();
    tile.codes.forEach((code, i) => (pixels[i] = outlined && !outlined[i] ? 0 : colour(code, i)));
    context.putImageData(image, 0, 0);
  }

  plain() {
    const colours = new Uint32Array(this.table.buffer);
    return (code) => colours[code];
  }

  /** Where classes overlap, stripes in the colours of all; they go on from tile to tile. */
  striped({ col, row, width }) {
    const start = (col + row) * scene.tile;
    const place = (i) => Math.floor((start + (i % width) + Math.floor(i / width)) / STRIPE);
    return (code, i) => {
      const colours = this.stripes[code];
      return colours.length ? colours[place(i) % colours.length] : 0;
    };
  }

  /** The tiles on the left, the right, above and below; null where there is none. */
  around({ level, col, row }) {
    const places = [[col - 1, row], [col + 1, row], [col, row - 1], [col, row + 1]];
    const load = ([c, r]) => (hasTile(this.layer, level, c, r) ? loadCodes(this.layer, level, c, r).catch(() => null) : null);
    return Promise.all(places.map(load));
  }
}

/** 1 where a pixel has another code than one beside it, in the next tile too. */
function bordersOf({ width, height, codes }, [left, right, above, below]) {
  const borders = new Uint8Array(width * height);
  for (let row = 0, i = 0; row < height; row += 1) {
    for (let col = 0; col < width; col += 1, i += 1) {
      const before = col ? codes[i - 1] : left?.codes[row * left.width + left.width - 1];
      const after = col < width - 1 ? codes[i + 1] : right?.codes[row * right.width];
      const over = row ? codes[i - width] : above?.codes[(above.height - 1) * above.width + col];
      const under = row < height - 1 ? codes[i + width] : below?.codes[col];
      const code = codes[i];
      const same = (before ?? code) === code && (after ?? code) === code && (over ?? code) === code && (under ?? code) === code;
      borders[i] = same ? 0 : 1;
    }
  }
  return borders;
}
