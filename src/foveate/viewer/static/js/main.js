// Puts the page together.

import { byId, say } from "./dom.js";
import { integer, scaleBar } from "./format.js";
import { scene } from "./manifest.js";
import { changed, onChange, setSide, state } from "./state.js";
import { hashOf, restore } from "./link.js";
import { leadingPane, onMove, shownPanes, startPanes } from "./panes.js";
import { startPanel } from "./panel.js";
import { readMiddle, watch } from "./readout.js";
import { savePicture } from "./picture.js";
import { startKeys } from "./keys.js";

const NARROW = window.matchMedia("(max-width: 699px)");
const STEPS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
let saving = null;
let written = "";

function move(change) {
  const pane = leadingPane();
  change(pane.viewer.viewport, pane);
  pane.viewer.viewport.applyConstraints();
  readMiddle(pane);
}

const act = {
  zoom: (factor) => move((viewport) => viewport.zoomBy(factor)),
  home: () => move((viewport) => viewport.goHome()),
  actual: () => move((viewport) => viewport.zoomTo(scene.width / viewport.getContainerSize().x)),
  pan: (key) =>
    move((viewport) => {
      const bounds = viewport.getBounds();
      const [across, down] = STEPS[key];
      viewport.panBy(new OpenSeadragon.Point(0.15 * across * bounds.width, 0.15 * down * bounds.height));
    }),
  side: () => setSide(!state.side),
  panel: () => showPanel(byId("panel").hidden),
  help: () => byId("help").showModal(),
  picture: savePicture,
  link: async () => {
    save();
    try {
      await navigator.clipboard.writeText(location.href);
      say("Link copied. It opens this view while the page is served at this address.");
    } catch {
      say("The address of this page is the link to this view.");
    }
  },
};

function showPanel(shown) {
  byId("panel").hidden = !shown;
  byId("panel-button").setAttribute("aria-expanded", String(shown));
}

function save() {
  clearTimeout(saving);
  written = hashOf(leadingPane().view());
  history.replaceState(null, "", written);
}

function saveSoon() {
  clearTimeout(saving);
  saving = setTimeout(save, 250);
}

function drawBar(pane) {
  const { pixels, text } = scaleBar(1 / pane.screen().scale);
  byId("scale-line").style.width = `${pixels}px`;
  byId("scale-text").textContent = text;
}

function listen() {
  const buttons = { "zoom-in": () => act.zoom(1.5), "zoom-out": () => act.zoom(1 / 1.5), fit: act.home, actual: act.actual,
    side: act.side, link: act.link, picture: act.picture, "help-button": act.help, "panel-button": act.panel, "panel-close": act.panel };
  for (const [id, run] of Object.entries(buttons)) byId(id).addEventListener("click", run);
  byId("help-close").addEventListener("click", () => byId("help").close());
  window.addEventListener("hashchange", () => {
    if (location.hash === written) return;
    const view = restore(location.hash);
    if (view) leadingPane().look(view);
  });
}

function name() {
  document.title = `${scene.title} – Foveate`;
  byId("title").textContent = scene.title;
  byId("facts").textContent = `${integer(scene.width)} × ${integer(scene.height)} px`;
  byId("side").hidden = !scene.predictions.length;
}

async function start() {
  name();
  startPanel();
  showPanel(!NARROW.matches);
  startKeys(act);
  listen();
  const ready = startPanes();
  const watched = new Set();
  onChange(() => {
    byId("side").setAttribute("aria-pressed", String(state.side));
    shownPanes().filter((pane) => !watched.has(pane)).forEach((pane) => {
      watched.add(pane);
      watch(pane);
    });
    saveSoon();
  });
  onMove((pane) => {
    drawBar(pane);
    saveSoon();
  });
  const view = restore(location.hash);
  await ready;
  if (view) leadingPane().look(view);
  changed();
  drawBar(leadingPane());
  document.body.dataset.ready = "true";
}

start();
