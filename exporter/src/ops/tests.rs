//! Every operator: its reverse-mode rule against central differences, and its ONNX nodes, run by tract,
//! against its own value.

use super::conv::{Conv, ConvTranspose, TransposedKernel};
use super::elementwise::{Binary, Unary};
use super::leaf::{Constant, Input};
use super::linear::Linear;
use super::norm::GroupVariance;
use super::pool::MaxPool;
use super::reduce::{Extent, Reduce};
use super::shape::{BroadcastTo, Concat, Reshape, Slice, ZeroPad};
use super::softmax::Softmax;
use crate::evaluate::{Values, evaluate};
use crate::ir::{Dim, Graph, NodeId, Operator, Tensor};
use crate::lower::lower;
use crate::network::{Weights, draw};
use crate::onnx::{External, serialise};
use crate::reverse::gradient;
use crate::test_networks::{all, single};
use gradresnet_models::port;
use std::collections::BTreeSet;
use std::sync::Arc;
use tract_onnx::prelude::*;

struct Entry {
    operator: Arc<dyn Operator>,
    /// Shapes of the inputs.
    inputs: Vec<Vec<usize>>,
    /// Which of them have a gradient.
    smooth: Vec<bool>,
}

fn entry(operator: impl Operator + 'static, inputs: &[&[usize]], smooth: &[bool]) -> Entry {
    Entry {
        operator: Arc::new(operator),
        inputs: inputs.iter().map(|s| s.to_vec()).collect(),
        smooth: smooth.to_vec(),
    }
}

/// The table: one line per operator, more where its cases differ.
fn table() -> Vec<Entry> {
    let both = &[true, true];
    let mut table = Vec::new();
    for binary in Binary::ALL {
        table.push(entry(binary, &[&[2, 3, 4, 5], &[2, 3, 4, 5]], both));
        table.push(entry(binary, &[&[2, 3, 4, 5], &[1, 3, 1, 1]], both));
        table.push(entry(binary, &[&[2, 1, 1, 1], &[2, 3, 4, 5]], both));
    }
    for unary in Unary::ALL {
        table.push(entry(unary, &[&[2, 3, 4, 4]], &[unary != Unary::Step]));
    }
    let shape = [3, 2].map(Dim::Fixed).to_vec();
    table.extend([
        entry(Reduce::sum(&[2, 3]), &[&[2, 3, 4, 4]], &[true]),
        entry(Reduce::mean(&[2, 3]), &[&[2, 3, 4, 4]], &[true]),
        entry(Reduce::mean(&[1]), &[&[2, 3]], &[true]),
        entry(Extent { axes: vec![2, 3] }, &[&[2, 3, 4, 5]], &[false]),
        entry(Reshape { shape }, &[&[6]], &[true]),
        entry(BroadcastTo, &[&[2, 3, 1, 1], &[2, 3, 4, 4]], &[true, false]),
        entry(Concat { axis: 1 }, &[&[2, 3], &[2, 1]], both),
        entry(Slice { axis: 1, start: 1, end: 3 }, &[&[2, 4]], &[true]),
        entry(ZeroPad { axis: 1, before: 1, after: 2 }, &[&[2, 3]], &[true]),
        entry(Linear { transposed: false }, &[&[2, 3], &[4, 3]], &[true, false]),
        entry(Linear { transposed: true }, &[&[2, 4], &[4, 3]], &[true, false]),
        entry(GroupVariance { size: 2 }, &[&[2, 4, 3, 5]], &[true]),
        entry(MaxPool, &[&[2, 3, 4, 6]], &[false]),
        entry(TransposedKernel, &[&[4, 2, 3, 3]], &[true]),
        entry(Softmax::Probability, &[&[2, 5]], &[true]),
        entry(Softmax::Logarithm, &[&[2, 5]], &[true]),
    ]);
    for (stride, kernel) in [(1, 3), (2, 3), (2, 1), (2, 7)] {
        let kernel = [4, 3, kernel, kernel];
        table.push(entry(Conv { stride }, &[&[2, 3, 8, 6], &kernel], &[true, false]));
        table.push(entry(ConvTranspose { stride }, &[&[2, 4, 4, 3], &kernel], &[true, false]));
    }
    table
}

