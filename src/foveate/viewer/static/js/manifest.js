// What the page was told about the scene.

export const scene = JSON.parse(document.getElementById("manifest").textContent);

/** The windows that passed are outlined by the page itself, see windows.js. */
export const WINDOWS = "windows";

/** The value of the file that a share of the codes of a contrast stands for. */
export function valueAt({ values }, share) {
  const at = share * (values.length - 1);
  const code = Math.min(Math.floor(at), values.length - 2);
  return values[code] + (at - code) * (values[code + 1] - values[code]);
}

/** Whether a kind of layer has areas, which may be filled or outlined. */
export function hasAreas(kind) {
  return kind !== WINDOWS && scene.layers.some((layer) => layer.kind === kind && layer.classes.length);
}

/** Every kind of layer once, topmost first, as people think of what lies over what. */
export function kinds() {
  const found = scene.layers.map((layer) => layer.kind);
  return found.filter((kind, place) => found.indexOf(kind) === place).reverse();
}

/** The layers of a kind that a prediction has: one, or one for each option. */
export function layersOf(kind, prediction) {
  return scene.layers.filter(
    (layer) => layer.kind === kind && (layer.prediction === null || layer.prediction === prediction)
  );
}

/** The first layer of a kind, whatever its prediction. */
export function firstOf(kind) {
  return scene.layers.find((layer) => layer.kind === kind);
}
