// One pane: an OpenSeadragon viewer with every layer, of which it shows those of one prediction.

import { el } from "./dom.js";
import { WINDOWS, scene } from "./manifest.js";
import { isChosen, layerOf, state } from "./state.js";
import { CodePainter, PicturePainter } from "./painters.js";
import { tileSource } from "./tiles.js";
import { WindowsOverlay } from "./windows.js";

const STILL = window.matchMedia("(prefers-reduced-motion: reduce)");

/** The map in the corner has the image's shape, unless that is very long. */
function navigatorSize() {
  const shape = Math.min(Math.max(scene.height / scene.width, 0.3), 2);
  const width = Math.round(Math.min(168, 168 / shape));
  return { navigatorWidth: `${width}px`, navigatorHeight: `${Math.round(width * shape)}px` };
}

function options(element, navigator) {
  return {
    element,
    drawer: "canvas", // shows pictures from a disk too, which WebGL may not
    keyboardNavEnabled: false, // keys.js has the page's own
    showNavigationControl: false,
    showNavigator: navigator,
    navigatorPosition: "BOTTOM_RIGHT",
    navigatorOpacity: 1,
    ...navigatorSize(),
    visibilityRatio: 0.4,
    minZoomImageRatio: 0.5,
    maxZoomPixelRatio: 24,
    animationTime: STILL.matches ? 0 : 0.5,
    imageLoaderLimit: 8,
    maxImageCacheCount: 400,
    preserveImageSizeOnResize: true,
    // No seams between the tiles of clear layers.
    subPixelRoundingForTransparency: OpenSeadragon.SUBPIXEL_ROUNDING_OCCURRENCES.ALWAYS,
    gestureSettingsMouse: { clickToZoom: false, dblClickToZoom: true },
    gestureSettingsTouch: { dblClickToZoom: true },
    gestureSettingsPen: { clickToZoom: false },
  };
}

export class Pane {
  /** In a new element at the end of `stage`. Listeners: onMove(pane), onFailed(). */
  constructor(stage, name, { navigator, onMove, onFailed }) {
    this.prediction = -1;
    // Windows are drawn on the overlay.
    this.drawn = scene.layers.filter((layer) => layer.kind !== WINDOWS);
    this.items = this.drawn.map(() => null);
    this.painters = this.drawn.map((layer) => (layer.media === "png" ? new CodePainter(layer) : new PicturePainter(layer.tone)));
    this.stale();
    this.surface = el("div", { class: "surface" });
    this.overlay = el("canvas", { class: "overlay", "aria-hidden": "true" });
    this.cross = el("div", { class: "cross", hidden: true, "aria-hidden": "true" });
    this.head = el("div", { class: "pane-head" });
    this.element = el("section", { class: "pane", "aria-label": name }, this.surface, this.overlay, this.cross, this.head);
    stage.append(this.element);
    this.viewer = new OpenSeadragon.Viewer(options(this.surface, navigator));
    this.windows = new WindowsOverlay(this.overlay, this);
    this.nameCanvas(name);
    this.listen(onMove, onFailed);
    this.drawn.forEach((layer, place) => this.add(layer, place));
  }

  nameCanvas(name) {
    const { canvas } = this.viewer;
    canvas.setAttribute("role", "application");
    canvas.setAttribute("aria-label", `${name}: ${scene.title}. Arrow keys move, plus and minus zoom, question mark lists all keys.`);
  }

  listen(onMove, onFailed) {
    const { viewer } = this;
    viewer.addHandler("tile-drawing", ({ context, tiledImage }) => {
      // Enlarged pixels have edges: what is shown is what is in the file. Lines of a pixel would have gaps when shrunk.
      const smooth = tiledImage.layer.media === "jpg" || state.layers[tiledImage.layer.kind].outlined;
      context.imageSmoothingEnabled = smooth && this.screen().scale < 2;
    });
    viewer.addHandler("update-viewport", () => this.windows.draw());
    viewer.addHandler("viewport-change", () => onMove(this));
    viewer.addHandler("resize", () => onMove(this));
    viewer.addHandler("tile-load-failed", ({ message }) => {
      if (!/abort/i.test(message ?? "")) onFailed();
    });
  }

  add(layer, place) {
    const painter = this.painters[place];
    this.viewer.addTiledImage({
      tileSource: tileSource(layer, painter),
      width: (layer.width * layer.pixel) / scene.width,
      opacity: 0,
      success: ({ item }) => {
        item.layer = layer;
        // The last cells of coarse layers reach over the border.
        item.setClip(new OpenSeadragon.Rect(0, 0, scene.width / layer.pixel, scene.height / layer.pixel));
        this.items[place] = item;
        if (this.items.every(Boolean)) this.ready();
      },
    });
  }

  /** Called once all layers are there. */
  ready() {
    this.isReady = true;
    if (this.wanted !== undefined) this.show(this.wanted);
    this.whenReady?.();
  }

  /** Show the layers of a prediction as the state says. */
  show(prediction) {
    this.wanted = prediction;
    if (!this.isReady) return;
    this.prediction = prediction;
    this.drawn.forEach((layer, place) => {
      const { on, opacity } = state.layers[layer.kind];
      const mine = layer.prediction === null ? layer.kind === "image" || prediction !== -1 : layer.prediction === prediction;
      this.items[place].setOpacity(on && mine && isChosen(layer) ? opacity : 0);
    });
    this.windows.show(layerOf(WINDOWS, prediction), state.layers[WINDOWS]);
    this.repaint();
  }

  /** The painters whose tiles are to look otherwise than they do. */
  stale() {
    const look = (layer) => (layer.media === "png" ? state.layers[layer.kind] : state.tone);
    return this.painters.filter((painter, place) => painter.show(look(this.drawn[place])));
  }

  async repaint() {
    const stale = this.stale();
    if (!stale.length) return;
    await Promise.all(stale.map((painter) => painter.repaint()));
    this.viewer.forceRedraw();
    this.viewer.navigator?.forceRedraw();
  }

  /** Where the pane looks: image pixels of its upper left corner, and screen pixels an image pixel. */
  screen() {
    const { viewport } = this.viewer;
    const bounds = viewport.getBounds(true);
    const scale = viewport.getContainerSize().x / (bounds.width * scene.width);
    return { x: bounds.x * scene.width, y: bounds.y * scene.width, scale };
  }

  /** The point of the image, in pixels, under a point of the pane. */
  imagePoint(x, y) {
    const view = this.screen();
    return { x: view.x + x / view.scale, y: view.y + y / view.scale };
  }

  /** The view as it will be once movements have ended: {x, y} of its centre and its width in image pixels. */
  view() {
    const bounds = this.viewer.viewport.getBounds();
    const centre = bounds.getCenter();
    return { x: centre.x * scene.width, y: centre.y * scene.width, width: bounds.width * scene.width };
  }

  /** Look at a view at once. */
  look({ x, y, width }) {
    const { viewport } = this.viewer;
    viewport.zoomTo(scene.width / width, null, true);
    viewport.panTo(new OpenSeadragon.Point(x / scene.width, y / scene.width), true);
    viewport.applyConstraints(true);
  }
}
