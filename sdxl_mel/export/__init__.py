"""A base as a page that draws in the browser: its models as ONNX, and the folder that a static host serves."""
