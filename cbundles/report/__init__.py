"""From records to what people read: tables and figures. Nothing here trains or measures."""

import os

# Figures are drawn into files: the backend that somebody named for windows, which need not be here,
# has no part in that, but Matplotlib looks it up as it is imported.
os.environ["MPLBACKEND"] = "agg"
