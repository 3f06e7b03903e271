//! Puts the operators of this module in place of tract's where they compute the same: convolutions of
//! images, and chains of element-wise operations on images with the sums over their planes.

use super::convolution::{Convolution, Kernel};
use super::pointwise::{Binary, Instruction, Output, Pointwise, Unary, Value};
use super::pool::Pool;
use super::strip::Plane;
use super::winograd::Winograd;
use std::collections::{HashMap, HashSet};
use tract_onnx::tract_core::internal::*;
use tract_onnx::tract_core::ops::array::MultiBroadcastTo;
use tract_onnx::tract_core::ops::binary::TypedBinOp;
use tract_onnx::tract_core::ops::cast::{Cast, cast};
use tract_onnx::tract_core::ops::cnn::{Conv, Deconv, KernelFormat, PaddingSpec, PoolSpec};
use tract_onnx::tract_core::ops::element_wise::ElementWiseOp;
use tract_onnx::tract_core::ops::math;
use tract_onnx::tract_core::ops::nn::{DataFormat, Reduce, Reducer, Sigmoid};

/// Strides that our convolutions are tested with; others are left to tract.
const STRIDES: [usize; 3] = [1, 2, 4];

/// Replaces convolutions. The model is as tract read it.
pub(super) fn convolutions(model: &mut TypedModel, pool: &Pool) -> TractResult<()> {
    Rewriter::default()
        .with_rule_for::<Conv>("convolution", |pool: &Pool, model, node, _, op| {
            if op.group != 1 || op.q_params.is_some() || op.kernel_fmt != KernelFormat::OIHW {
                return Ok(None);
            }
            replace(model, node, &op.pool_spec, |kernel, stride, input, size| {
                let fast = Winograd::new(kernel, stride, input, size, pool.clone());
                Some(match fast {
                    Some(fast) => Box::new(fast) as Box<dyn TypedOp>,
                    None => Box::new(Convolution::new(kernel, stride, input, size, pool.clone())),
                })
            })
        })
        .with_rule_for::<Deconv>("transpose", |pool: &Pool, model, node, _, op| {
            if op.group != 1 || op.kernel_format != KernelFormat::OIHW {
                return Ok(None);
            }
            replace(model, node, &op.pool_spec, |kernel, stride, input, size| {
                let grows = size == [input.height * stride, input.width * stride];
                let reaches = (0..2).all(|axis| kernel.before[axis] < kernel.shape[2 + axis]);
                (grows && reaches)
                    .then(|| Box::new(Convolution::transpose(kernel, stride, input, pool.clone())) as _)
            })
        })
        .rewrite(pool, model)?;
    // Images of float32 that only pass through float16 stay as they are: more exact, and two passes fewer.
    Rewriter::default()
        .with_rule_for::<Cast>("detour", |(), model, node, _, op| {
            let producer = model.node(node.inputs[0].node);
            let Some(narrow) = producer.op_as::<Cast>() else { return Ok(None) };
            let source = producer.inputs[0];
            let detour = op.to == f32::datum_type()
                && narrow.to == f16::datum_type()
                && model.outlet_fact(source)?.datum_type == f32::datum_type();
            if !detour {
                return Ok(None);
            }
            let mut patch = TypedModelPatch::default();
            let source = patch.tap_model(model, source)?;
            patch.shunt_outside(model, node.id.into(), source)?;
            Ok(Some(patch))
        })
        .rewrite(&(), model)
}

