from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from bokeh.core.validation import check_integrity
from bokeh.models import GlyphRenderer, Image, LogScale, Model, MultiLine, Quad, Scatter, Step
from bokeh.plotting import figure

from dspex.errors import InvalidArgumentError
from dspex.monitoring.plots import Plots
from dspex.monitoring.plots.style import MAX_POINTS
from dspex.space import Choice, Float, Space
from dspex.study.goal import Goal
from dspex.study.trial import ErrorInfo, Trial, TrialState

MakeStudy = Callable[..., Any]
MakeTrial = Callable[..., Trial]

PICTURES = ["history", "timeline", "slice", "importance", "parallel_coordinates", "contour"]


def plots_of(study: Any) -> Plots:
    return Plots(study.trials, study.space, study.goal)


def assert_sound(picture: Any) -> None:
    assert isinstance(picture, Model)
    issues = check_integrity(picture.references())
    assert not issues.error
    assert not issues.warning


def glyphs(picture: Any, kind: type) -> list[GlyphRenderer]:
    return [renderer for renderer in picture.renderers if isinstance(renderer.glyph, kind)]


def labels(picture: Any) -> list[str]:
    return [item.label.value for legend in picture.legend for item in legend.items]


def message(picture: Any) -> str:
    return " ".join(label.text for label in picture.center if hasattr(label, "text"))


# --- all pictures --------------------------------------------------------------------------


@pytest.mark.parametrize("name", PICTURES)
@pytest.mark.parametrize("n", [0, 1, 2, 60])
def test_every_picture_of_every_length(make_study: MakeStudy, name: str, n: int) -> None:
    assert_sound(getattr(plots_of(make_study(n)), name)())


@pytest.mark.parametrize("name", [*PICTURES, "pareto"])
def test_every_picture_of_two_objectives(make_study: MakeStudy, name: str) -> None:
    assert_sound(getattr(plots_of(make_study(60, objectives=2)), name)())


@pytest.mark.parametrize("name", PICTURES)
def test_every_picture_of_failures_alone(make_study: MakeStudy, name: str) -> None:
    study = make_study(60)
    failed = [trial for trial in study.trials if trial.state is TrialState.FAILED]
    assert_sound(getattr(Plots(failed, study.space, study.goal), name)())


@pytest.mark.parametrize("name", PICTURES)
def test_every_picture_of_a_running_study(
    make_study: MakeStudy, make_trial: MakeTrial, name: str
) -> None:
    study = make_study(20)
    fresh = {"started": None, "finished": None, "worker": None, "state": TrialState.WAITING}
    waiting = make_trial(20, params=study.trials[0].params, **fresh)
    assert_sound(getattr(Plots([*study.trials, waiting], study.space, study.goal), name)())


@pytest.mark.parametrize("name", PICTURES)
def test_an_empty_study_says_so(make_study: MakeStudy, name: str) -> None:
    text = message(getattr(plots_of(make_study(0)), name)())
    assert text.startswith(("No trial", "Nothing yet"))


def test_calling_the_plots_is_the_history(make_study: MakeStudy) -> None:
    plots = plots_of(make_study(10))
    assert plots().title.text == plots.history().title.text
    assert "history" in repr(plots)


def test_bokeh_is_loaded_by_the_first_picture_only() -> None:
    code = (
        "import sys, dspex.monitoring.plots, dspex.monitoring.report, dspex.monitoring.tables; "
        "assert not {'bokeh', 'pandas', 'tqdm'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_notebook_gets_a_picture_and_not_a_table_of_fields(
    make_study: MakeStudy, monkeypatch: pytest.MonkeyPatch
) -> None:
    from dspex.monitoring.plots import style

    shown: list[Any] = []
    monkeypatch.setitem(sys.modules, "IPython", object())
    monkeypatch.setattr(style, "output_notebook", lambda *args, **options: None)
    monkeypatch.setattr(style, "show", shown.append)
    picture = plots_of(make_study(10)).history()
    picture._ipython_display_()
    assert shown == [picture]


# --- history -------------------------------------------------------------------------------


def test_the_step_line_is_the_best_so_far(make_study: MakeStudy) -> None:
    study = make_study(60)
    (step,) = glyphs(plots_of(study).history(), Step)
    line = np.asarray(step.data_source.data["y"])
    assert (np.diff(line) >= 0).all()
    assert line[-1] == max(trial.score for trial in study.trials if trial.score is not None)


