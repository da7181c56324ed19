"""The device: it trains on what it has, and answers with the model."""

from __future__ import annotations

from flwr.app import ArrayRecord, Context, Message, RecordDict
from flwr.clientapp import ClientApp

from digits.task import make_model, records_of, train

app = ClientApp()


@app.train()
def answer(message: Message, context: Context) -> Message:
    """One round."""
    model = make_model()
    model.load_state_dict(message.content["arrays"].to_torch_state_dict())
    node = context.node_config
    x, y = records_of(int(node["partition-id"]), int(node["num-partitions"]))
    train(model, x, y, float(message.content["config"]["lr"]))
    # The model alone: a loss, or a number of records, would have to be accounted for.
    return Message(RecordDict({"arrays": ArrayRecord(model.state_dict())}), reply_to=message)
