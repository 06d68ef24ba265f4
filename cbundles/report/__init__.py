"""From records to what people read: tables and figures. Nothing here trains or measures."""