fn replace(
    model: &TypedModel,
    node: &TypedNode,
    spec: &PoolSpec,
    make: impl Fn(&Kernel, usize, Plane, [usize; 2]) -> Option<Box<dyn TypedOp>>,
) -> TractResult<Option<TypedModelPatch>> {
    let facts = model.node_input_facts(node.id)?;
    let given = facts[0].datum_type;
    let of = |fact| image_shape_in(fact, given);
    let (Some(input), Some(output)) = (of(facts[0]), of(&node.outputs[0].fact)) else {
        return Ok(None);
    };
    let (Some(kernel), Some(bias)) = (&facts[1].konst, &facts[2].konst) else { return Ok(None) };
    let strides = spec.strides();
    let PaddingSpec::Explicit(before, _) = &spec.padding else { return Ok(None) };
    let (&[o, i, h, w], &[stride, other]) = (kernel.shape(), &*strides) else { return Ok(None) };
    let plain = spec.data_format == DataFormat::NCHW
        && spec.dilations().iter().all(|d| *d == 1)
        && stride == other
        && STRIDES.contains(&stride)
        && i == input[1]
        && [f32::datum_type(), f16::datum_type()].contains(&given)
        && (bias.len() == 1 || bias.len() == o);
    if !plain {
        return Ok(None);
    }
    let (kernel, bias) = (kernel.cast_to::<f32>()?, bias.cast_to::<f32>()?);
    let values = kernel.try_as_plain_ram()?;
    let bias = bias.try_as_plain_ram()?;
    let kernel = Kernel {
        shape: [o, i, h, w],
        values: values.as_slice()?,
        before: [before[0], before[1]],
        bias: bias.as_slice()?,
    };
    let plane = Plane { channels: i, height: input[2], width: input[3] };
    let Some(op) = make(&kernel, stride, plane, [output[2], output[3]]) else { return Ok(None) };
    if given == f32::datum_type() {
        return TypedModelPatch::replace_single_op(model, node, &node.inputs[..1], op).map(Some);
    }
    // In float32: tract has no fast convolution in float16.
    let mut patch = TypedModelPatch::default();
    let input = patch.tap_model(model, node.inputs[0])?;
    let wide = patch.wire_node(format!("{}.wide", node.name), cast(f32::datum_type()), &[input])?;
    let product = patch.wire_node(&node.name, op, &wide)?;
    let narrow = patch.wire_node(format!("{}.narrow", node.name), cast(given), &product)?;
    patch.shunt_outside(model, node.id.into(), narrow[0])?;
    Ok(Some(patch))
}

/// `[N,C,H,W]` of images in float32.
fn image_shape(fact: &TypedFact) -> Option<[usize; 4]> {
    image_shape_in(fact, f32::datum_type())
}

/// `[N,C,H,W]` of images of an element type.
fn image_shape_in(fact: &TypedFact, datum_type: DatumType) -> Option<[usize; 4]> {
    (fact.datum_type == datum_type).then_some(())?;
    fact.shape.as_concrete()?.try_into().ok()
}

/// As [`image_shape`], for planes of more than one pixel.
fn wide_shape(model: &TypedModel, outlet: OutletId) -> Option<[usize; 4]> {
    image_shape(model.outlet_fact(outlet).ok()?).filter(|[_, _, h, w]| h * w > 1)
}

/// What a node does to each element.
#[derive(Clone, Copy)]
enum Function {
    Unary(Unary),
    Binary(Binary),
}

/// The node's function, if it is element-wise on images of its result's shape and on values that are
/// constant over a plane.
fn function(model: &TypedModel, node: &TypedNode) -> Option<Function> {
    let shape = wide_shape(model, node.id.into())?;
    let function = if let Some(op) = node.op_as::<TypedBinOp>() {
        (op.1.is_none()).then_some(())?;
        Function::Binary(if op.0.is::<math::Add>() {
            Binary::Add
        } else if op.0.is::<math::Sub>() {
            Binary::Subtract
        } else if op.0.is::<math::Mul>() {
            Binary::Multiply
        } else if op.0.is::<math::Div>() {
            Binary::Divide
        } else if op.0.is::<math::Max>() {
            Binary::Maximum
        } else {
            return None;
        })
    } else if let Some(op) = node.op_as::<ElementWiseOp>() {
        (op.1.is_none()).then_some(())?;
        Function::Unary(if op.0.is::<math::Erf>() {
            Unary::Erf
        } else if op.0.is::<math::Exp>() {
            Unary::Exp
        } else if op.0.is::<Sigmoid>() {
            Unary::Sigmoid
        } else if op.0.is::<math::Sqrt>() {
            Unary::Sqrt
        } else if op.0.is::<math::Rsqrt>() {
            Unary::Rsqrt
        } else if op.0.is::<math::Recip>() {
            Unary::Reciprocal
        } else if op.0.is::<math::Square>() {
            Unary::Square
        } else if op.0.is::<math::Neg>() {
            Unary::Negative
        } else {
            return None;
        })
    } else if node.op_is::<MultiBroadcastTo>() {
        Function::Unary(Unary::Copy)
    } else {
        return None;
    };
    let suits = |outlet: &OutletId| {
        let fact = model.outlet_fact(*outlet).ok()?;
        let given = image_shape(fact)?;
        let plane = given[2..] == [1, 1] && (0..2).all(|axis| given[axis] == 1 || given[axis] == shape[axis]);
        Some(given == shape || plane)
    };
    node.inputs.iter().all(|input| suits(input) == Some(true)).then_some(function)
}