def test_failed_trials_and_the_defaults_are_in_the_history(make_study: MakeStudy) -> None:
    found = labels(plots_of(make_study(60)).history())
    assert "failed (6)" in found
    assert "the defaults" in found


def test_a_trial_that_breaks_a_constraint_is_hollow_and_never_the_best(
    make_trial: MakeTrial,
) -> None:
    trials = [make_trial(0, 1.0), make_trial(1, 5.0, violation=1.0)]
    picture = Plots(trials, Space({"x": Float(0, 1)}), Goal.of("maximize")).history()
    dots = glyphs(picture, Scatter)[0].data_source.data
    assert dots["filled"][1] == 0.0 < dots["filled"][0]
    assert "best: 1 (trial 0)" in labels(picture)


def test_one_wild_score_does_not_flatten_the_rest(make_trial: MakeTrial) -> None:
    trials = [make_trial(i, i / 100) for i in range(100)] + [make_trial(100, -1e9)]
    picture = Plots(trials, Space({"x": Float(0, 1)}), Goal.of("maximize")).history()
    assert picture.y_range.start > -10
    assert picture.y_range.end > 0.99
    inside, beyond, *_ = glyphs(picture, Scatter)
    assert len(inside.data_source.data["x"]) == 100
    assert beyond.glyph.marker == "inverted_triangle"
    assert beyond.data_source.data["score"] == ["-1000000000"]
    assert beyond.data_source.data["y"][0] > picture.y_range.start
    assert "off the scale" in labels(picture)


def test_the_defaults_are_never_off_the_scale(make_trial: MakeTrial) -> None:
    trials = [make_trial(0, 1000.0, proposed_by="default")]
    trials += [make_trial(i, 1 + i / 100) for i in range(1, 50)]
    picture = Plots(trials, Space({"x": Float(0, 1)}), Goal.of("minimize")).history()
    assert picture.y_range.end > 1000
    assert "off the scale" not in labels(picture)


def test_failed_trials_lie_beyond_the_worst_score(make_trial: MakeTrial) -> None:
    error = ErrorInfo("ValueError", "no")
    trials = [make_trial(0, 1.0), make_trial(1, 2.0), make_trial(2, error=error)]
    for direction, is_low in [("maximize", True), ("minimize", False)]:
        picture = Plots(trials, Space({"x": Float(0, 1)}), Goal.of(direction)).history()
        (crosses,) = [r for r in glyphs(picture, Scatter) if r.glyph.marker == "x"]
        place = crosses.data_source.data["y"][0]
        assert picture.y_range.start < place < picture.y_range.end
        assert place < 1.0 if is_low else place > 2.0


def test_each_objective_has_its_own_scores(make_study: MakeStudy) -> None:
    study = make_study(20, objectives=2)
    picture = plots_of(study).history("latency")
    scores = glyphs(picture, Scatter)[0].data_source.data["score"]
    assert all(float(score) >= 1 for score in scores)


def test_losses_over_many_decades_have_a_log_axis(make_trial: MakeTrial) -> None:
    trials = [make_trial(i, 10.0 ** (5 - i)) for i in range(10)]
    picture = Plots(trials, Space({"x": Float(0, 1)}), Goal.of("minimize")).history()
    assert isinstance(picture.y_scale, LogScale)


def test_ten_thousand_trials_are_thinned_but_no_record_is_lost(make_trial: MakeTrial) -> None:
    scores = np.random.default_rng(0).normal(size=10_000)
    trials = [make_trial(i, float(score)) for i, score in enumerate(scores)]
    picture = Plots(trials, Space({"x": Float(0, 1)}), Goal.of("maximize")).history()
    dots = glyphs(picture, Scatter)[0].data_source.data
    beyond = glyphs(picture, Scatter)[1].data_source.data
    records = np.flatnonzero(scores == np.maximum.accumulate(scores))
    drawn = {*np.asarray(dots["x"]).tolist(), *np.asarray(beyond["x"]).tolist()}
    assert len(drawn) <= MAX_POINTS + len(records)
    assert set(records.tolist()) <= drawn


def test_the_pareto_front_is_counted_and_stepped(make_trial: MakeTrial) -> None:
    goal = Goal.of({"auc": "maximize", "latency": "minimize"})
    points = [(0.9, 5.0), (0.8, 2.0), (0.7, 3.0), (0.6, 1.0)]
    trials = [
        make_trial(i, auc, scores={"auc": auc, "latency": latency})
        for i, (auc, latency) in enumerate(points)
    ]
    plots = Plots(trials, Space({"x": Float(0, 1)}), goal)
    assert "Pareto front (3)" in labels(plots.pareto())
    (step,) = glyphs(plots.pareto(), Step)
    assert list(step.data_source.data["y"]) == [5.0, 2.0, 1.0]
    assert plots.pareto("latency", "auc").xaxis.axis_label == "latency"


