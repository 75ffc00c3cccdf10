// What is shown at present. Whoever changes it calls `changed`; whoever draws it listens.

import { firstOf, hasAreas, kinds, layersOf, scene } from "./manifest.js";

const listeners = [];

export const state = {
  // By kind: whether it is on, its opacity from 0 to 1, the codes of hidden classes, which option is shown, and whether
  // areas are outlined only.
  layers: Object.fromEntries(kinds().map((kind) => [kind, initial(kind)])),
  // Of the image: what is black and what is white, in shares of the codes of its tiles, by contrast; and gamma.
  tone: firstTone(firstOf("image")?.tone),
  side: scene.predictions.length > 1,
  // The prediction of the left and the right half; -1 is the image alone.
  predictions: scene.predictions.length > 1 ? [0, 1] : [scene.predictions.length - 1, scene.predictions.length - 1],
};

function firstTone({ contrasts, gamma } = { contrasts: [], gamma: 1 }) {
  return { ends: contrasts.map(({ black, white }) => [black, white]), gamma };
}

function initial(kind) {
  const layer = firstOf(kind);
  return { on: layer.shown, opacity: layer.opacity, hidden: new Set(), option: 0, outlined: kind === "polygons" };
}

/** The layer of a kind that is shown of a prediction, or undefined. */
export function layerOf(kind, prediction) {
  const options = layersOf(kind, prediction);
  return options[state.layers[kind]?.option] ?? options[0];
}

/** Whether a layer is the one of its options that is shown. */
export function isChosen(layer) {
  return layerOf(layer.kind, layer.prediction) === layer;
}

/** Call back after every change. */
export function onChange(listener) {
  listeners.push(listener);
}

/** Tell everyone that the state is another one. */
export function changed() {
  for (const listener of listeners) listener(state);
}

/** Show two halves, or one; with one prediction the left half shows the image alone. */
export function setSide(side) {
  state.side = side;
  if (side && scene.predictions.length === 1) state.predictions = [-1, 0];
  if (!side && state.predictions[0] === -1) state.predictions[0] = state.predictions[1];
  changed();
}

/** Outline areas, or fill them, of every kind of layer that has some; polygons stay outlined. */
export function toggleOutlines() {
  const areas = kinds().filter(hasAreas);
  const outlined = !areas.every((kind) => state.layers[kind].outlined);
  areas.forEach((kind) => setOutlined(kind, outlined || kind === "polygons"));
  changed();
}

/** Outline the areas of a kind, or fill them. Lines cover little: they are drawn in full colour, areas let the image through. */
export function setOutlined(kind, outlined) {
  const shown = state.layers[kind];
  if (shown.outlined !== outlined) Object.assign(shown, { outlined, opacity: outlined ? 1 : firstOf(kind).opacity });
}

/** Switch a kind of layer on or off. */
export function toggleLayer(kind) {
  state.layers[kind].on = !state.layers[kind].on;
  changed();
}