/// A sum over planes, if the node is one.
fn sum(model: &TypedModel, node: &TypedNode) -> Option<fn(Value) -> Output> {
    let op = node.op_as::<Reduce>()?;
    wide_shape(model, node.inputs[0])?;
    match (&*op.axes, op.reducer) {
        ([2, 3], Reducer::Sum) => Some(Output::Sum),
        ([2, 3], Reducer::MeanOfSquares) => Some(Output::MeanOfSquares),
        _ => None,
    }
}

/// Images that a chain may read: more would make it wait for memory in too many places.
const MOST_IMAGES: usize = 6;
/// Longest run of successive operations in a chain: a graph of ours has a dozen, and one that is not ours
/// must not exhaust the stack.
const LONGEST: usize = 64;

/// The part of a model that [`Pointwise`] operators compute: nodes whose result is kept, in groups that
/// are computed together.
struct Fusion<'a> {
    model: &'a TypedModel,
    functions: HashMap<usize, Function>,
    /// Element-wise nodes whose result is written to memory.
    kept: HashSet<usize>,
    groups: Vec<Vec<usize>>,
    group_of: HashMap<usize, usize>,
}

/// Fuses chains of element-wise operations. The model is decluttered and its shapes are concrete.
pub(super) fn chains(model: &TypedModel, pool: &Pool) -> TractResult<TypedModel> {
    let order = model.eval_order()?;
    let functions: HashMap<usize, Function> =
        order.iter().filter_map(|&id| Some((id, function(model, model.node(id))?))).collect();
    let mut fusion =
        Fusion { model, functions, kept: HashSet::new(), groups: Vec::new(), group_of: HashMap::new() };
    fusion.keep(&order)?;
    fusion.group(&order);
    Rebuild { fusion: &fusion, pool, new: TypedModel::default(), made: HashMap::new() }.model()
}

