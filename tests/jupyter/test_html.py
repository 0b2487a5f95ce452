"""Names from outside in pages, tried in a browser: shown as they are, never run."""

import html
import shutil

import pytest
import torch
from conftest import make_tiny_settings

from lib.config import EvaluateSettings
from lib.evaluate.test import evaluate
from lib.jupyter.html import Tile, escape, tiles_html
from lib.report.page import ENVIRONMENT, export_html
from lib.runs.run_dir import RunDir
from lib.train.fit import fit

pytest_plugins = ("browser",)

PAYLOADS = [
    "semi<img src=x onerror=window.ran=1>",
    'semi"><img src=x onerror="window.ran=1">',
    "semi'><svg onload='window.ran=1'>",
    '" onmouseover="window.ran=1" x="',
    "<script>window.ran=1</script>",
    "</style></title><script>window.ran=1</script>",
    "[press](javascript:window.ran=1)",
    "![x](x){onerror=window.ran=1}",
    "`code` *a* **b** ~~c~~ | cell $x$ \\\\(y\\\\) &amp; &lt;",
    "two\nlines\n\n# no heading",
]
RAN = "window.ran !== undefined"


@pytest.fixture
def open_page(chromium, tmp_path):
    """Open HTML from a file, and wait for what it loads."""
    page = chromium.new_page()

    def load(path):
        page.goto(path.as_uri())
        page.wait_for_load_state("networkidle")
        return page

    yield load
    page.close()


@pytest.mark.parametrize("payload", PAYLOADS)
def test_a_name_is_shown_as_it_is(payload, open_page, tmp_path):
    from nbconvert.filters.markdown_mistune import markdown2html_mistune

    path, name = tmp_path / "page.html", escape(payload)
    table = markdown2html_mistune(f"| a | b |\n|---|---|\n| {name} | 2 |")
    path.write_text(
        f"<meta charset=utf-8><title>{name}</title>"
        f"<pre id=html title=\"{name}\">{name}</pre><pre id=other title='{name}'></pre>"
        f"<textarea id=area>{name}</textarea>"
        f"<div id=markdown>{markdown2html_mistune(f'**{name}** and a word')}</div>"
        f"<div id=table>{table}</div>",
        encoding="utf-8",
    )
    page = open_page(path)
    page.mouse.move(20, 20)
    assert not page.evaluate(RAN)
    assert page.locator("#html").text_content() == payload
    assert page.locator("#html").get_attribute("title") == payload
    assert page.locator("#other").get_attribute("title") == payload
    assert page.locator("#area").input_value() == payload
    assert page.locator("#markdown strong").text_content() == payload
    assert page.locator("#markdown *").count() == 2  # p and strong
    assert page.locator("#table td").all_text_contents() == [payload, "2"]


def test_a_link_stays_a_link(open_page, tmp_path):
    path = tmp_path / "page.html"
    link = ENVIRONMENT.from_string('<a href="{{ run | urlencode }}/">{{ run }}</a>')
    path.write_text(link.render(run=PAYLOADS[1]))  # as report.html.j2 links a run
    page = open_page(path)
    assert page.locator("a").count() == 1 and page.locator("img").count() == 0
    assert page.locator("a").evaluate("a => a.protocol") == "file:"


def test_a_message_in_place_of_a_clip_is_no_markup():
    tile = Tile("title", "black", f"cannot be read: {PAYLOADS[0]}")
    assert tiles_html([tile], "clips") == f"<p>{html.escape(tile.clip)}</p>"


def tile_of(size: tuple[int, int], title: str = "clip", numbers: tuple[int, ...] = ()) -> Tile:
    """Return a clip of four frames, frame t of gray 60 · t."""
    gray = torch.arange(0, 240, 60, dtype=torch.uint8).view(4, 1, 1, 1)
    return Tile(title, "red", gray.expand(4, 3, *size), numbers)


def test_tiles_loop_in_step_with_their_numbers_and_pause(open_page, tmp_path):
    path = tmp_path / "page.html"
    tiles = [tile_of((48, 64), numbers=(10, 13, 16, 19)), tile_of((300, 200), PAYLOADS[0])]
    path.write_text(f"<meta charset=utf-8>{tiles_html(tiles, PAYLOADS[1])}", encoding="utf-8")
    page = open_page(path)
    assert not page.evaluate(RAN)
    assert page.get_by_text(PAYLOADS[0], exact=True).count() == 1
    page.get_by_label("pause").check()
    page.emulate_media(reduced_motion="reduce")
    for frame in range(4):
        page.locator(".clips").evaluate("(e, k) => e.style.setProperty('--frame', k)", frame)
        shown = """image => Math.round(
            (image.parentElement.getBoundingClientRect().top - image.getBoundingClientRect().top)
            / image.parentElement.getBoundingClientRect().height)"""
        assert page.locator(".film img").first.evaluate(shown) == frame
        assert page.locator(".film img").last.evaluate(shown) == frame
        assert (
            page.locator(".numbers span").evaluate(
                "e => Math.round((e.parentElement.getBoundingClientRect().top - "
                "e.getBoundingClientRect().top) / e.parentElement.getBoundingClientRect().height)"
            )
            == frame
        )
    boxes = [film.bounding_box() for film in page.locator(".film").all()]
    assert boxes[0]["width"] / boxes[0]["height"] == pytest.approx(4 / 3, rel=0.02)
    assert boxes[1]["width"] / boxes[1]["height"] == pytest.approx(2 / 3, rel=0.02)


