"""The server: FedAvg with momentum, under the operator's plan."""

from __future__ import annotations

from flwr.app import ArrayRecord, ConfigRecord, Context, MetricRecord
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvgM

from digits.task import accuracy, make_model
from fldp.flower import Private, from_environment

app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    """One run: to the end of the plan, or from where the last run ended."""
    config = context.run_config
    # The clip stands in the code: what a run may change must not decide what is clipped.
    strategy = Private(FedAvgM(server_momentum=0.5), clip=1.0, **from_environment())
    strategy.start(
        grid,
        ArrayRecord(make_model().state_dict()),
        timeout=float(config["round-timeout"]),
        train_config=ConfigRecord({"lr": float(config["learning-rate"])}),
        evaluate_fn=evaluate,
    )
    strategy.close()


def evaluate(server_round: int, arrays: ArrayRecord) -> MetricRecord:
    """After each round, on records that are the server's own."""
    model = make_model()
    model.load_state_dict(arrays.to_torch_state_dict())
    found = accuracy(model)
    print(f"round {server_round}: accuracy {found:.3f}", flush=True)
    return MetricRecord({"accuracy": found})
