"""Recipes, saved models and what a training shows of itself."""

import dataclasses
import json
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from support import tiny_method as tiny

from pointseg.lab import recipe as recipes
from pointseg.lab.models import load_model, save_model
from pointseg.lab.progress import Progress, clock, cut, read_log
from pointseg.lab.run_record import strict
from pointseg.structures import Category, InputError, Training
from pointseg.training.loop import fit

tiny.register()


def run():
    chosen = tiny.settings()
    return list(fit(tiny.Tiny(), tiny.feed(chosen), chosen, device="cpu"))


# --- recipes


def test_a_recipe_survives_json_and_its_hash_follows_every_field():
    chosen = recipes.make(
        "tiny", points={"kind": "jitter", "n": 10, "jitter_px": 2.0}, config={"b": [1, 2], "a": 1}
    )
    assert recipes.Recipe.from_json(chosen.to_json()) == chosen
    assert dict(chosen.config) == {"a": 1, "b": (1, 2)}
    others = [dataclasses.replace(chosen, seed=1), dataclasses.replace(chosen, config=()),
              dataclasses.replace(chosen, training=Training(lr=2.0))]  # fmt: skip
    assert len({r.sha8 for r in [chosen, *others]}) == 4


@pytest.mark.parametrize("wrong, said", [
    ({"method": "nothing"}, "method: there is no 'nothing'"),
    ({"scale": "huge"}, "scale: there is no 'huge'; there are smoke, small, paper"),
    ({"training": {"learning_rate": 1}}, "training: there is no 'learning_rate'"),
    ({"points": {"kind": "random"}}, "points kind: there is no 'random'"),
    ({"precision": "fp8"}, "precision: there is no 'fp8'"),
    ({"depth": 3}, "recipe: there is no 'depth'"),
    ({"student": "nothing"}, "student: there is no 'nothing'"),
])  # fmt: skip
def test_an_unknown_wish_is_refused_in_one_line(wrong, said):
    tiny.register()
    with pytest.raises(InputError, match=said) as caught:
        recipes.make(**{"method": "tiny", **wrong})
    assert "\n" not in str(caught.value)


@given(
    st.text(max_size=80)
    | st.just("{}")
    | st.just('{"points": {}, "training": {"x": 1}, "config": {}}')
)
def test_any_text_is_a_recipe_or_an_input_error(text):
    with pytest.raises(InputError):
        recipes.Recipe.from_json(text)


def test_an_infinite_setting_comes_back_from_a_runs_folder():
    chosen = recipes.make("tiny", config={"alpha": math.inf, "beta": 0.1})
    assert dict(chosen.config)["alpha"] == math.inf
    written = json.dumps(strict(json.loads(chosen.to_json())), allow_nan=False)
    assert recipes.Recipe.from_json(written) == chosen


def test_epochs_become_steps_once_the_images_are_counted():
    chosen = recipes.make("tiny", training={"epochs": 2.5, "batch": 4})
    assert chosen.for_images(10).training.steps == 7
    assert recipes.make("tiny").for_images(10).training.steps == recipes.SCALES["smoke"].steps


# --- models, progress, protocol


def test_a_saved_model_is_read_back_without_unpickling(tmp_path):
    categories = (Category(7, "otter"), Category(9, "river", False))
    chosen, method = tiny.recipe(), tiny.Tiny()
    save_model(tmp_path / "m.pt", method, chosen, categories)
    again, recipe, named = load_model(tmp_path / "m.pt")
    assert (recipe, named) == (chosen, categories) and tiny.weights(again) == tiny.weights(method)
    torch.save({"recipe": print}, tmp_path / "bad.pt")
    with pytest.raises(InputError, match=r"bad.pt: is not a model"):
        load_model(tmp_path / "bad.pt")


def test_progress_writes_plain_lines_and_two_logs(tmp_path, capsys):
    progress = Progress(12, tmp_path)
    records = run()
    for record in records:
        progress(record)
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 12 and "\r" not in "".join(lines)
    assert all(word in lines[-1] for word in ("step 12/12", "loss", "images/s", "left 0:00"))
    log, speed = (read_log(tmp_path / f"{name}.jsonl") for name in ("log", "speed"))
    assert [line["losses"] for line in log] == [r.losses for r in records]
    assert set(log[0]) == {"step", "epoch", "losses", "total", "lr", "seen"}
    assert all(line["data_wait"] <= line["seconds"] for line in speed)
    assert 0 <= progress.speed["data_wait_share"] <= 1


def test_a_terminal_gets_one_line_that_is_overwritten(tmp_path):
    import io

    class Terminal(io.StringIO):
        def isatty(self):
            return True

    screen = Terminal()
    progress = Progress(12, stream=screen)
    for record in run():
        progress(record)
    assert screen.getvalue().count("\r") == 12 and screen.getvalue().count("\n") == 1


def test_a_resumed_log_drops_what_will_be_written_again_and_a_torn_line(tmp_path):
    path = tmp_path / "log.jsonl"
    path.write_text("".join(json.dumps({"step": s}) + "\n" for s in range(5)) + '{"step": 5, "to')
    cut(path, 3)
    assert [line["step"] for line in read_log(path)] == [0, 1, 2]


@pytest.mark.parametrize("seconds, shown", [(0, "0:00"), (59.6, "1:00"), (3661, "1:01:01")])
def test_clock(seconds, shown):
    assert clock(seconds) == shown
