"""From the results table to figures, tables and readings; nothing here trains or measures."""
