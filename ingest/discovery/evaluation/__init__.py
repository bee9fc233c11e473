"""Evaluation of a circuit: faithfulness, curves, controls, patching."""
