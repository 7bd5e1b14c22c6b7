"""TensorBoard's own writer and reader, beside ours.

Without arguments: writes crates/mendel/tests/fixtures/events.tfevents, the bytes that our writer must give.
With a folder: reads its event files and prints {tag: [[step, value], ...]} as JSON.

    pip install tensorboard
    python benches/peers/tensorboard_events.py [FOLDER]
"""

import json
import pathlib
import sys


def fixture() -> bytes:
    import io

    from tensorboard.compat.proto.event_pb2 import Event
    from tensorboard.compat.proto.summary_pb2 import Summary
    from tensorboard.summary.writer.record_writer import RecordWriter

    buffer = io.BytesIO()
    writer = RecordWriter(buffer)
    writer.write(Event(wall_time=1.5, file_version="brain.Event:2").SerializeToString())
    values = [
        Summary.Value(tag="train/loss", simple_value=0.25),
        Summary.Value(tag="eval/mrr@10", simple_value=-1.0),
    ]
    writer.write(Event(wall_time=2.5, step=300, summary=Summary(value=values)).SerializeToString())
    return buffer.getvalue()


def read(folder: str) -> dict:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(folder, size_guidance={"scalars": 0})
    events.Reload()
    return {tag: [[e.step, e.value] for e in events.Scalars(tag)] for tag in events.Tags()["scalars"]}


if __name__ == "__main__":
    if len(sys.argv) > 1:
        print(json.dumps(read(sys.argv[1])))
    else:
        fixtures = pathlib.Path(__file__).parents[2] / "crates" / "mendel" / "tests" / "fixtures"
        (fixtures / "events.tfevents").write_bytes(fixture())