/// Away from 0, where roots and reciprocals misbehave, and from the kinks of piecewise functions.
fn value(seed: usize, at: &[usize]) -> f64 {
    let n = at.iter().fold(seed + 1, |n, &i| n * 31 + i * 17 + 5) % 1009;
    0.3 + 1.4 * (n as f64 / 1009.0)
}

fn given(entry: &Entry) -> Values {
    let tensor = |(i, shape): (usize, &Vec<usize>)| {
        let negative =
            matches!(entry.operator.name(), "Relu" | "Step" | "Gelu" | "Silu" | "Erf" | "NormalCdf");
        let sign = |at: &[usize]| if negative && at.iter().sum::<usize>() % 2 == 0 { -1.0 } else { 1.0 };
        // Rounded to float32, which is what engines take.
        let tensor = Tensor::from_fn(shape, |at| f64::from((sign(at) * value(i, at)) as f32));
        (format!("x{i}"), tensor)
    };
    entry.inputs.iter().enumerate().map(tensor).collect()
}

/// Else the float64 evaluator would hide what overflows in float16.
#[test]
fn what_is_no_number_stays_so() {
    let image = Tensor::from_fn(&[1, 1, 4, 4], |at| if at[2..] == [1, 2] { f64::NAN } else { 1.0 });
    let operators: [(&dyn Operator, usize); 4] =
        [(&Unary::Relu, 1), (&MaxPool, 2), (&Binary::Max, 1), (&Unary::Gelu, 1)];
    for (operator, expected) in operators {
        let found = operator.evaluate(&[&image, &image]);
        let count = found.values().iter().filter(|v| v.is_nan()).count();
        assert_eq!(count, expected, "{}", operator.name());
    }
}

/// The operator on inputs `x0`, `x1`, …
fn graph(entry: &Entry) -> (Graph, Vec<NodeId>, NodeId) {
    let mut graph = Graph::new();
    let inputs: Vec<NodeId> = entry
        .inputs
        .iter()
        .enumerate()
        .map(|(i, shape)| {
            let shape = shape.iter().map(|&d| Dim::Fixed(d)).collect();
            graph.add(Input { name: format!("x{i}"), shape }, &[]).unwrap()
        })
        .collect();
    let output = graph.add_shared(entry.operator.clone(), &inputs).unwrap();
    (graph, inputs, output)
}

#[test]
fn every_rule_agrees_with_central_differences() {
    const STEP: f64 = 1e-5;
    for entry in table().iter().filter(|e| e.smooth.contains(&true)) {
        // A gradient that varies, and one that is the same everywhere.
        for uniform in [false, true] {
            let (mut graph, inputs, output) = graph(entry);
            let rank = graph.shape(output).len();
            let axes: Vec<usize> = (0..rank).collect();
            let objective = if uniform {
                graph.add(Reduce::mean(&axes), &[output]).unwrap()
            } else {
                let shape: Vec<usize> = graph.shape(output).iter().filter_map(|d| d.fixed()).collect();
                let weights = Constant::new(Tensor::from_fn(&shape, |at| value(99, at) - 0.8));
                let weights = graph.add(weights, &[]).unwrap();
                let product = graph.mul(output, weights).unwrap();
                graph.add(Reduce::sum(&axes), &[product]).unwrap()
            };
            graph.set_output("objective", objective);
            let values = given(entry);
            for (i, &input) in inputs.iter().enumerate().filter(|(i, _)| entry.smooth[*i]) {
                let mut graph = graph.clone();
                let slope = gradient(&mut graph, objective, input).unwrap();
                graph.set_output("gradient", slope);
                let found = evaluate(&graph, &values).unwrap()["gradient"].clone();
                let name = format!("x{i}");
                for element in 0..found.values().len() {
                    let at = |t: f64| {
                        let mut values = values.clone();
                        let mut n = 0;
                        let x = values[&name].map(|v| v);
                        let moved = Tensor::from_fn(x.shape(), |at| {
                            n += 1;
                            x.at(at) + if n - 1 == element { t } else { 0.0 }
                        });
                        values.insert(name.clone(), moved);
                        evaluate(&graph, &values).unwrap()["objective"].values()[0]
                    };
                    let expected = (at(STEP) - at(-STEP)) / (2.0 * STEP);
                    let found = found.values()[element];
                    // Central differences err by STEP² and, of sums of hundreds of terms, by 1e-13/STEP.
                    assert!(
                        (found - expected).abs() < 1e-6 * (1.0 + expected.abs()),
                        "{:?}, input {i}, uniform {uniform}: {found} for {expected}",
                        entry.operator
                    );
                }
            }
        }
    }
}

