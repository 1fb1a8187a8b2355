"""The programs that are shipped keep the protocol."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pandas as pd
import scipy.sparse as sp
from sklearn.cluster import KMeans
from sklearn.compose import ColumnTransformer
from sklearn.datasets import load_iris
from sklearn.ensemble import RandomForestClassifier
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import Ridge
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler
from sklearn.svm import SVC

from dspex.programs import Program, RunningTrial, build
from dspex.space import Choice, Component, Float, Int, Space
from dspex.study.measurement import Measurement
from dspex.testing.programs import ProgramSuite

X, y = load_iris(return_X_y=True)
Made = tuple[Program, Any, Space]


def noisy(params: Mapping[str, Any], data: Any, trial: RunningTrial) -> float:
    return float(np.sum(data) * params["x"] + trial.rng.normal())


def growing(params: Mapping[str, Any]) -> Iterator[float]:
    for step in range(1, 4):
        yield params["x"] / step


class Scaled:
    def __init__(self, params: Mapping[str, Any]) -> None:
        self.scale = params["x"]

    def __call__(self, data: Any) -> dict[str, float]:
        return {"total": self.scale * float(np.sum(data)), "size": len(data)}


class Own:
    """A program written to the protocol by a user."""

    def __init__(self) -> None:
        self.data: Any = None

    def space(self) -> Space | None:
        return Space({"x": Int(1, 9)})

    def prepare(self, data: Any) -> None:
        self.data = data

    def evaluate(self, params: Mapping[str, Any], trial: RunningTrial) -> Measurement:
        return Measurement(params["x"] * float(self.data))

    def finish(self, params: Mapping[str, Any]) -> Any:
        return dict(params)


def made(program: Any, data: Any = None, **options: Any) -> Made:
    prepared = build(program, data, **options)
    return prepared.program, prepared.data, prepared.space


X_SPACE = {"x": Float(0.1, 2.0)}


class TestFunction(ProgramSuite):
    def make(self) -> Made:
        return made(noisy, np.arange(4.0), space=X_SPACE, direction="maximize")


class TestGenerator(ProgramSuite):
    def make(self) -> Made:
        return made(growing, space=X_SPACE, direction="maximize")


class TestClass(ProgramSuite):
    def make(self) -> Made:
        return made(Scaled, [1.0, 2.0], space=X_SPACE, direction={"total": "maximize"})


class TestUsersOwn(ProgramSuite):
    def make(self) -> Made:
        return made(Own(), 3, direction="maximize")


class TestPipeline(ProgramSuite):
    def make(self) -> Made:
        pipeline = make_pipeline(StandardScaler(), SVC())
        return made(pipeline, (X, y), metric="accuracy")


class TestRandomEstimator(ProgramSuite):
    def make(self) -> Made:
        forest = RandomForestClassifier(n_estimators=5)
        return made(forest, (X, y), metric={"acc": "accuracy", "f1": "f1_macro"}, cv=3)


class TestValidationData(ProgramSuite):
    def make(self) -> Made:
        ridge = Ridge(copy_X=False)
        return made(ridge, (X[::2], y[::2]), validation_data=(X[1::2], y[1::2]))


class TestFrame(ProgramSuite):
    def make(self) -> Made:
        frame = pd.DataFrame(X, columns=["a", "b", "c", "d"]).assign(
            kind=pd.Categorical(np.array(["u", "v", "w"])[np.arange(150) % 3]),
            word=np.array(["p", "q"])[np.arange(150) % 2],
        )
        columns = ColumnTransformer(
            [("number", StandardScaler(), ["a"]), ("word", OneHotEncoder(), ["kind", "word"])]
        )
        weights = pd.Series(np.linspace(0.5, 2.0, 150))
        metadata = {"sample_weight": weights}
        return made(make_pipeline(columns, SVC()), (frame, pd.Series(y)), metadata=metadata, cv=3)


class TestSparse(ProgramSuite):
    def make(self) -> Made:
        scaled = make_pipeline(StandardScaler(with_mean=False, copy=False), SVC())
        data = (sp.csr_matrix(X), y)
        return made(scaled, data, space={"svc__C": Float(0.1, 9)}, validation_data=data)


class TestTexts(ProgramSuite):
    def make(self) -> Made:
        texts = ["a good film", "a bad film", "good and long", "bad and long"] * 10
        return made(make_pipeline(TfidfVectorizer(), Ridge()), (texts, [0.0, 1.0] * 20), cv=3)


class TestClusterer(ProgramSuite):
    def make(self) -> Made:
        return made(KMeans(n_init=1), X, cv=3)


class TestComponents(ProgramSuite):
    samples = 8

    def make(self) -> Made:
        space = {
            "standardscaler": Choice([StandardScaler(), "passthrough"]),
            "svc": Component(
                {
                    "svc": (SVC(), {"C": Float(0.1, 10, log=True)}),
                    "forest": (RandomForestClassifier(n_estimators=3), {"max_depth": Int(1, 5)}),
                }
            ),
        }
        return made(make_pipeline(StandardScaler(), SVC()), (X, y), space=space, cv=2)
