"""The page in a real browser: what people see, point at, press and share."""

import re

import numpy as np
import pytest
import rasterio
from browser_toys import (
    CONTRASTS,
    NAMELESS,
    PHONE,
    opened,
    pixel_under,
    readout,
    served,
    settle,
    show_only_discs,
    static_host,
)
from PIL import Image
from viewer_toys import NAMES, PLACE

from foveate.viewer.build import build_scene
from foveate.viewer.inputs import find_inputs
from foveate.viewer.page import export
from foveate.viewer.scene import Options
from toys import write_image


def test_it_shows_the_image_under_its_classes(browser, one, tmp_path):
    with opened(browser, one) as page:
        picture = settle(page)
        page.screenshot(path=tmp_path / "desktop.png")
        stage = picture[100:800, 50:1100]
        assert stage.std() > 10
        assert "scene.tif" in page.title()
        assert page.locator("#scale-text").inner_text().endswith(" m")


def test_the_class_under_the_pointer_is_that_of_the_raster(browser, one, toy):
    with opened(browser, one) as page:
        settle(page)
        page.keyboard.press("z")  # one to one
        settle(page)
        for x, y in ((300, 300), (517, 411), (700, 640), (811, 233)):
            row, col = pixel_under(page, x, y)
            expected = NAMES[toy.classes[row, col]]
            assert f"Classes\n{expected}" in readout(page, expected)


def test_zooming_keeps_what_is_pointed_at(browser, one):
    with opened(browser, one) as page:
        settle(page)
        before, scale = pixel_under(page, 500, 400), page.locator("#scale-text").inner_text()
        for _ in range(4):
            page.mouse.wheel(0, -300)
            page.wait_for_timeout(100)
        settle(page)
        after = pixel_under(page, 500, 400)
        assert abs(after[0] - before[0]) <= 3
        assert abs(after[1] - before[1]) <= 3
        assert page.locator("#scale-text").inner_text() != scale


def test_layers_are_switched_faded_and_classes_hidden(browser, one):
    with opened(browser, one) as page:
        settle(page)
        shown = settle(page)[100:800, 50:1100].astype(int)
        page.uncheck("#layer-classes")
        bare = settle(page)[100:800, 50:1100].astype(int)
        assert np.abs(shown - bare).mean() > 5
        assert np.abs(bare.std(axis=2)).mean() < 1  # the image alone is grey
        page.check("#layer-classes")
        page.locator("#opacity-classes").fill("100")
        opaque = settle(page)[100:800, 50:1100].astype(int)
        assert np.abs(opaque - bare).mean() > np.abs(shown - bare).mean()
        show_only_discs(page)
        only = settle(page)[100:800, 50:1100].astype(int)
        yellow = np.abs(only - (224, 192, 64)).max(axis=2) < 4
        blue = np.abs(only - (0, 128, 200)).max(axis=2) < 4
        assert yellow.mean() > 0.1
        assert blue.mean() < 0.001


def test_the_image_is_brightened_as_the_sliders_say(browser, one):
    with opened(browser, one) as page:
        page.uncheck("#layer-classes")
        dark = settle(page)[100:700, 100:1000].astype(float).mean(axis=2)
        page.locator("#tone-white").fill("60")
        page.locator("#tone-gamma").fill("50")
        bright = settle(page)[100:700, 100:1000].astype(float).mean(axis=2)
        expected = 255 * np.clip(dark / 255 / 0.6, 0, 1) ** (1 / 5**0.5)
        assert np.abs(bright - expected).mean() < 4
        page.wait_for_function("() => location.hash.includes('tone=0~0.6~2.236')")
        page.get_by_role("button", name="As stored").click()
        assert np.abs(settle(page)[100:700, 100:1000].mean(axis=2) - dark).mean() < 1