impl Fusion<'_> {
    /// Decides what is written to memory: what nodes outside chains need, and what several nodes need if
    /// computing it again takes more than one image.
    fn keep(&mut self, order: &[usize]) -> TractResult<()> {
        let outputs = self.model.output_outlets()?.to_vec();
        let mut images: HashMap<usize, HashSet<OutletId>> = HashMap::new();
        let mut lengths: HashMap<usize, usize> = HashMap::new();
        for &id in order {
            if !self.functions.contains_key(&id) {
                continue;
            }
            let node = self.model.node(id);
            let mut read = HashSet::new();
            for input in node.inputs.iter().filter(|input| wide_shape(self.model, **input).is_some()) {
                match images.get(&input.node) {
                    Some(images) if !self.kept.contains(&input.node) => read.extend(images),
                    _ => _ = read.insert(*input),
                }
            }
            let before = node.inputs.iter().filter(|input| !self.kept.contains(&input.node));
            let length = 1 + before.filter_map(|input| lengths.get(&input.node)).max().unwrap_or(&0);
            let successors = &node.outputs[0].successors;
            let consumer = |id: usize| {
                self.functions.contains_key(&id) || sum(self.model, self.model.node(id)).is_some()
            };
            let needed = outputs.contains(&id.into()) || successors.iter().any(|s| !consumer(s.node));
            let shared = successors.len() > 1 && read.len() > 1;
            if needed || shared || read.len() > MOST_IMAGES || length >= LONGEST {
                self.kept.insert(id);
            }
            images.insert(id, read);
            lengths.insert(id, length);
        }
        Ok(())
    }

    /// Inputs of a node that is computed by a chain: images and values of planes that are in memory.
    fn inputs(&self, id: usize) -> Vec<OutletId> {
        let mut found = Vec::new();
        let mut seen = HashSet::new();
        let mut stack: Vec<OutletId> = self.model.node(id).inputs.iter().rev().copied().collect();
        while let Some(outlet) = stack.pop() {
            if !seen.insert(outlet) {
                continue;
            }
            if self.functions.contains_key(&outlet.node) && !self.kept.contains(&outlet.node) {
                stack.extend(self.model.node(outlet.node).inputs.iter().rev());
            } else {
                found.push(outlet);
            }
        }
        found
    }

    fn shape(&self, id: usize) -> Option<[usize; 4]> {
        let node = self.model.node(id);
        wide_shape(self.model, if self.functions.contains_key(&id) { id.into() } else { node.inputs[0] })
    }

    /// Groups nodes that read the same images, unless one needs what follows from another.
    fn group(&mut self, order: &[usize]) {
        for &id in order {
            if !self.kept.contains(&id) && sum(self.model, self.model.node(id)).is_none() {
                continue;
            }
            let inputs = self.inputs(id);
            let shape = self.shape(id);
            let images: Vec<OutletId> =
                inputs.iter().copied().filter(|i| wide_shape(self.model, *i).is_some()).collect();
            let fits = |group: &Vec<usize>| {
                let theirs: HashSet<OutletId> = group.iter().flat_map(|&m| self.inputs(m)).collect();
                let shares = images.iter().any(|i| theirs.contains(i) || group.contains(&i.node));
                let together = images.iter().filter(|i| !theirs.contains(i)).count()
                    + theirs.iter().filter(|i| wide_shape(self.model, **i).is_some()).count();
                self.shape(group[0]) == shape
                    && shares
                    && together <= MOST_IMAGES
                    && inputs.iter().all(|i| {
                        // An image of the group is at hand piece by piece; a sum only when all is done.
                        let image = wide_shape(self.model, *i).is_some();
                        (image && group.contains(&i.node)) || !self.follows(i.node, group)
                    })
            };
            let found = self.groups.iter().rposition(fits);
            let group = found.unwrap_or(self.groups.len());
            if found.is_none() {
                self.groups.push(Vec::new());
            }
            self.groups[group].push(id);
            self.group_of.insert(id, group);
        }
    }

    /// Whether a node needs, directly or not, what the group computes.
    fn follows(&self, id: usize, group: &[usize]) -> bool {
        let mut seen = HashSet::new();
        let mut stack = vec![id];
        while let Some(id) = stack.pop() {
            if group.contains(&id) {
                return true;
            }
            if !seen.insert(id) {
                continue;
            }
            stack.extend(self.model.node(id).inputs.iter().map(|i| i.node));
            // A whole group is computed at once, when its last input is there.
            if let Some(&other) = self.group_of.get(&id) {
                stack.extend(&self.groups[other]);
            }
        }
        false
    }
}

/// The model with groups in place of what they compute.
struct Rebuild<'a> {
    fusion: &'a Fusion<'a>,
    pool: &'a Pool,
    new: TypedModel,
    made: HashMap<OutletId, OutletId>,
}