def shown_frame(page) -> int:
    return int(
        page.locator(".clips").evaluate("e => getComputedStyle(e).getPropertyValue('--frame')")
    )


def test_frames_are_stepped_and_chosen_and_loop_again(open_page, tmp_path):
    path = tmp_path / "page.html"
    path.write_text(f"<meta charset=utf-8>{tiles_html([tile_of((64, 64))] * 2, 'clips')}")
    page = open_page(path)
    page.get_by_label("frame", exact=True).fill("2")
    assert shown_frame(page) == 2 and page.get_by_label("pause").is_checked()
    assert page.locator("output").inner_text() == "frame 3 of 4"
    for expected in (3, 0, 1):  # the frames are a circle
        page.get_by_title("next frame").click()
        assert shown_frame(page) == expected
    page.get_by_title("previous frame").click()
    page.get_by_label("frame", exact=True).press("ArrowRight")
    assert shown_frame(page) == 1
    page.get_by_label("pause").uncheck()
    page.wait_for_function(
        "getComputedStyle(document.querySelector('.clips')).getPropertyValue('--frame') !== '1'"
    )
    page.get_by_title("next frame").click()  # from the frame of that moment
    before = shown_frame(page)
    page.wait_for_timeout(300)
    assert shown_frame(page) == before


def test_a_click_enlarges_a_tile_and_a_second_one_shrinks_it(open_page, tmp_path):
    path = tmp_path / "page.html"
    path.write_text(f"<meta charset=utf-8>{tiles_html([tile_of((64, 64))] * 3, 'clips')}")
    page = open_page(path)
    tile = page.locator(".square").first
    width = tile.bounding_box()["width"]
    tile.click()
    assert tile.bounding_box()["width"] > 2 * width
    tile.click()
    assert tile.bounding_box()["width"] == width


def test_frame_and_enlarged_tile_stay_when_a_widget_is_drawn_again(open_page, tmp_path):
    path, grid = tmp_path / "page.html", tiles_html([tile_of((64, 64))] * 2, "clips")
    path.write_text(f"<meta charset=utf-8><div class=widget-html>{grid}</div>")
    page = open_page(path)
    page.get_by_label("frame", exact=True).fill("3")
    page.locator(".square").last.click()
    page.evaluate("""() => {
        document.querySelector('.large').classList.remove('large');
        document.querySelector('.still').classList.remove('still');
        const widget = document.querySelector('.widget-html');
        widget.innerHTML = String(widget.innerHTML);
    }""")
    page.wait_for_function("document.querySelector('.clips-box.still .large') !== null")
    assert shown_frame(page) == 3


def test_a_long_path_stays_within_its_tile(open_page, tmp_path):
    path = tmp_path / "page.html"
    note = Tile("text", "red", "cannot be read: " + "/a_folder_without_a_blank" * 6)
    path.write_text(tiles_html([tile_of((224, 224)), note], "clips"))
    page = open_page(path)
    assert page.locator(".square").last.evaluate("e => e.scrollWidth <= e.clientWidth")


@pytest.fixture(scope="module")
def hostile_study(prepared_dir, tmp_path_factory):
    """A study, runs and a list with names that are markup."""
    data = tmp_path_factory.mktemp("data")
    shutil.copytree(prepared_dir / "synthetic", data / "synthetic")
    lists = data / "synthetic" / "splits"
    shutil.copy(lists / "val.txt", lists / f"{PAYLOADS[0]}.txt")
    study = tmp_path_factory.mktemp("runs") / PAYLOADS[0]
    for name, objective in ((PAYLOADS[0], "fixmatch"), (PAYLOADS[1], "supervised")):
        run_dir = study / f"{name}_seed0"
        changes = {"objective": objective, "epochs": 1, "test_splits": [PAYLOADS[0]]}
        fit(make_tiny_settings(data, run_dir, **changes))
        evaluate(EvaluateSettings(run_dir=str(run_dir)))
    RunDir(study / f"{PAYLOADS[2]}_seed0").start(make_tiny_settings(data, study / "other"))
    return study


@pytest.mark.slow
def test_a_report_of_hostile_names_runs_nothing(hostile_study, execute_warm, open_page):
    output = hostile_study / "5_report.ipynb"
    parameters = {"study_dir": str(hostile_study), "title": hostile_study.name}
    execute_warm("5_report.ipynb", output, parameters)
    page = open_page(export_html(output, hostile_study / "report.html"))
    assert not page.evaluate(RAN)
    text = page.locator("body").text_content()
    assert f"Is {PAYLOADS[0]} better than {PAYLOADS[1]} on {PAYLOADS[0]}?" in text
    assert f"{PAYLOADS[2]}_seed0: " in text  # left out, since it was not tested
    assert page.title() == PAYLOADS[0]
    assert f"{PAYLOADS[0]} recognizes" in page.locator("h1").inner_text()
    sources = page.locator("img").evaluate_all("images => images.map(image => image.src)")
    assert sources and all(source.startswith("data:image/png") for source in sources)


@pytest.mark.slow
def test_the_page_of_an_evaluation_runs_nothing(hostile_study, execute_warm, open_page, tmp_path):
    run_dir = hostile_study / f"{PAYLOADS[0]}_seed0"
    execute_warm("4_evaluate.ipynb", tmp_path / "4.ipynb", {"run_dir": str(run_dir)})
    page = open_page(export_html(tmp_path / "4.ipynb", tmp_path / "page.html"))
    assert not page.evaluate(RAN)
    assert PAYLOADS[0] in page.locator("b").all_text_contents()
