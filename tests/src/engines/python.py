# Answers one JSON line with another: {"check": PATH} or {"run": PATH, "inputs": {NAME: {shape, values}}}.
import json, sys
import numpy, onnx
from onnx.reference import ReferenceEvaluator


def answer(question):
    if "check" in question:
        onnx.checker.check_model(question["check"], full_check=True)
        return {}
    inputs = {
        name: numpy.array(tensor["values"], numpy.float32).reshape(tensor["shape"])
        for name, tensor in question["inputs"].items()
    }
    evaluator = ReferenceEvaluator(question["run"])
    outputs = evaluator.run(None, inputs)
    return {name: value.astype(float).ravel().tolist() for name, value in zip(evaluator.output_names, outputs)}


for line in sys.stdin:
    try:
        result = answer(json.loads(line))
    except Exception as error:
        result = {"error": f"{type(error).__name__}: {error}"}
    print(json.dumps(result), flush=True)
