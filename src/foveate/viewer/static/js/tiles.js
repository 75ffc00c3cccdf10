// Tiles: of codes, kept as numbers, and of pictures; painters make of them what is drawn.

import { scene } from "./manifest.js";

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

/** The codes of a tile: {width, height, codes, level, col, row}; the most recent are kept. */
export async function loadCodes(layer, level, col, row, signal) {
  const name = tileName(layer, level, col, row);
  let tile = kept.get(name);
  if (!tile) {
    const blob = await (scene.scripts ? byScript(name) : byRequest(name, signal));
    tile = { ...(await decoded(blob)), level, col, row };
  }
  kept.delete(name);
  kept.set(name, tile);
  if (kept.size > KEPT) kept.delete(kept.keys().next().value);
  return tile;
}

function loadPicture(name, signal) {
  return new Promise((resolve, reject) => {
    const picture = new Image();
    picture.onload = () => resolve(picture);
    picture.onerror = () => reject(new Error(`no tile ${name}`));
    signal.addEventListener("abort", () => {
      picture.src = "";
      reject(new Error("aborted"));
    });
    picture.src = `${scene.tiles}${name}`;
  });
}

/** The first level that is more than one tile; coarser ones show nothing more. */
function firstLevel({ width, height, maxLevel }) {
  return Math.max(0, maxLevel - Math.ceil(Math.log2(Math.max(width, height, 2) / scene.tile)));
}

/** Whether a layer has a tile. */
export function hasTile({ width, height, maxLevel }, level, col, row) {
  const side = scene.tile * 2 ** (maxLevel - level);
  return col >= 0 && row >= 0 && col * side < width && row * side < height;
}

/** What OpenSeadragon needs to know about a layer, and how its tiles are made: loaded here, drawn by a painter. */
export function tileSource(layer, painter) {
  return {
    width: layer.width,
    height: layer.height,
    tileSize: scene.tile,
    tileOverlap: 0,
    minLevel: Math.min(firstLevel(layer), layer.maxLevel),
    maxLevel: layer.maxLevel,
    getTileUrl: (level, col, row) => `${scene.tiles}${tileName(layer, level, col, row)}.${layer.media}`,
    hasTransparency: () => layer.media !== "jpg",
    downloadTileStart(job) {
      const stop = new AbortController();
      job.userData.stop = stop;
      drawnTile(layer, painter, job.src, stop.signal).then(
        (context) => job.finish(context, null, "context2d"),
        (error) => job.fail(error.message, null)
      );
    },
    downloadTileAbort(job) {
      job.userData.stop?.abort();
    },
  };
}

async function drawnTile(layer, painter, address, signal) {
  const [, level, col, row] = /(\d+)\/(\d+)_(\d+)\.\w+$/.exec(address).map(Number);
  if (layer.media === "jpg") return painter.contextOf(await loadPicture(`${tileName(layer, level, col, row)}.jpg`, signal));
  return painter.contextOf(await loadCodes(layer, level, col, row, signal));
}
