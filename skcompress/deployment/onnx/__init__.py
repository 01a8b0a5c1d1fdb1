"""ONNX graphs, written from the traced operations."""

# What a graph gives beside predictions, if asked: the rows that come to the net of a Pipeline. No
# column of a frame has such a name.
ROWS = "skcompress/rows"