def test_a_pareto_front_of_one_objective_is_refused(make_study: MakeStudy) -> None:
    with pytest.raises(InvalidArgumentError, match="needs two objectives"):
        plots_of(make_study(5)).pareto()


# --- slices and parallel coordinates -------------------------------------------------------


def slices(picture: Any) -> dict[str, figure]:
    return {plot.title.text: plot for plot in picture.select({"type": figure})}


def test_slices_have_the_scale_and_the_labels_of_their_variables(make_study: MakeStudy) -> None:
    found = slices(plots_of(make_study(60)).slice())
    assert sorted(found) == ["C", "degree", "kernel", "tol"]
    assert isinstance(found["C"].x_scale, LogScale)
    assert found["kernel"].xaxis[0].major_label_overrides == {0: "rbf", 1: "poly", 2: "linear"}


def test_a_conditional_variable_shows_only_where_it_is_active(make_study: MakeStudy) -> None:
    study = make_study(60, failures=False)
    dots = glyphs(slices(plots_of(study).slice())["degree"], Scatter)[0].data_source.data
    assert len(dots["x"]) == sum("degree" in trial.params for trial in study.trials)


def test_params_are_chosen_by_name(make_study: MakeStudy) -> None:
    plots = plots_of(make_study(60))
    assert list(slices(plots.slice(["tol"]))) == ["tol"]
    picture = plots.parallel_coordinates(["tol", "C"])
    assert picture.xaxis[0].major_label_overrides == {0: "tol", 1: "C", 2: "auc"}
    for draw in (plots.slice, plots.parallel_coordinates):
        with pytest.raises(InvalidArgumentError, match=r"kernel.*got \['gamma'\]"):
            draw(["gamma"])


def test_many_variables_are_cut_to_the_most_important(make_trial: MakeTrial) -> None:
    space = Space({f"x{i:02d}": Float(0, 1) for i in range(30)})
    found = space.sample(100, seed=1)
    assert isinstance(found, list)
    trials = [make_trial(i, p["x25"], params=p) for i, p in enumerate(found)]
    drawn = slices(Plots(trials, space, Goal.of("maximize")).slice())
    assert len(drawn) == 12
    assert "x25" in drawn


def test_unbounded_distributions_are_drawn_over_what_was_seen(make_trial: MakeTrial) -> None:
    from scipy import stats

    space = Space({"x": stats.norm(0, 1), "y": Choice([1, 2.5, None, True])})
    found = space.sample(30, seed=1)
    assert isinstance(found, list)
    plots = Plots(
        [make_trial(i, float(i), params=p) for i, p in enumerate(found)],
        space,
        Goal.of("maximize"),
    )
    assert_sound(plots.slice())
    assert_sound(plots.parallel_coordinates())
    assert np.isfinite(slices(plots.slice())["x"].x_range.start)


def test_parallel_lines_are_few_and_the_best_is_last(make_study: MakeStudy) -> None:
    study = make_study(900)
    (lines,) = glyphs(plots_of(study).parallel_coordinates(), MultiLine)
    data = lines.data_source.data
    best = max((t for t in study.trials if t.score is not None), key=lambda t: t.score)
    assert len(data["ys"]) <= 250
    assert data["number"][-1] == str(best.number)


# --- timeline ------------------------------------------------------------------------------


def timeline(trials: list[Trial]) -> figure:
    picture = Plots(trials, Space({"x": Float(0, 1)}), Goal.of("maximize")).timeline()
    assert isinstance(picture, figure)
    return picture


def bars(picture: figure) -> list[dict[str, Any]]:
    return [
        dict(zip(renderer.data_source.data, row, strict=True))
        for renderer in glyphs(picture, Quad)
        for row in zip(*renderer.data_source.data.values(), strict=True)
    ]


def test_bars_on_one_worker_never_lie_on_each_other(make_trial: MakeTrial) -> None:
    rng = np.random.default_rng(5)
    trials = [
        make_trial(i, 1.0, started=float(s), finished=float(s + d), worker=f"w{i % 2}")
        for i, (s, d) in enumerate(zip(rng.uniform(0, 20, 40), rng.uniform(1, 5, 40), strict=True))
    ]
    found = bars(timeline(trials))
    assert len(found) == 40
    for i, one in enumerate(found):
        for other in found[:i]:
            if one["top"] == other["top"]:
                assert one["left"] >= other["right"] - 0.01 or other["left"] >= one["right"] - 0.01