def test_the_sliders_reach_every_value_of_a_16_bit_image(browser, tmp_path):
    values = np.tile(np.linspace(1000, 3000, 1000), (700, 1)).astype(np.uint16)
    values[100:140, 100:160] = 0  # less than 2 %
    values[300:320, 200:230] = [40000] * 15 + [50000] * 15  # less than 0.1 %
    with served(write_image(tmp_path / "deep.tif", values[None])) as address, opened(browser, address) as page:
        first = settle(page)
        texts = {name: page.locator(f"output[for=tone-{name}]") for name in ("black", "white")}
        assert [int(texts[name].inner_text()) for name in texts] == pytest.approx([1010, 2990], abs=40)
        assert first.max() == 255
        page.get_by_role("button", name="All values").click()
        assert [int(texts[name].inner_text()) for name in texts] == pytest.approx([0, 50000], abs=200)
        every = settle(page)[60:850, 50:1100].astype(int)
        levels = np.unique(every[..., 0])
        for value in (0, 2000, 40000, 50000):
            assert np.abs(levels - 255 * value / 50000).min() < 6, value
        page.locator("#tone-white").fill("100")
        page.locator("#tone-black").fill("0")
        assert [texts[name].inner_text() for name in texts] == ["0", "65535"]


def test_each_stain_of_a_fluorescence_image_has_its_own_sliders(browser, tmp_path):
    ramp = np.tile(np.linspace(0, 1, 1000), (700, 1))
    stains = np.stack([200 + 12000 * ramp, 400 + 600 * ramp, 100 + 60 * ramp]).astype(np.uint16)
    with served(write_image(tmp_path / "stains.tif", stains)) as address, opened(browser, address) as page:
        grey = settle(page)[100:700, 100:1000].astype(float)
        assert np.ptp(grey, axis=2).mean() < 6  # each from black to white, whatever its range
        assert [page.locator(f"output[for=tone-white-{n}]").inner_text()[0] for n in (1, 2, 3)] == ["1", "9", "1"]
        page.locator("#tone-white-2").fill("20")
        changed = np.abs(settle(page)[100:700, 100:1000] - grey).mean(axis=(0, 1))
        assert changed[1] > 40
        assert max(changed[0], changed[2]) < 1
        page.wait_for_function("() => location.hash.match(/tone=[^&]*/)[0].split('~').length === 7")
        kept, seen = page.url, settle(page)
        with opened(browser, kept) as again:
            assert np.abs(settle(again).astype(int) - seen).mean() < 1
        page.get_by_role("button", name="Automatic").click()
        assert np.abs(settle(page)[100:700, 100:1000] - grey).mean() < 1


BLUE, YELLOW = (0, 128, 200), (224, 192, 64)


def share_of(picture, color):
    """Of the pixels that have about this colour."""
    return (np.abs(picture[50:750, 50:1050].astype(int) - color).max(axis=2) < 30).mean()


def test_classes_are_outlined(browser, one):
    with opened(browser, f"{one}#x=450&y=350&w=600&layers=classes~1~100,image~0~100") as page:
        filled = settle(page)[100:700, 100:1000]
        page.keyboard.press("o")
        assert page.is_checked("#outlined-classes")
        outlined = settle(page)[100:700, 100:1000]
        ground = outlined[np.abs(outlined.astype(int) - outlined[0, 0]).max(axis=2) < 4]
        assert 0.85 < len(ground) / outlined[..., 0].size < 0.99  # what is not outlined is clear
        assert 0 < share_of(outlined, BLUE) < 0.1 * share_of(filled, BLUE)


def test_outlines_are_in_full_colour_and_areas_let_the_image_through(browser, one):
    with opened(browser, one) as page:
        page.keyboard.press("o")
        page.wait_for_function("() => location.hash.includes('classes~1~100')")
        page.keyboard.press("o")
        page.wait_for_function("() => location.hash.includes('classes~1~55')")


def test_polygons_are_outlined_or_filled_and_read_out(browser, one):
    with opened(browser, f"{one}#x=250&y=250&w=400&layers=polygons~1~100~~~1,image~1~100") as page:
        outlined = settle(page)
        assert "Polygons\nground" in readout_at(page, 550, 450, "Polygons")
        page.uncheck("#outlined-polygons")
        filled = settle(page)
        assert 0 < share_of(outlined, YELLOW) < 0.05
        assert share_of(filled, YELLOW) > 0.3


