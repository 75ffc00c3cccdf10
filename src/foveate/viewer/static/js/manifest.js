// What the page was told about the scene.

export const scene = JSON.parse(document.getElementById("manifest").textContent);

/** The planned windows are drawn by the page itself; in lists they stand beside the layers. */
export const WINDOWS = "windows";

/** Every kind of layer once, topmost first, as people think of what lies over what. */
export function kinds() {
  const found = scene.layers.map((layer) => layer.kind);
  const unique = found.filter((kind, place) => found.indexOf(kind) === place).reverse();
  return scene.targets.some((target) => target) ? [WINDOWS, ...unique] : unique;
}

/** The layer of a kind that a prediction shows, or undefined. */
export function layerOf(kind, prediction) {
  return scene.layers.find(
    (layer) => layer.kind === kind && (layer.prediction === null || layer.prediction === prediction)
  );
}

/** The first layer of a kind, whatever its prediction. */
export function firstOf(kind) {
  return scene.layers.find((layer) => layer.kind === kind);
}
