"""What is left of a network, a toy, or a study of trained networks: one typed record.

- `origin`: what every record has, and where it comes from; what every network has.
- `columns`: measurements as equally long lists, one for each quantity.
- `trained`: networks of sweeps, and those that change their depth. `toy`. `studies`: lesions,
  pruned networks, further readings of networks that were kept. `fair`: what lesions may hold too.
- `reading`: from text to a record, which is checked, and back. `sealed`: many in one file.
- `worked`: a study of one network of another library, which has a file of its own.
- `earlier`: what older versions wrote, in today's form.

Nothing here imports JAX.
"""

from cbundles.records.columns import Columns, Layers, Number, by_columns
from cbundles.records.fair import AtBatchSize, Controls, FairBlocks, FairStudy, Greedy
from cbundles.records.origin import NetworkRecord, Origin, Record
from cbundles.records.reading import AnyRecord, CellRecord
from cbundles.records.studies import (
    HASH_OF_FILE,
    Blocks,
    Comparison,
    LesionRecord,
    MeasuredRecord,
    PrunedRecord,
)
from cbundles.records.toy import (
    PLAIN_CASES,
    TRAINED_CASES,
    InputGradients,
    PlainNetwork,
    ToyHistory,
    ToyRecord,
    ToyTraining,
)
from cbundles.records.trained import (
    OWN_READING,
    EarlyHistory,
    EditedHistory,
    EditedRecord,
    Event,
    GrowRecord,
    Scoring,
    SweepHistory,
    SweepRecord,
    TrainedRecord,
    TuneRecord,
)

__all__ = [
    "HASH_OF_FILE",
    "OWN_READING",
    "PLAIN_CASES",
    "TRAINED_CASES",
    "AnyRecord",
    "AtBatchSize",
    "Blocks",
    "CellRecord",
    "Columns",
    "Comparison",
    "Controls",
    "EarlyHistory",
    "EditedHistory",
    "EditedRecord",
    "Event",
    "FairBlocks",
    "FairStudy",
    "Greedy",
    "GrowRecord",
    "InputGradients",
    "Layers",
    "LesionRecord",
    "MeasuredRecord",
    "NetworkRecord",
    "Number",
    "Origin",
    "PlainNetwork",
    "PrunedRecord",
    "Record",
    "Scoring",
    "SweepHistory",
    "SweepRecord",
    "ToyHistory",
    "ToyRecord",
    "ToyTraining",
    "TrainedRecord",
    "TuneRecord",
    "by_columns",
]