def test_a_picture_of_the_view_is_saved_with_its_scale_bar(browser, two):
    with opened(browser, two) as page:
        seen = settle(page)
        box = page.locator("#stage").bounding_box()
        with page.expect_download() as download:
            page.locator("#picture").click()
        assert download.value.suggested_filename == "scene-view.png"
        saved = np.asarray(Image.open(download.value.path()).convert("RGB")).astype(int)
        assert saved.shape[:2] == (round(box["height"]), round(box["width"]))
        top, left = round(box["y"]), round(box["x"])
        seen = seen[top : top + saved.shape[0], left : left + saved.shape[1]].astype(int)
        middle = (slice(60, 600), slice(0, None))  # both panes
        assert np.abs(saved[middle] - seen[middle]).mean() < 3
        bar = saved[-50:-12, 12:150]
        assert (bar.mean(axis=2) > 230).mean() > 0.3
        assert (bar.mean(axis=2) < 80).any()


def test_values_and_errors_are_read_out(browser, one, toy):
    with opened(browser, one) as page:
        for kind in ("fov", "confidence", "errors", "labels"):
            page.check(f"#layer-{kind}")
        settle(page)
        row, col = pixel_under(page, 500, 400)
        text = readout(page, "Field of view")
        assert abs(float(re.search(r"Field of view\s+(\d+) px", text)[1]) - toy.fov[row // 16, col // 16]) < 1.5
        assert "Confidence\n0.50" in text


def test_windows_are_outlined(browser, one):
    with opened(browser, f"{one}#x=450&y=350&w=300") as page:
        before = settle(page)
        page.check("#layer-windows")
        shown = settle(page).astype(int)
        assert np.abs(shown - before)[100:800, 50:1100].max() > 60
        # Closer looks are made on the left only.
        assert "Windows\n128 px wide" in readout_at(page, 800, 400, "Windows")
        page.locator("#layers [data-kind=windows] input.swatch").last.uncheck()
        assert np.abs(settle(page).astype(int) - before)[100:600, 650:1000].mean() < 1


def test_every_pass_over_a_point_is_named(browser, one):
    with opened(browser, f"{one}#x=100&y=100&w=300") as page:
        settle(page)
        page.check("#layer-windows")
        settle(page)
        text = readout_at(page, 500, 400, "Windows")
        assert "128 px wide; 64 px wide, central 32 used" in text


def test_the_probability_of_each_class_is_shown_in_turn(browser, one, toy):
    with opened(browser, one) as page:
        page.check("#layer-probabilities")
        first = settle(page).astype(int)
        row, col = pixel_under(page, 500, 400)
        name = NAMES[toy.classes[row, col]]
        other = next(other for other in NAMES if other != name)
        page.get_by_label("Probability of", exact=True).select_option(name)
        assert f"Probability of {name}\n0.80" in readout_at(page, 500, 400, f"Probability of {name}")
        page.get_by_label("Probability of", exact=True).select_option(other)
        assert f"Probability of {other}\n0.10" in readout_at(page, 501, 400, f"Probability of {other}")
        page.get_by_label("Probability of", exact=True).select_option(NAMES[2])
        assert np.abs(settle(page).astype(int) - first)[100:800, 50:1100].mean() > 5
        page.wait_for_function("() => location.hash.includes('probabilities~1~70~~2')")


def test_keys(browser, one):
    with opened(browser, one) as page:
        settle(page)
        page.keyboard.press("?")
        assert page.locator("#help").is_visible()
        page.keyboard.press("Escape")
        assert not page.locator("#help").is_visible()
        page.keyboard.press("l")
        assert not page.locator("#panel").is_visible()
        start = page.evaluate("location.hash")
        page.keyboard.press("+")
        page.keyboard.press("ArrowRight")
        assert "Classes" in readout(page, "Classes")  # the middle is read out
        assert page.locator("#readout").get_attribute("aria-live") == "polite"
        page.wait_for_function("before => location.hash !== before", arg=start)
        page.keyboard.press("1")
        page.wait_for_function("() => location.hash.includes('windows~1')")
        page.keyboard.press("s")
        assert page.locator(".pane").count() == 2


def test_two_predictions_side_by_side_move_together(browser, two):
    with opened(browser, two) as page:
        settle(page)
        assert page.locator(".pane:visible").count() == 2
        page.mouse.move(300, 400)
        page.mouse.wheel(0, -500)
        picture = settle(page)
        left, right = picture[120:700, 20:500].astype(int), picture[120:700, 596:1076].astype(int)
        assert np.abs(left - right).mean() > 5  # other classes
        page.uncheck("#layer-classes")
        picture = settle(page)
        left, right = picture[120:700, 20:500].astype(int), picture[120:700, 598:1078].astype(int)
        shifts = [np.abs(left[:, 4:-4] - right[:, 4 + s : right.shape[1] - 4 + s]).mean() for s in range(-4, 5)]
        assert min(shifts) < 3  # the same place of the same image
        assert "first/scene" in readout_at(page, 300, 400)


def readout_at(page, x, y, name="Classes"):
    page.mouse.move(x, y)
    page.mouse.move(x + 1, y)
    return readout(page, name)


def test_a_link_restores_the_view(browser, two):
    with opened(browser, two) as page:
        settle(page)
        page.check("#layer-errors")
        show_only_discs(page)
        page.locator(".pane-head select").nth(1).select_option("-1")
        page.mouse.move(300, 400)
        page.mouse.wheel(0, -800)
        first = settle(page)
        page.wait_for_timeout(400)
        link = page.evaluate("location.href")
    with opened(browser, link) as page:
        settle(page)
        page.mouse.move(300, 400)
        second = settle(page)
        difference = np.abs(first.astype(int) - second)[60:850].max(axis=2)
        assert (difference > 24).mean() < 0.01


@pytest.mark.parametrize(
    "hash_", ["#x=NaN&w=0", "#layers=__proto__~1~50,nobody~1", "#show=9~-7&side=1", "#" + "a" * 9000]
)
def test_links_that_make_no_sense_still_show_the_image(browser, one, hash_):
    with opened(browser, one + hash_) as page:
        assert settle(page)[200:700, 200:900].std() > 10


def test_phones(browser, two):
    with opened(browser, two, PHONE, has_touch=True, is_mobile=True) as page:
        assert settle(page)[150:700].std() > 10
        assert page.evaluate("document.documentElement.scrollWidth") <= 390
        assert not page.locator("#panel").is_visible()
        first, second = (page.locator(".pane").nth(i).bounding_box() for i in (0, 1))
        assert second["y"] >= first["y"] + first["height"]  # above each other
        page.touchscreen.tap(200, 250)
        assert "Classes" in readout(page, "Classes")
        page.locator("#panel-button").tap()
        assert page.locator("#layer-classes").is_visible()
        assert page.evaluate("document.documentElement.scrollWidth") <= 390
        for button in page.locator("header button:visible").all():
            assert min(button.bounding_box()["width"], button.bounding_box()["height"]) >= 40


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_everything_has_a_name_and_enough_contrast(browser, two, scheme):
    with opened(browser, two, color_scheme=scheme) as page:
        for kind in ("windows", "fov", "errors"):
            page.check(f"#layer-{kind}")
        settle(page)
        assert page.evaluate(NAMELESS) == []
        contrasts = page.evaluate(CONTRASTS)
        assert len(contrasts) > 20
        assert min(contrasts)[0] >= 4.5, min(contrasts)
        corner = settle(page)[20, 700]
        assert (corner.mean() > 128) == (scheme == "light")
        page.keyboard.press("?")
        assert min(page.evaluate(CONTRASTS))[0] >= 4.5


def test_the_focus_goes_through_the_page_in_its_order(browser, one):
    with opened(browser, one) as page:
        seen = []
        for _ in range(14):
            page.keyboard.press("Tab")
            seen.append(page.evaluate("document.activeElement.id || document.activeElement.getAttribute('aria-label')"))
        wanted = ["zoom-out", "zoom-in", "fit", "actual", "side", "link", "help-button", "panel-button"]
        places = [seen.index(name) for name in wanted]
        assert places == sorted(places)
        assert any("Arrow keys move" in (name or "") for name in seen)
        assert "layer-windows" in seen


@pytest.fixture(scope="module")
def exported(toy, tmp_path_factory):
    folder = tmp_path_factory.mktemp("export") / "page"
    export(build_scene(find_inputs([toy.image, toy.first, toy.second], toy.labels)), folder)
    return folder


@pytest.mark.parametrize("how", ["file", "host"])
def test_an_export_needs_no_server_of_ours(browser, exported, toy, how):
    with static_host(exported) as address:
        page_address = address if how == "host" else (exported / "index.html").as_uri()
        with opened(browser, page_address) as page:
            settle(page)
            page.keyboard.press("s")  # one pane
            page.keyboard.press("z")
            assert settle(page)[100:800, 50:1100].std() > 10
            row, col = pixel_under(page, 517, 411)
            assert NAMES[toy.classes[row, col]] in readout(page, NAMES[toy.classes[row, col]])
            show_only_discs(page)
            settle(page)


def test_an_export_draws_the_field_of_view_in_every_tile_of_every_level(browser, tmp_path):
    scene = write_image(tmp_path / "scene.tif", np.full((3, 900, 1500), 120, np.uint8), **PLACE)
    (tmp_path / "out").mkdir()
    classes = write_image(tmp_path / "out" / "scene.classes.tif", np.zeros((1, 900, 1500), np.uint8), **PLACE)
    views = write_image(tmp_path / "out" / "scene.fov.tif", np.full((1, 225, 375), 128, np.float32), **PLACE)
    for file, tags in ((classes, {"class_0": "ground"}), (views, {"fields_of_view": "[32, 128]", "cell": "4"})):
        with rasterio.open(file, "r+") as target:
            target.update_tags(**tags)
    export(build_scene(find_inputs([scene, tmp_path / "out"]), Options(tile=64)), tmp_path / "page")
    address = (tmp_path / "page" / "index.html").as_uri()
    for view in ("x=750&y=450&w=1600", "x=750&y=450&w=700", "x=300&y=200&w=150", "x=1400&y=850&w=100"):
        with opened(browser, f"{address}#{view}&layers=fov~1~100,image~1~100") as page:
            picture = settle(page)[150:560, 100:1000].astype(int)
            inside = np.abs(picture - (253, 231, 37)).max(axis=2) < 6  # the last colour of viridis
            grey = np.abs(picture - 120).max(axis=2) < 6  # the image, where the layer is missing
            assert inside.mean() > 0.3
            assert not grey.any()


def test_an_export_from_a_disk_is_brightened_too_and_says_why_it_saves_no_picture(browser, exported):
    with opened(browser, (exported / "index.html").as_uri()) as page:
        page.uncheck("#layer-classes")
        dark = settle(page)[150:700, 100:400].mean()
        page.locator("#tone-white").fill("50")
        assert settle(page)[150:700, 100:400].mean() > 1.3 * dark
        page.locator("#picture").click()
        page.wait_for_function("() => document.getElementById('said').textContent.includes('http.server')")


@pytest.mark.parametrize("kind", ["fov", "confidence", "labels"])
def test_an_export_draws_every_layer_while_its_values_are_read_out(browser, exported, kind):
    with opened(browser, (exported / "index.html").as_uri()) as page:
        settle(page)
        page.keyboard.press("s")  # one pane
        page.mouse.move(500, 400)
        before = settle(page)[150:750, 100:1000].astype(int)
        page.check(f"#layer-{kind}")
        shown = settle(page)[150:750, 100:1000].astype(int)
        assert (np.abs(shown - before).max(axis=2) > 3).mean() > 0.3