def test_workers_are_rows_in_order(make_trial: MakeTrial) -> None:
    trials = [make_trial(i, 1.0, worker=f"tcp://10.0.0.{i % 3}:80") for i in range(6)]
    names = timeline(trials).yaxis[0].major_label_overrides
    assert list(names.values()) == ["10.0.0.0:80", "10.0.0.1:80", "10.0.0.2:80"]


def test_a_night_between_two_sessions_is_cut_out(make_trial: MakeTrial) -> None:
    starts = [*range(0, 100, 10), *range(40_000, 40_100, 10)]
    trials = [
        make_trial(i, 1.0, started=float(s), finished=float(s + 10)) for i, s in enumerate(starts)
    ]
    picture = timeline(trials)
    assert picture.x_range.end == pytest.approx(202)
    assert "pause of 11 h 05 min" in labels(picture)


def test_very_many_short_trials_are_merged(make_trial: MakeTrial) -> None:
    trials = [
        make_trial(i, 1.0, started=i * 0.01, finished=i * 0.01 + 0.009) for i in range(20_000)
    ]
    found = bars(timeline(trials))
    assert len(found) < 2000
    assert sum(bar["right"] - bar["left"] for bar in found) == pytest.approx(200, rel=0.02)


def test_states_have_their_colours(make_trial: MakeTrial) -> None:
    error = ErrorInfo("ValueError", "no")
    trials = [
        make_trial(0, 1.0),
        make_trial(1, error=error),
        make_trial(2, error=error, state=TrialState.TIMED_OUT),
    ]
    picture = timeline(trials)
    assert labels(picture) == ["completed", "failed", "timed out"]
    assert len({renderer.glyph.fill_color for renderer in glyphs(picture, Quad)}) == 3


# --- contour -------------------------------------------------------------------------------


def test_a_map_is_drawn_over_the_most_important_variables(make_study: MakeStudy) -> None:
    plots = plots_of(make_study(200, failures=False))
    picture = plots.contour()
    assert picture.xaxis.axis_label == "C"
    assert isinstance(picture.x_scale, LogScale)
    (image,) = glyphs(picture, Image)
    values = image.data_source.data["image"][0]
    middle, edge = np.nanmean(values[:, 28:36]), np.nanmean(values[:, :4])
    assert middle > edge  # the study's score falls on both sides of C = 1


@pytest.mark.parametrize(
    ("x", "y"), [("kernel", "C"), ("C", "kernel"), ("degree", "tol"), ("kernel", "degree")]
)
def test_a_map_over_any_two_variables(make_study: MakeStudy, x: str, y: str) -> None:
    study = make_study(40)
    picture = plots_of(study).contour(x, y)
    assert_sound(picture)
    assert (picture.xaxis.axis_label, picture.yaxis.axis_label) == (x, y)
    active = [t for t in study.trials if t.score is not None and x in t.params and y in t.params]
    assert len(glyphs(picture, Scatter)[0].data_source.data["x"]) == len(active)


def test_labels_are_stripes_of_their_own(make_trial: MakeTrial) -> None:
    space = Space({"k": ["a", "b"], "x": Float(0, 1)})
    pairs = [("a", 1.0), ("b", 0.0)]
    trials = [
        make_trial(2 * i + j, score, params={"k": label, "x": x})
        for i, x in enumerate([0.1, 0.5, 0.9])
        for j, (label, score) in enumerate(pairs)
    ]
    (image,) = glyphs(Plots(trials, space, Goal.of("maximize")).contour("k", "x"), Image)
    values = image.data_source.data["image"][0]
    assert np.allclose(values[:, :32], 1.0)
    assert np.allclose(values[:, 32:], 0.0)


def test_a_map_needs_two_variables(make_study: MakeStudy, make_trial: MakeTrial) -> None:
    one = Plots(
        [make_trial(0, 1.0, params={"x": 0.5})], Space({"x": Float(0, 1)}), Goal.of("maximize")
    )
    for names in ((), ("x",), ("x", "x"), (None, "x")):
        with pytest.raises(InvalidArgumentError, match="two variables"):
            one.contour(*names)
    with pytest.raises(InvalidArgumentError, match="'nope'"):
        plots_of(make_study(5)).contour("nope")
