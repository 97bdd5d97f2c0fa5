"""INT8 form of the backbone: calibrated, measured against float32, stored by reference."""
