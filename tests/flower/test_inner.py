"""Which strategies can step on a noisy mean, and what is kept of the step."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

pytest.importorskip("flwr.serverapp.exception", reason="Flower is not here: make flower")

from flwr.app import MetricRecord, RecordDict
from flwr.serverapp.strategy import FedAvg, FedXgbBagging, FedXgbCyclic, QFedAvg
from stand_in import SIZE, Nodes, ones, plan, private, record, start


@pytest.mark.parametrize(
    "strategy", [QFedAvg(client_learning_rate=0.1), FedXgbBagging(), FedXgbCyclic()], ids=repr
)
def test_a_strategy_that_steps_on_something_else_than_a_mean_is_refused(tmp_path, strategy) -> None:
    with pytest.raises(ValueError, match="losses or trees"):
        private(tmp_path, plan(), strategy)
    assert [*tmp_path.iterdir()] == []


def test_a_model_of_another_structure_is_refused(tmp_path) -> None:
    class Grows(FedAvg):
        def aggregate_train(self, server_round: int, replies: Any) -> Any:
            return record(np.zeros(SIZE + 1, np.float32)), None

    with pytest.raises(ValueError, match=r"of \{'w': \(51,\)\} of one of \{'w': \(50,\)\}"):
        private(tmp_path, plan(), Grows()).start(Nodes(range(4), ones), start())


def test_metrics_of_an_apps_own_are_not_asked_for(tmp_path) -> None:
    def losses(contents: list[RecordDict], key: str) -> MetricRecord:
        return MetricRecord({"loss": contents[0]["metrics"]["loss"]})

    inner = FedAvg(train_metrics_aggr_fn=losses)
    result = private(tmp_path, plan(), inner).start(Nodes(range(4), ones), start(), num_rounds=1)
    assert result.train_metrics_clientapp == {}
