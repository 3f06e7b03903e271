//! The reference evaluator of the Python package `onnx`, which executes the standard's own definition
//! of each operator, slowly; and that package's checker.

use super::{Engine, Values, change};
use crate::cases::{Inputs, Model};
use crate::resources;
use anyhow::{Context, Result, bail};
use gradresnet_models::{Graph, Port};
use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::Mutex;

const PROGRAM: &str = include_str!("python.py");
/// Each takes seconds; these cover all operators.
const VARIANTS: [&str; 6] = [
    "biases Batch",
    "no classes",
    "imagenet stem",
    "all different",
    "ResNet, imagenet stem, group norm",
    "DnCNN",
];

/// A Python process that answers each line of JSON with one.
#[derive(Debug)]
pub struct Python {
    process: Mutex<(Child, ChildStdin, BufReader<ChildStdout>)>,
}

/// Starts the interpreter that `GRADRESNET_PYTHON` names; without it, says that `test` is skipped.
///
/// # Errors
/// If it does not start.
pub fn start(test: &str) -> Result<Option<Python>> {
    let Some(interpreter) = resources::path("GRADRESNET_PYTHON", test) else { return Ok(None) };
    let mut child = Command::new(&interpreter)
        .args(["-c", PROGRAM])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .with_context(|| interpreter.display().to_string())?;
    let input = child.stdin.take().context("no stdin")?;
    let output = BufReader::new(child.stdout.take().context("no stdout")?);
    Ok(Some(Python { process: Mutex::new((child, input, output)) }))
}

impl Python {
    fn ask(&self, question: &Value) -> Result<Value> {
        let mut process = self.process.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        writeln!(process.1, "{question}")?;
        let mut line = String::new();
        process.2.read_line(&mut line)?;
        let answer: Value = serde_json::from_str(&line).context("Python gave no answer; see its stderr")?;
        match answer.get("error") {
            Some(error) => bail!("{error}"),
            None => Ok(answer),
        }
    }

    /// Checks a graph with `onnx.checker`, shapes included.
    ///
    /// # Errors
    /// Those of the checker.
    pub fn check(&self, graph: &Path) -> Result<()> {
        self.ask(&json!({ "check": graph }))?;
        Ok(())
    }
}

impl Drop for Python {
    fn drop(&mut self) {
        let process = self.process.get_mut().unwrap_or_else(|poisoned| poisoned.into_inner());
        // It may have ended already.
        let _ = process.0.kill();
        let _ = process.0.wait();
    }
}

impl Engine for Python {
    fn name(&self) -> String {
        "onnx reference evaluator".into()
    }

    fn runs(&self, variant: &str) -> bool {
        VARIANTS.contains(&variant)
    }

    fn run(&self, model: &Model, inputs: &Inputs) -> Result<Values> {
        let [n, h, w] = inputs.size;
        let image = json!({ "shape": [n, 3, h, w], "values": inputs.noisy });
        let spec = model.bundle.spec();
        let run = |graph: Graph| -> Result<Value> {
            if !graph.is_of(spec) {
                return Ok(Value::Null);
            }
            let value = |port: &Port| match port {
                Port::Sigma => json!({ "shape": [n], "values": inputs.sigma }),
                Port::ClassWeights => {
                    json!({ "shape": [n, spec.classes.len()], "values": inputs.class_weights })
                }
                _ => image.clone(),
            };
            let inputs: serde_json::Map<String, Value> =
                graph.inputs(spec).iter().map(|port| (port.name_in(graph).into(), value(port))).collect();
            self.ask(&json!({ "run": model.bundle.path(graph.file_name()), "inputs": inputs }))
        };
        let (forward, denoiser) = (run(Graph::Forward)?, run(Graph::Denoiser)?);
        let values = |answer: &Value, name: &str| -> Vec<f64> {
            let list = answer[name].as_array();
            list.into_iter().flatten().filter_map(Value::as_f64).collect()
        };
        Ok(Values {
            change: change(values(&denoiser, "denoised"), inputs),
            energy: [values(&denoiser, "energy"), values(&forward, "energy")],
            logits: [values(&denoiser, "logits"), values(&forward, "logits")],
        })
    }
}
