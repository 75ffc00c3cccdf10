// How long a stretch of the screen is in the scene.

import { scene } from "./manifest.js";
import { integer, lengthText, niceBelow } from "./format.js";

const LONGEST = 140; // pixels of the screen

/** The bar's length on screen and its label, at so many image pixels a screen pixel. */
export function scaleBar(imagePixels) {
  const unit = scene.resolution ? scene.resolution[1] : 1;
  const most = LONGEST * imagePixels * unit;
  const length = scene.resolution ? niceBelow(most) : Math.max(1, niceBelow(most));
  const text = scene.resolution ? lengthText(length) : `${integer(length)} px`;
  return { pixels: length / unit / imagePixels, text };
}
