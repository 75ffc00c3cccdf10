// A picture of what is seen, with the scale bar, as a PNG to keep.

import { byId, el, say } from "./dom.js";
import { scene } from "./manifest.js";
import { shownPanes } from "./panes.js";
import { scaleBar } from "./format.js";

const MARGIN = 12;

function style(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(name).trim();
}

/** Text on a ground that makes it readable on any image; returns its width. */
function label(context, text, x, y, height) {
  const width = context.measureText(text).width + 20;
  context.fillStyle = style("--shade");
  context.fillRect(x, y, width, height);
  context.fillStyle = style("--ink");
  context.fillText(text, x + 10, y + 17);
  return width;
}

function drawBar(context, pane, height) {
  const { pixels, text } = scaleBar(1 / pane.screen().scale);
  const [x, y] = [MARGIN, height - MARGIN - 38];
  context.fillStyle = style("--shade");
  context.fillRect(x, y, Math.max(pixels, context.measureText(text).width) + 20, 38);
  context.fillStyle = style("--ink");
  context.strokeStyle = style("--ink");
  context.fillText(text, x + 10, y + 17);
  context.lineWidth = 1.5;
  context.beginPath();
  context.moveTo(x + 10, y + 24);
  context.lineTo(x + 10, y + 30);
  context.lineTo(x + 10 + pixels, y + 30);
  context.lineTo(x + 10 + pixels, y + 24);
  context.stroke();
}

function drawPane(context, pane, stage) {
  const box = pane.element.getBoundingClientRect();
  const place = [box.left - stage.left, box.top - stage.top, box.width, box.height];
  context.drawImage(pane.viewer.drawer.canvas, ...place);
  context.drawImage(pane.overlay, ...place);
  const name = scene.predictions[pane.prediction] ?? "Image alone";
  if (!pane.head.hidden) label(context, name, place[0] + MARGIN, place[1] + MARGIN, 26);
}

/** What is seen now, as a canvas of screen pixels. */
function drawn() {
  const stage = byId("stage").getBoundingClientRect();
  const ratio = window.devicePixelRatio || 1;
  const canvas = el("canvas", { width: Math.round(stage.width * ratio), height: Math.round(stage.height * ratio) });
  const context = canvas.getContext("2d");
  context.scale(ratio, ratio);
  context.font = `13px ${getComputedStyle(document.body).fontFamily}`;
  context.fillStyle = style("--stage");
  context.fillRect(0, 0, stage.width, stage.height);
  const panes = shownPanes();
  panes.forEach((pane) => drawPane(context, pane, stage));
  drawBar(context, panes[0], stage.height);
  return canvas;
}

/** Save what is seen. */
export function savePicture() {
  try {
    drawn().toBlob((blob) => {
      const address = URL.createObjectURL(blob);
      el("a", { href: address, download: `${scene.title.replace(/\.\w+$/, "")}-view.png` }).click();
      setTimeout(() => URL.revokeObjectURL(address), 10000);
      say("Picture saved.");
    });
  } catch {
    say("Browsers save no pictures from a page on a disk. Serve its folder: python -m http.server");
  }
}
