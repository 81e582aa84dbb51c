"""Models outside the product: ONNX files that are proven equal to the network, and their reader."""