#[test]
fn tract_computes_what_the_evaluator_computes() {
    for entry in &table() {
        let (mut graph, _, output) = graph(entry);
        graph.set_output("y", output);
        let values = given(entry);
        let expected = evaluate(&graph, &values).unwrap()["y"].clone();
        let lowered = lower(&graph).unwrap();
        let agree = |a: f64, b: f64| (a - b).abs() < 1e-12 * (1.0 + b.abs());
        let same = evaluate(&lowered, &values).unwrap()["y"].clone();
        let what = format!("{:?}", entry.operator);
        assert!(same.values().iter().zip(expected.values()).all(|(a, b)| agree(*a, *b)), "{what}: lowering");

        for opset in [17, 18] {
            let bytes = serialise(&lowered, "test", opset, &External::new(), &[]).unwrap();
            let model = tract_onnx::onnx().model_for_read(&mut &*bytes).unwrap();
            let names: Vec<String> =
                model.input_outlets().unwrap().iter().map(|o| model.node(o.node).name.clone()).collect();
            let plan = model.into_optimized().and_then(|m| m.into_runnable());
            let plan = plan.unwrap_or_else(|e| panic!("{what}: {e:#}"));
            let inputs: TVec<TValue> = names
                .iter()
                .map(|name| {
                    let x = &values[name];
                    let data: Vec<f32> = x.values().iter().map(|&v| v as f32).collect();
                    tract_onnx::prelude::Tensor::from_shape(x.shape(), &data).unwrap().into()
                })
                .collect();
            let outputs = plan.run(inputs).unwrap();
            assert_eq!(outputs[0].shape(), expected.shape(), "{what}");
            let found = outputs[0].to_plain_array_view::<f32>().unwrap();
            for (found, expected) in found.iter().zip(expected.values()) {
                // A few hundred products of order 1 in float32.
                let error = (f64::from(*found) - expected).abs();
                assert!(error < 1e-5 * (1.0 + expected.abs()), "{what}: {found} for {expected}");
            }
        }
    }
}

/// φ leaves float32's normal numbers (1.2e-38) at 13.2; bounded, not even its product with a gradient of 1e-20 does.
#[test]
fn the_normal_density_is_never_too_small_for_a_normal_number() {
    let (mut graph, _, output) = graph(&entry(Unary::NormalPdf, &[&[61]], &[true]));
    graph.set_output("y", output);
    let values = Values::from([("x0".to_string(), Tensor::from_fn(&[61], |at| at[0] as f64 - 30.0))]);
    let value = |graph: &Graph| evaluate(graph, &values).unwrap()["y"].clone();
    let (exact, lowered) = (value(&graph), value(&lower(&graph).unwrap()));
    for (exact, lowered) in exact.values().iter().zip(lowered.values()) {
        assert!(*lowered > 1e-18 && (lowered - exact).abs() < 1e-17 + 1e-15 * exact, "{lowered} for {exact}");
    }
}

#[test]
fn the_table_has_every_operator_that_networks_use() {
    let tested: BTreeSet<&str> = table().iter().map(|e| e.operator.name()).collect();
    let leaves = BTreeSet::from(["Input", "Parameter", "Constant"]);
    for checkpoint in all().into_iter().chain(single()) {
        let roles = port::Graph::ALL.into_iter().filter(|role| role.is_of(&checkpoint.spec));
        let drawn: Vec<_> = roles.map(|role| draw(&checkpoint, role, Weights::Shared).unwrap()).collect();
        let lowered: Vec<_> = drawn.iter().map(|graph| lower(graph).unwrap()).collect();
        for graph in drawn.iter().chain(&lowered) {
            for (_, node) in graph.nodes() {
                let name = node.operator.name();
                assert!(tested.contains(name) || leaves.contains(name), "{name} is not in the table");
            }
        }
    }
}