impl Rebuild<'_> {
    fn model(mut self) -> TractResult<TypedModel> {
        let model = self.fusion.model;
        for &input in model.input_outlets()? {
            let node = model.node(input.node);
            let made = self.new.add_source(&*node.name, node.outputs[input.slot].fact.clone())?;
            self.made.insert(input, made);
        }
        for id in model.eval_order()? {
            let folded = self.fusion.functions.contains_key(&id) && !self.fusion.kept.contains(&id);
            if !folded {
                self.make(id)?;
            }
        }
        let outputs =
            model.output_outlets()?.iter().map(|o| self.get(*o)).collect::<TractResult<Vec<_>>>()?;
        self.new.select_output_outlets(&outputs)?;
        Ok(self.new)
    }

    fn get(&self, outlet: OutletId) -> TractResult<OutletId> {
        self.made.get(&outlet).copied().context("a node that makes nothing")
    }

    /// Makes a node or its group, after what it needs: a group is made with its first member, but the inputs of its
    /// last one may be any number of nodes away.
    fn make(&mut self, id: usize) -> TractResult<()> {
        let mut stack = vec![id];
        while let Some(&id) = stack.last() {
            if self.made.contains_key(&id.into()) {
                stack.pop();
                continue;
            }
            let group = self.fusion.group_of.get(&id).copied();
            let inputs = match group {
                Some(group) => self.inputs_of_group(group),
                None => self.fusion.model.node(id).inputs.to_vec(),
            };
            let missing: Vec<usize> =
                inputs.iter().filter(|i| !self.made.contains_key(i)).map(|i| i.node).collect();
            ensure!(
                missing.iter().all(|&id| !self.made.contains_key(&id.into())),
                "a node lacks one of its outputs"
            );
            if !missing.is_empty() {
                stack.extend(missing);
                continue;
            }
            match group {
                Some(group) => self.make_group(group, &inputs)?,
                None => self.make_node(id)?,
            }
            stack.pop();
        }
        Ok(())
    }

    fn make_node(&mut self, id: usize) -> TractResult<()> {
        let node = self.fusion.model.node(id);
        let inputs = node.inputs.iter().map(|i| self.get(*i)).collect::<TractResult<Vec<_>>>()?;
        let outputs = self.new.wire_node(&*node.name, node.op.clone(), &inputs)?;
        self.made.extend(outputs.into_iter().enumerate().map(|(slot, o)| (OutletId::new(id, slot), o)));
        Ok(())
    }

    /// What a group reads from memory, images first.
    fn inputs_of_group(&self, group: usize) -> Vec<OutletId> {
        let members = &self.fusion.groups[group];
        let mut inputs: Vec<OutletId> = Vec::new();
        for &member in members {
            for input in self.fusion.inputs(member) {
                if !inputs.contains(&input) && !members.contains(&input.node) {
                    inputs.push(input);
                }
            }
        }
        inputs.sort_by_key(|i| wide_shape(self.fusion.model, *i).is_none());
        inputs
    }

    fn make_group(&mut self, group: usize, inputs: &[OutletId]) -> TractResult<()> {
        let fusion = self.fusion;
        let members = &fusion.groups[group];
        let images = inputs.iter().filter(|i| wide_shape(fusion.model, **i).is_some()).count();
        let mut program = Program { fusion, inputs, images, known: HashMap::new(), instructions: Vec::new() };
        let mut outputs = Vec::new();
        for &member in members {
            let node = fusion.model.node(member);
            outputs.push(match sum(fusion.model, node) {
                Some(output) => output(program.value(node.inputs[0])?),
                None => Output::Image(program.value(member.into())?),
            });
        }
        let instructions = program.instructions;
        let shape = fusion.shape(members[0]).context("a chain on no images")?;
        let op = Pointwise::new(shape, images, instructions, outputs, self.pool.clone());
        let wires = inputs.iter().map(|i| self.get(*i)).collect::<TractResult<Vec<_>>>()?;
        let name = format!("{}.chain", fusion.model.node(members[0]).name);
        let made = self.new.wire_node(name, op, &wires)?;
        self.made.extend(members.iter().zip(made).map(|(member, made)| ((*member).into(), made)));
        Ok(())
    }
}

/// The instructions of a group, as they are collected.
struct Program<'a> {
    fusion: &'a Fusion<'a>,
    inputs: &'a [OutletId],
    images: usize,
    known: HashMap<OutletId, Value>,
    instructions: Vec<Instruction>,
}

