import pytest
from browser_toys import CHROMIUM, served
from viewer_toys import make_toy


@pytest.fixture(scope="session")
def toy(tmp_path_factory):
    return make_toy(tmp_path_factory.mktemp("viewer"))


@pytest.fixture(scope="session")
def browser():
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    if CHROMIUM is None:
        pytest.skip("no Chromium is installed; FOVEATE_CHROMIUM may name one")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def one(browser, toy):
    """The address of a prediction and its labels."""
    pytest.importorskip("uvicorn", reason="the extra viewer is not installed")
    with served(toy.image, toy.first, "--labels", toy.labels) as address:
        yield address


@pytest.fixture(scope="session")
def two(browser, toy):
    """The address of two predictions."""
    pytest.importorskip("uvicorn", reason="the extra viewer is not installed")
    with served(toy.image, toy.first, toy.second, "--labels", toy.labels) as address:
        yield address
