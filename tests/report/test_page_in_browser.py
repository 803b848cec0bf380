"""The page in headless Chromium: it draws, says nothing on the console, fits, and answers to hovering and clicking."""

import shutil

import pytest

from kdexp.report.comparison import Comparison
from kdexp.report.page import write_page
from kdexp.report.runs import find

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
DRIVER = shutil.which("chromedriver")

if not (CHROMIUM and DRIVER):
    pytest.skip(
        "chromium and chromedriver are not installed: apt-get install chromium chromium-driver", allow_module_level=True
    )

pytestmark = pytest.mark.slow

from selenium import webdriver  # noqa: E402
from selenium.webdriver import ActionChains  # noqa: E402
from selenium.webdriver.common.by import By  # noqa: E402
from selenium.webdriver.support.ui import Select, WebDriverWait  # noqa: E402


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    for switch in (
        "headless",
        "no-sandbox",
        "disable-gpu",
        "disable-quic",
        "no-first-run",
        "disable-background-networking",
        "disable-component-update",
        "disable-sync",
        f"user-data-dir={tmp_path_factory.mktemp('profile')}",
    ):
        options.add_argument(f"--{switch}")
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(DRIVER))
    yield driver
    driver.quit()


@pytest.fixture(scope="module")
def grid(tmp_path_factory, write_run):
    """Two losses, alphas and temperatures, two seeds, with their control and a run that failed."""
    folder = tmp_path_factory.mktemp("grid")
    for seed in (0, 1):
        write_run(folder / f"control-{seed}", alpha=1.0, seed=seed, acc=0.80 + seed / 100)
        for number in range(8):
            settings = {"loss": ("kd", "dkd")[number // 4], "alpha": (0.1, 0.5)[number // 2 % 2]}
            settings["temperature"] = (1.0, 16.0)[number % 2]
            write_run(folder / f"{number}-{seed}", seed=seed, acc=0.8 + number / 100 + seed / 500, **settings)
    write_run(folder / "failed", alpha=0.9, status="failed")
    return folder


def show(browser, folder, width=1280):
    """Open the page of a folder's runs and go through it, so that all of it is drawn."""
    write_page(Comparison(find([folder])[0]), folder / "report.html", source=[str(folder)])
    size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 600}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    browser.get((folder / "report.html").as_uri())
    for figure in browser.find_elements(By.CSS_SELECTOR, ".plot"):
        browser.execute_script("arguments[0].scrollIntoView({behavior: 'instant'})", figure)
        if figure.is_displayed():
            WebDriverWait(browser, 20, 0.05).until(lambda _, figure=figure: "drawn" in figure.get_attribute("class"))


def assert_sound(browser):
    assert browser.get_log("browser") == []
    assert browser.execute_script("return performance.getEntriesByType('resource').length") == 0
    wide = browser.execute_script("return [document.documentElement.scrollWidth, window.innerWidth]")
    assert wide[0] <= wide[1]
    # What is drawn stands inside its figure.
    assert (
        browser.execute_script("""return [...document.querySelectorAll('.plot.drawn')].filter((plot) => {
        const [inside, outside] = [plot.querySelector('.main-svg'), plot].map((node) => node.getBoundingClientRect());
        return inside.width < 100 || inside.height < 100 || inside.right > outside.right + 1;
    }).map((plot) => plot.ariaLabel)""")
        == []
    )


@pytest.fixture(scope="module")
def opened(browser, grid):
    """The browser with the page of the grid, 1280 wide."""
    show(browser, grid)
    return browser


def rows(browser, section):
    """The cells of the rows that are shown, by one script: a call for each cell takes minutes."""
    read = """return [...document.querySelectorAll(`#${arguments[0]} tbody tr`)]
        .filter((row) => row.offsetParent !== null).map((row) => [...row.cells].map((cell) => cell.textContent))"""
    return browser.execute_script(read, section)


def column(browser, section, name):
    heads = [head.text for head in browser.find_elements(By.CSS_SELECTOR, f"#{section} th")]
    return [row[heads.index(name)] for row in rows(browser, section)]


def test_a_sweep_is_drawn_whole_and_fits(opened):
    assert_sound(opened)
    drawn = {
        section.get_attribute("id"): len(section.find_elements(By.CSS_SELECTOR, ".plot.drawn"))
        for section in opened.find_elements(By.CSS_SELECTOR, "main > section")
    }
    assert drawn == {
        "answer": 0,
        "errors": 1,
        "loss-statement": 0,
        "heat-map": 3,
        "settings": 1,
        "parallel": 1,
        "learning": 2,
        "roc": 2,
        "confusion": 3,
        "cost": 3,
        "runs": 0,
        "failed": 0,
        "method": 0,
    }
    assert len(rows(opened, "settings")) == 9
    assert len(rows(opened, "runs")) == 19


def test_the_first_screen_answers(opened):
    opened.execute_script("window.scrollTo({top: 0, behavior: 'instant'})")
    for question in opened.find_elements(By.CSS_SELECTOR, ".card"):
        assert question.rect["y"] + question.rect["height"] < 900
    cards = opened.find_element(By.CSS_SELECTOR, ".cards").text
    assert "loss = dkd" in cards
    assert "Too few seeds" in cards


@pytest.mark.parametrize(
    ("section", "up", "words"),
    [("heat-map", 0.2, "(n=2)"), ("confusion", 0.2, "predicted"), ("roc", 0.4, "temperature")],
)
def test_figures_answer_to_the_mouse(opened, section, up, words):
    plot = opened.find_element(By.CSS_SELECTOR, f"#{section} .plot")
    opened.execute_script("arguments[0].scrollIntoView({behavior: 'instant', block: 'center'})", plot)
    area = plot.find_element(By.CSS_SELECTOR, ".nsewdrag")
    # So far up from the middle, where the chosen student's ROC curve is at a false positive rate of one half.
    ActionChains(opened).move_to_element(area).move_by_offset(0, -round(up * area.rect["height"])).perform()
    WebDriverWait(opened, 5, 0.05).until(lambda _: plot.find_elements(By.CSS_SELECTOR, ".hoverlayer .hovertext"))
    assert words in plot.find_element(By.CSS_SELECTOR, ".hoverlayer").text


def test_another_part_of_the_grid_can_be_chosen(opened):
    def cells():
        shown = [plot for plot in opened.find_elements(By.CSS_SELECTOR, "#heat-map .plot") if plot.is_displayed()]
        WebDriverWait(opened, 10, 0.05).until(lambda _: all("drawn" in p.get_attribute("class") for p in shown))
        return [[text.text for text in plot.find_elements(By.CSS_SELECTOR, ".heatmap-label")] for plot in shown]

    first = cells()
    select = Select(opened.find_element(By.CSS_SELECTOR, "#heat-map select"))
    assert [option.text for option in select.options] == ["loss=dkd", "loss=kd"]
    select.select_by_visible_text("loss=kd")
    second = cells()
    assert [len(plot) for plot in first] == [len(plot) for plot in second] == [4, 4, 4]
    assert first != second
    assert opened.get_log("browser") == []


def test_tables_are_sorted_and_filtered(opened):
    table = opened.find_element(By.CSS_SELECTOR, "#runs table")
    opened.execute_script("arguments[0].scrollIntoView({behavior: 'instant', block: 'center'})", table)
    heads = {head.text: head for head in table.find_elements(By.TAG_NAME, "th")}
    for direction, sign in (("ascending", 1), ("descending", -1)):
        heads["test acc"].find_element(By.TAG_NAME, "button").click()
        assert heads["test acc"].get_attribute("aria-sort") == direction
        found = column(opened, "runs", "test acc")
        assert found[-1] == ""  # the failed run, either way
        numbers = [sign * float(text) for text in found[:-1]]
        assert numbers == sorted(numbers)
    heads["loss"].find_element(By.TAG_NAME, "button").click()
    assert heads["test acc"].get_attribute("aria-sort") == "none"
    losses = column(opened, "runs", "loss")
    assert losses == sorted(losses, key=lambda loss: (loss == "", loss))  # the controls have none
    opened.find_element(By.CSS_SELECTOR, "#runs input").send_keys("dkd temperature=16")
    assert len(rows(opened, "runs")) == 4
    assert opened.find_element(By.CSS_SELECTOR, "#runs output").text == "4 of 19 rows"


CASES = {
    "a sweep": [{"temperature": t, "alpha": a, "seed": s} for t in (1.0, 4.0) for a in (0.1, 0.5, 1.0) for s in (0, 1)],
    "one run": [{}],
    "two runs": [{}, {"alpha": 1.0}],
    "no control": [{"temperature": 1.0}, {"temperature": 4.0}],
    "one axis": [{"temperature": 1.0}, {"temperature": 4.0}, {"temperature": 8.0}, {"alpha": 1.0}],
    "a hundred classes": [{"classes": 100}, {"classes": 100, "alpha": 1.0}],
    "everything failed": [{"status": "failed"}, {"status": "diverged", "alpha": 0.5}],
    "controls alone": [{"alpha": 1.0, "seed": seed} for seed in range(3)],
    "long names": [{"student": f"mobilenetv3_large_100.miil_in21k_ft_in1k_{i}", "teacher": "t" * 60} for i in range(3)],
    "two hundred runs": [{"temperature": 1.0 + i // 2, "seed": i % 2, "acc": 0.5 + i / 500} for i in range(200)],
}


@pytest.mark.parametrize("case", CASES)
def test_unusual_comparisons_are_sound_and_fit_a_telephone(browser, tmp_path, write_run, case):
    for number, settings in enumerate(CASES[case]):
        write_run(tmp_path / f"{number}", **settings)
    show(browser, tmp_path, width=400)
    assert_sound(browser)
    assert len(rows(browser, "runs")) == len(CASES[case])


def test_curves_claims_and_robustness_are_drawn_and_can_be_chosen_from(browser, tmp_path, write_run, write_report):
    for seed in (0, 1):
        for share in (0.1, 1.0):
            for kind in ("symmetric", "pairflip"):
                data = {"train_fraction": share, "label_noise": 0.2, "label_noise_kind": kind}
                write_run(tmp_path / f"control-{share}-{kind}-{seed}", alpha=1.0, seed=seed, data=data)
                for loss in ("kd", "matched_smoothing"):
                    folder = tmp_path / f"{loss}-{share}-{kind}-{seed}"
                    write_run(folder, loss=loss, seed=seed, acc=0.9 + share / 20, data=data)
                    if share == 1:
                        write_report(folder)
    show(browser, tmp_path)
    assert_sound(browser)
    for section, figures in (("train-fraction", 2), ("robustness", 7)):
        shown = browser.find_elements(By.CSS_SELECTOR, f"#{section} .figures:not([hidden]) .plot.drawn")
        assert len(shown) == figures
        choice = Select(browser.find_element(By.CSS_SELECTOR, f"#{section} select"))
        choice.select_by_index(1)
        shown = browser.find_elements(By.CSS_SELECTOR, f"#{section} .figures:not([hidden]) .plot")
        assert len(shown) == figures
        WebDriverWait(browser, 20, 0.05).until(
            lambda _, shown=shown: all("drawn" in figure.get_attribute("class") for figure in shown)
        )
    assert len(rows(browser, "soft-labels")) == 4
    assert browser.get_log("browser") == []
