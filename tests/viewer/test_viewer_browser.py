"""The page in a real browser: what people see, point at, press and share."""

import re

import numpy as np
import pytest
from browser_toys import (
    CONTRASTS,
    NAMELESS,
    PHONE,
    opened,
    pixel_under,
    readout,
    settle,
    show_only_discs,
    static_host,
)
from viewer_toys import NAMES

from foveate.viewer.build import build_scene
from foveate.viewer.export import export
from foveate.viewer.inputs import find_inputs


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