impl Program<'_> {
    fn value(&mut self, outlet: OutletId) -> TractResult<Value> {
        if let Some(i) = self.inputs.iter().position(|input| *input == outlet) {
            return Ok(if i < self.images { Value::Image(i) } else { Value::Plane(i - self.images) });
        }
        if let Some(known) = self.known.get(&outlet) {
            return Ok(*known);
        }
        let node = self.fusion.model.node(outlet.node);
        let operands = node.inputs.iter().map(|i| self.value(*i)).collect::<TractResult<Vec<_>>>()?;
        let instruction = match (self.fusion.functions.get(&outlet.node), &*operands) {
            (Some(Function::Unary(f)), [a]) => Instruction::Unary(*f, *a),
            (Some(Function::Binary(f)), [a, b]) => Instruction::Binary(*f, *a, *b),
            _ => bail!("{} is not element-wise", node.name),
        };
        self.instructions.push(instruction);
        let value = Value::Result(self.instructions.len() - 1);
        self.known.insert(outlet, value);
        Ok(value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tract_onnx::tract_core::ops::math::{
        add, div, erf, exp, max, mul, neg, recip, rsqrt, sqrt, square, sub,
    };
    use tract_onnx::tract_core::ops::nn::sigmoid;

    /// What a model makes of an image of this shape.
    fn computed(model: TypedModel, shape: &[usize]) -> TValue {
        // Above 0, so that roots exist.
        let image = (0..shape.iter().product()).map(|i: usize| 1.2 + (i as f32 * 0.7).sin());
        let image: Vec<f32> = image.collect();
        let input = Tensor::from_shape(shape, &image).unwrap().into_tvalue();
        model.into_runnable().unwrap().run(tvec![input]).unwrap().remove(0)
    }

    /// Compares `layers`, fused and run on an image, with tract's own operators.
    fn agrees(layers: impl Fn(&mut TypedModel, OutletId) -> TractResult<OutletId>) {
        // More pixels than a piece holds.
        let shape = [2, 3, 23, 29];
        let mut model = TypedModel::default();
        let x = model.add_source("x", f32::fact(shape)).unwrap();
        let y = layers(&mut model, x).unwrap();
        model.select_output_outlets(&[y]).unwrap();
        let fused = chains(&model, &Pool::default()).unwrap();
        assert!(fused.nodes().iter().any(|node| node.op.name() == "Pointwise"));
        let (found, expected) = (computed(fused, &shape), computed(model, &shape));
        // Two ways of computing erf in float32.
        found.close_enough(&expected, Approximation::Approximate).unwrap();
    }

    #[test]
    fn every_function_of_elements_is_computed() {
        for op in [erf(), exp(), sigmoid(), sqrt(), rsqrt(), recip(), square(), neg()] {
            agrees(|model, x| Ok(model.wire_node("y", op.clone(), &[x])?[0]));
        }
        for op in [add, sub, mul, div, max] {
            for (image_first, other) in
                [true, false].iter().flat_map(|first| (0..4).map(move |other| (first, other)))
            {
                agrees(|model, x| {
                    let other = match other {
                        0 => model.wire_node("root", sqrt(), &[x])?[0],
                        other => {
                            let shape = [[1, 3, 1, 1], [2, 1, 1, 1], [2, 3, 1, 1]][other - 1];
                            let values = &[0.5f32, 1.5, -0.7, 2.5, -3.0, 0.9][..shape.iter().product()];
                            model.add_const("plane", Tensor::from_shape(&shape, values)?)?
                        }
                    };
                    let operands = if *image_first { [x, other] } else { [other, x] };
                    Ok(model.wire_node("y", op(), &operands)?[0])
                });
            }
        }
        for reducer in [Reducer::Sum, Reducer::MeanOfSquares] {
            agrees(|model, x| {
                let sum = model.wire_node("sum", Reduce { axes: tvec![2, 3], reducer }, &[x])?[0];
                Ok(model.wire_node("y", sub(), &[x, sum])?[0])
            });
        }
    }

    /// What overflowed must not pass for black.
    #[test]
    fn what_is_no_number_stays_so() {
        let shape = [1, 1, 2, 2];
        let mut model = TypedModel::default();
        let x = model.add_source("x", f32::fact(shape)).unwrap();
        let zero = model.add_const("zero", Tensor::zero::<f32>(&[1, 1, 1, 1]).unwrap()).unwrap();
        let a = model.wire_node("a", max(), &[x, zero]).unwrap()[0];
        let b = model.wire_node("b", max(), &[zero, x]).unwrap()[0];
        let y = model.wire_node("y", add(), &[a, b]).unwrap();
        model.select_output_outlets(&y).unwrap();
        let input = Tensor::from_shape(&shape, &[f32::NAN, -1.0, 2.0, f32::NAN]).unwrap();
        let fused = chains(&model, &Pool::default()).unwrap().into_runnable().unwrap();
        let found = fused.run(tvec![input.into_tvalue()]).unwrap().remove(0);
        let found = found.to_plain_array_view::<f32>().unwrap().iter().copied().collect::<Vec<f32>>();
        assert!(found[0].is_nan() && found[3].is_nan() && found[1..3] == [0.0, 4.0], "{found:?}");
    }

    /// 3×3, from three channels to four.
    fn convolution(stride: usize) -> Conv {
        shaped([3, 3], [1, 1], [1, 1], stride)
    }

    /// From three channels to four.
    fn shaped(kernel: [usize; 2], before: [usize; 2], after: [usize; 2], stride: usize) -> Conv {
        let pool_spec = PoolSpec {
            data_format: DataFormat::NCHW,
            kernel_shape: TVec::from_slice(&kernel),
            padding: PaddingSpec::Explicit(TVec::from_slice(&before), TVec::from_slice(&after)),
            dilations: None,
            strides: (stride > 1).then(|| tvec![stride, stride]),
            input_channels: 3,
            output_channels: 4,
        };
        Conv { pool_spec, kernel_fmt: KernelFormat::OIHW, group: 1, q_params: None }
    }

    #[test]
    fn convolutions_of_other_strides_are_left_to_tract() {
        let shape = [1, 3, 12, 24];
        for stride in 1..=5 {
            let mut model = TypedModel::default();
            let x = model.add_source("x", f32::fact(shape)).unwrap();
            let kernel: Vec<f32> = (0..4 * 3 * 9).map(|i| (i as f32 * 0.3).sin()).collect();
            let kernel = Tensor::from_shape(&[4, 3, 3, 3], &kernel).unwrap();
            let kernel = model.add_const("kernel", kernel).unwrap();
            let bias = model.add_const("bias", Tensor::zero_scalar::<f32>().unwrap()).unwrap();
            let y = model.wire_node("conv", convolution(stride), &[x, kernel, bias]).unwrap();
            model.select_output_outlets(&y).unwrap();
            let mut fused = model.clone();
            convolutions(&mut fused, &Pool::default()).unwrap();
            let ours = fused.nodes().iter().any(|node| node.op.name() == "Convolution");
            assert_eq!(ours, [1, 2, 4].contains(&stride), "{stride}");
            let (found, expected) = (computed(fused, &shape), computed(model, &shape));
            found.close_enough(&expected, Approximation::Close).unwrap();
        }
    }

    /// Ours are square, and padded alike on all sides.
    #[test]
    fn convolutions_that_are_not_like_ours_are_computed_too() {
        let shape = [2, 3, 7, 9];
        for (kernel, before, after) in [
            ([1, 3], [0, 1], [0, 1]),
            ([3, 1], [1, 0], [1, 0]),
            ([3, 5], [1, 0], [0, 2]),
            ([2, 2], [0, 0], [0, 0]),
            ([2, 3], [1, 2], [0, 1]),
            ([3, 3], [0, 1], [2, 1]),
        ] {
            for stride in [1, 2] {
                let mut model = TypedModel::default();
                let x = model.add_source("x", f32::fact(shape)).unwrap();
                let count = 4 * 3 * kernel[0] * kernel[1];
                let values: Vec<f32> = (0..count).map(|i| (i as f32 * 0.3).sin()).collect();
                let values = Tensor::from_shape(&[4, 3, kernel[0], kernel[1]], &values).unwrap();
                let values = model.add_const("kernel", values).unwrap();
                let bias = model.add_const("bias", Tensor::zero_scalar::<f32>().unwrap()).unwrap();
                let op = shaped(kernel, before, after, stride);
                let y = model.wire_node("conv", op, &[x, values, bias]).unwrap();
                model.select_output_outlets(&y).unwrap();
                let mut fused = model.clone();
                convolutions(&mut fused, &Pool::default()).unwrap();
                let (found, expected) = (computed(fused, &shape), computed(model, &shape));
                let close = found.close_enough(&expected, Approximation::Close);
                assert!(close.is_ok(), "{kernel:?} {before:?} {after:?} {stride}: {close:?}");
            }
        }
    }

    /// tract's own convolution in float16 takes a thousand times as long.
    #[test]
    fn convolutions_in_float16_become_ours() {
        let shape = [1, 3, 8, 10];
        let mut model = TypedModel::default();
        let x = model.add_source("x", f32::fact(shape)).unwrap();
        let x = model.wire_node("narrow", cast(f16::datum_type()), &[x]).unwrap();
        let kernel: Vec<f16> = (0..4 * 3 * 9).map(|i| f16::from_f32((i as f32 * 0.3).sin())).collect();
        let kernel = Tensor::from_shape(&[4, 3, 3, 3], &kernel).unwrap();
        let kernel = model.add_const("kernel", kernel).unwrap();
        let bias = model.add_const("bias", Tensor::zero_scalar::<f16>().unwrap()).unwrap();
        let y = model.wire_node("conv", convolution(1), &[x[0], kernel, bias]).unwrap();
        let y = model.wire_node("wide", cast(f32::datum_type()), &y).unwrap();
        model.select_output_outlets(&y).unwrap();
        let mut fused = model.clone();
        convolutions(&mut fused, &Pool::default()).unwrap();
        let fused = fused.into_decluttered().unwrap();
        let left: Vec<_> = fused.nodes().iter().map(|n| n.op.name().to_string()).collect();
        assert_eq!(left, ["Source", "Convolution"]);
        let (found, expected) = (computed(fused, &shape), computed(model, &shape));
        // Sums of 27 products that one of the two rounds to float16.
        found.close_enough(&expected, Approximation::SuperApproximate).unwrap();
    }

    /// What a graph that is not ours may hold: none of it may exhaust the stack or take for ever.
    #[test]
    fn long_and_bushy_chains_are_compiled_and_computed() {
        agrees(|model, x| {
            (0..20_000).try_fold(x, |x, i| Ok(model.wire_node(format!("s{i}"), sigmoid(), &[x])?[0]))
        });
        agrees(|model, x| {
            (0..48).try_fold(x, |x, i| {
                let e = model.wire_node(format!("e{i}"), erf(), &[x])?[0];
                Ok(model.wire_node(format!("m{i}"), mul(), &[e, x])?[0])
            })
        });
        // Two chains of one group, whose inputs are far apart.
        agrees(|model, x| {
            let kernel: Vec<f32> = (0..4 * 3 * 9).map(|i| (i as f32 * 0.3).sin()).collect();
            let kernel = model.add_const("kernel", Tensor::from_shape(&[4, 3, 3, 3], &kernel)?)?;
            let bias = model.add_const("bias", Tensor::zero_scalar::<f32>()?)?;
            let near = model.wire_node("near", sigmoid(), &[x])?[0];
            let near = model.wire_node("conv", convolution(1), &[near, kernel, bias])?[0];
            let far = model.add_const("far", Tensor::from_shape(&[1, 1, 1, 1], &[1f32])?)?;
            let far = (0..20_000).try_fold(far, |far, i| {
                TractResult::Ok(model.wire_node(format!("f{i}"), sigmoid(), &[far])?[0])
            })?;
            let far = model.wire_node("far image", mul(), &[x, far])?[0];
            let far = model.wire_node("far conv", convolution(1), &[far, kernel, bias])?[0];
            Ok(model.wire_node("y", add(), &[near, far])?[0])
        });
    }
}
