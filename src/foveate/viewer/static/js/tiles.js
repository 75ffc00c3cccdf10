// Tiles: pictures are left to OpenSeadragon; codes are fetched here, kept as numbers, and coloured.

import { scene } from "./manifest.js";
import { lookUp } from "./colours.js";

const KEPT = 256; // tiles of codes, 64 kB each
const kept = new Map();
const waiting = new Map(); // by name, who gets the bytes of a script
const loading = new Map(); // by name, the promise of a script: the view and the readout may ask for one tile at a time
const scratch = document.createElement("canvas").getContext("2d", { willReadFrequently: true });

// Called by the scripts that stand for tiles in an export; pages from a disk can load nothing else.
window.foveateTile = (name, data) => {
  const bytes = Uint8Array.from(atob(data), (character) => character.charCodeAt(0));
  waiting.get(name)?.(new Blob([bytes], { type: "image/png" }));
};

function tileName(layer, level, col, row) {
  return `${layer.index}_files/${level}/${col}_${row}`;
}

function byScript(name) {
  if (!loading.has(name)) loading.set(name, scriptOf(name).finally(() => loading.delete(name)));
  return loading.get(name);
}

function scriptOf(name) {
  return new Promise((resolve, reject) => {
    const script = document.createElement("script");
    waiting.set(name, resolve);
    script.onload = () => {
      waiting.delete(name);
      script.remove();
    };
    script.onerror = () => {
      script.onload();
      reject(new Error(`no tile ${name}`));
    };
    script.src = `${scene.tiles}${name}.js`;
    document.head.append(script);
  });
}

async function byRequest(name, signal) {
  const answer = await fetch(`${scene.tiles}${name}.png`, { signal });
  if (!answer.ok) throw new Error(`no tile ${name}: ${answer.status}`);
  return answer.blob();
}

async function decoded(blob) {
  const bitmap = await createImageBitmap(blob, { colorSpaceConversion: "none", premultiplyAlpha: "none" });
  const { width, height } = bitmap;
  // From here to the pixels nothing waits: the canvas is shared.
  scratch.canvas.width = width;
  scratch.canvas.height = height;
  scratch.drawImage(bitmap, 0, 0);
  const { data } = scratch.getImageData(0, 0, width, height);
  bitmap.close();
  return { width, height, codes: Uint8Array.from({ length: width * height }, (_, i) => data[4 * i]) };
}

/** The codes of a tile: {width, height, codes}; the most recent are kept. */
export async function loadCodes(layer, level, col, row, signal) {
  const name = tileName(layer, level, col, row);
  let tile = kept.get(name);
  if (!tile) tile = await decoded(await (scene.scripts ? byScript(name) : byRequest(name, signal)));
  kept.delete(name);
  kept.set(name, tile);
  if (kept.size > KEPT) kept.delete(kept.keys().next().value);
  return tile;
}

function paint(context, tile, table) {
  const image = context.createImageData(tile.width, tile.height);
  const pixels = new Uint32Array(image.data.buffer);
  const colours = new Uint32Array(table.buffer);
  tile.codes.forEach((code, i) => (pixels[i] = colours[code]));
  context.putImageData(image, 0, 0);
}

/** Colours the tiles of one layer, and colours those on screen anew when classes are hidden or shown. */
export class Painter {
  constructor(layer) {
    this.layer = layer;
    this.tiles = new WeakMap();
    this.live = new Set();
    this.recolour(new Set());
  }

  recolour(hidden) {
    this.table = lookUp(this.layer, hidden);
    for (const reference of this.live) {
      const context = reference.deref();
      if (context) paint(context, this.tiles.get(context), this.table);
      else this.live.delete(reference);
    }
  }

  canvasOf(tile) {
    const canvas = document.createElement("canvas");
    canvas.width = tile.width;
    canvas.height = tile.height;
    const context = canvas.getContext("2d");
    paint(context, tile, this.table);
    this.tiles.set(context, tile);
    this.live.add(new WeakRef(context));
    return context;
  }
}

/** What OpenSeadragon needs to know about a layer; with a painter its tiles are codes. */
export function tileSource(layer, painter) {
  const grid = {
    width: layer.width,
    height: layer.height,
    tileSize: scene.tile,
    tileOverlap: 0,
    // Coarser levels than one tile show nothing more.
    minLevel: Math.max(0, layer.maxLevel - Math.ceil(Math.log2(Math.max(layer.width, layer.height, 2) / scene.tile))),
    maxLevel: layer.maxLevel,
    getTileUrl: (level, col, row) => `${scene.tiles}${tileName(layer, level, col, row)}.${layer.media}`,
    hasTransparency: () => layer.media !== "jpg",
  };
  if (grid.minLevel > grid.maxLevel) grid.minLevel = grid.maxLevel;
  return painter ? { ...grid, ...codeTiles(layer, painter) } : grid;
}

function codeTiles(layer, painter) {
  return {
    downloadTileStart(job) {
      const stop = new AbortController();
      job.userData.stop = stop;
      const [, level, col, row] = /(\d+)\/(\d+)_(\d+)\.\w+$/.exec(job.src).map(Number);
      loadCodes(layer, level, col, row, stop.signal).then(
        (tile) => job.finish(painter.canvasOf(tile), null, "context2d"),
        (error) => job.fail(error.message, null)
      );
    },
    downloadTileAbort(job) {
      job.userData.stop?.abort();
    },
  };
}
