//! Chains of element-wise operations in one pass over memory, with the sums over planes that are taken on
//! the way.
//!
//! A program of instructions runs over a plane (one channel of one image) a piece at a time, so that
//! whatever it computes in between stays in the first-level cache.

use super::pool::Pool;
use pulp::{Arch, Simd, WithSimd};
use std::cell::RefCell;
use std::sync::Arc;
use tract_linalg::element_wise::ElementWise;
use tract_linalg::multithread::par_chunks_mut;
use tract_linalg::routines::Func;
use tract_onnx::tract_core::internal::*;

/// Elements in a piece.
const PIECE: usize = 512;

/// A function of one element.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Unary {
    Erf,
    Exp,
    Sigmoid,
    Sqrt,
    Rsqrt,
    Reciprocal,
    Square,
    Negative,
    /// The element itself, to spread a value over its plane.
    Copy,
}

/// A function of two.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Binary {
    Add,
    Subtract,
    Multiply,
    Divide,
    Maximum,
}

/// Where an operand is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Value {
    /// Among the images that are read.
    Image(usize),
    /// Among the values that a plane has, or all planes share.
    Plane(usize),
    /// The result of an instruction.
    Result(usize),
}

/// Its position identifies its result.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Instruction {
    Unary(Unary, Value),
    Binary(Binary, Value, Value),
}

impl Instruction {
    fn operands(self) -> impl Iterator<Item = Value> {
        match self {
            Instruction::Unary(_, a) => [Some(a), None],
            Instruction::Binary(_, a, b) => [Some(a), Some(b)],
        }
        .into_iter()
        .flatten()
    }
}

/// What is kept of a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Output {
    /// All of it, `[N,C,H,W]`.
    Image(Value),
    /// Its sum over each plane, `[N,C,1,1]`.
    Sum(Value),
    /// The mean over each plane of its square, `[N,C,1,1]`.
    MeanOfSquares(Value),
}

/// A program. The first inputs are images `[N,C,H,W]`, the others values `[N or 1,C or 1,1,1]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Pointwise {
    shape: [usize; 4],
    images: usize,
    instructions: Arc<Vec<Instruction>>,
    /// The buffer of each instruction's result: one that nothing reads any more is used again.
    buffers: Arc<Vec<usize>>,
    outputs: Arc<Vec<Output>>,
    pool: Pool,
}

impl Pointwise {
    pub(super) fn new(
        shape: [usize; 4],
        images: usize,
        instructions: Vec<Instruction>,
        outputs: Vec<Output>,
        pool: Pool,
    ) -> Pointwise {
        let mut last_use: Vec<usize> = (0..instructions.len()).collect();
        for (i, instruction) in instructions.iter().enumerate() {
            for operand in instruction.operands() {
                if let Value::Result(r) = operand {
                    last_use[r] = i;
                }
            }
        }
        for output in &outputs {
            if let Output::Image(Value::Result(r))
            | Output::Sum(Value::Result(r))
            | Output::MeanOfSquares(Value::Result(r)) = *output
            {
                last_use[r] = usize::MAX;
            }
        }
        let mut holders: Vec<usize> = Vec::new();
        let mut buffers = Vec::new();
        for i in 0..instructions.len() {
            // A result may not take the place of an operand of its own instruction.
            let free = holders.iter().position(|&holder| last_use[holder] < i);
            let buffer = free.unwrap_or(holders.len());
            match free {
                Some(buffer) => holders[buffer] = i,
                None => holders.push(i),
            }
            buffers.push(buffer);
        }
        Pointwise {
            shape,
            images,
            instructions: Arc::new(instructions),
            buffers: Arc::new(buffers),
            outputs: Arc::new(outputs),
            pool,
        }
    }
}

/// One channel of one image.
struct Plane<'a> {
    index: usize,
    images: TVec<&'a mut [f32]>,
    sums: TVec<&'a mut f32>,
}

/// tract's kernels for the functions that need more than arithmetic.
struct Functions {
    erf: Box<dyn ElementWise<f32>>,
    exp: Box<dyn ElementWise<f32>>,
    sigmoid: Box<dyn ElementWise<f32>>,
}

thread_local! {
    static BUFFERS: RefCell<Vec<Vec<f32>>> = const { RefCell::new(Vec::new()) };
}

/// A piece of an operand, or the one number that stands for all of it.
#[derive(Clone, Copy)]
enum Piece<'a> {
    Elements(&'a [f32]),
    Number(f32),
}

/// What all planes of a run share.
struct Run<'a> {
    program: &'a Pointwise,
    images: Vec<&'a [f32]>,
    /// Values of planes, each with its strides by image and by channel.
    values: Vec<(&'a [f32], [usize; 2])>,
    functions: Functions,
}

struct OnPlane<'a, 'b> {
    run: &'a Run<'a>,
    buffers: &'a mut Vec<Vec<f32>>,
    plane: &'a mut Plane<'b>,
}

impl Run<'_> {
    /// Elements `at..at + count` of a plane of an operand.
    #[inline(always)]
    fn piece<'a>(
        &'a self,
        value: Value,
        plane: usize,
        at: usize,
        count: usize,
        buffers: &'a [Vec<f32>],
    ) -> Piece<'a> {
        let [_, channels, height, width] = self.program.shape;
        match value {
            Value::Image(i) => Piece::Elements(&self.images[i][plane * height * width + at..][..count]),
            Value::Plane(i) => {
                let (values, [image, channel]) = self.values[i];
                Piece::Number(values[plane / channels * image + plane % channels * channel])
            }
            Value::Result(r) => Piece::Elements(&buffers[self.program.buffers[r]][..count]),
        }
    }
}

impl WithSimd for OnPlane<'_, '_> {
    type Output = TractResult<()>;

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) -> TractResult<()> {
        let OnPlane { run, buffers, plane } = self;
        let program = run.program;
        let size = program.shape[2] * program.shape[3];
        let index = plane.index;
        buffers.resize_with(program.buffers.len().max(buffers.len()), || vec![0.0; PIECE]);
        let mut sums: TVec<f64> = tvec![0.0; plane.sums.len()];
        for at in (0..size).step_by(PIECE) {
            let count = PIECE.min(size - at);
            for (instruction, &buffer) in program.instructions.iter().zip(program.buffers.iter()) {
                let mut result = std::mem::take(&mut buffers[buffer]);
                let target = &mut result[..count];
                let done = match *instruction {
                    Instruction::Unary(function, a) => {
                        unary(function, run.piece(a, index, at, count, buffers), target, &run.functions)
                    }
                    Instruction::Binary(function, a, b) => {
                        let a = run.piece(a, index, at, count, buffers);
                        let b = run.piece(b, index, at, count, buffers);
                        match function {
                            Binary::Add => binary(a, b, target, |a, b| a + b),
                            Binary::Subtract => binary(a, b, target, |a, b| a - b),
                            Binary::Multiply => binary(a, b, target, |a, b| a * b),
                            Binary::Divide => binary(a, b, target, |a, b| a / b),
                            // NaN stays NaN, which `f32::max` does not ensure.
                            Binary::Maximum => {
                                binary(a, b, target, |a, b| if a > b || a.is_nan() { a } else { b })
                            }
                        }
                        Ok(())
                    }
                };
                buffers[buffer] = result;
                done?;
            }
            let (mut kept, mut summed) = (0, 0);
            for output in program.outputs.iter() {
                match *output {
                    Output::Image(value) => {
                        let target = &mut plane.images[kept][at..at + count];
                        match run.piece(value, index, at, count, buffers) {
                            Piece::Elements(elements) => target.copy_from_slice(elements),
                            Piece::Number(number) => target.fill(number),
                        }
                        kept += 1;
                    }
                    Output::Sum(value) => {
                        sums[summed] += sum(run.piece(value, index, at, count, buffers), count, |x| x);
                        summed += 1;
                    }
                    Output::MeanOfSquares(value) => {
                        sums[summed] +=
                            sum(run.piece(value, index, at, count, buffers), count, |x| x * x) / size as f64;
                        summed += 1;
                    }
                }
            }
        }
        for (target, sum) in plane.sums.iter_mut().zip(sums) {
            **target = sum as f32;
        }
        Ok(())
    }
}

#[inline(always)]
fn unary(function: Unary, a: Piece, target: &mut [f32], functions: &Functions) -> TractResult<()> {
    match function {
        Unary::Sqrt => each(a, target, f32::sqrt),
        Unary::Rsqrt => each(a, target, |x| 1.0 / x.sqrt()),
        Unary::Reciprocal => each(a, target, |x| 1.0 / x),
        Unary::Square => each(a, target, |x| x * x),
        Unary::Negative => each(a, target, |x| -x),
        Unary::Copy => each(a, target, |x| x),
        Unary::Erf | Unary::Exp | Unary::Sigmoid => {
            each(a, target, |x| x);
            return match function {
                Unary::Erf => functions.erf.run(target),
                Unary::Exp => functions.exp.run(target),
                _ => functions.sigmoid.run(target),
            };
        }
    }
    Ok(())
}

#[inline(always)]
fn each(a: Piece, target: &mut [f32], f: impl Fn(f32) -> f32) {
    match a {
        Piece::Elements(a) => target.iter_mut().zip(a).for_each(|(t, a)| *t = f(*a)),
        Piece::Number(a) => target.fill(f(a)),
    }
}

#[inline(always)]
fn binary(a: Piece, b: Piece, target: &mut [f32], f: impl Fn(f32, f32) -> f32) {
    match (a, b) {
        (Piece::Elements(a), Piece::Elements(b)) => {
            target.iter_mut().zip(a).zip(b).for_each(|((t, a), b)| *t = f(*a, *b));
        }
        (Piece::Elements(a), Piece::Number(b)) => target.iter_mut().zip(a).for_each(|(t, a)| *t = f(*a, b)),
        (Piece::Number(a), Piece::Elements(b)) => target.iter_mut().zip(b).for_each(|(t, b)| *t = f(a, *b)),
        (Piece::Number(a), Piece::Number(b)) => target.fill(f(a, b)),
    }
}

/// In float32 within a piece, by many lanes, and in float64 from piece to piece.
#[inline(always)]
fn sum(a: Piece, count: usize, f: impl Fn(f32) -> f32) -> f64 {
    match a {
        Piece::Number(a) => f64::from(f(a)) * count as f64,
        Piece::Elements(a) => {
            let mut lanes = [0f32; 32];
            let (chunks, rest) = a.as_chunks::<32>();
            for chunk in chunks {
                lanes.iter_mut().zip(chunk).for_each(|(lane, a)| *lane += f(*a));
            }
            lanes.iter_mut().zip(rest).for_each(|(lane, a)| *lane += f(*a));
            lanes.iter().map(|lane| f64::from(*lane)).sum()
        }
    }
}

impl Op for Pointwise {
    fn name(&self) -> StaticName {
        "Pointwise".into()
    }

    op_as_typed_op!();
}

impl EvalOp for Pointwise {
    op_out_of_plan!();

    fn eval(&self, _: &EvalContext, inputs: TVec<TValue>) -> TractResult<TVec<TValue>> {
        let [batch, channels, height, width] = self.shape;
        let views = inputs.iter().map(|input| input.try_as_plain_ram()).collect::<TractResult<Vec<_>>>()?;
        let slices = views.iter().map(|view| view.as_slice::<f32>()).collect::<TractResult<Vec<_>>>()?;
        let values = slices[self.images..].iter().zip(&inputs[self.images..]).map(|(slice, input)| {
            let [images, channels] = [0, 1].map(|axis| input.shape()[axis]);
            (*slice, [if images == 1 { 0 } else { channels }, usize::from(channels > 1)])
        });
        let run = Run {
            program: self,
            images: slices[..self.images].to_vec(),
            values: values.collect(),
            functions: Functions {
                erf: Func::Erf.ew_f32()?,
                exp: Func::Exp.ew_f32()?,
                sigmoid: Func::Sigmoid.ew_f32()?,
            },
        };
        let sums = [batch, channels, 1, 1];
        let mut outputs = self
            .outputs
            .iter()
            .map(|output| match output {
                Output::Image(_) => self.pool.take(&self.shape),
                Output::Sum(_) | Output::MeanOfSquares(_) => self.pool.take(&sums),
            })
            .collect::<TractResult<Vec<Arc<Tensor>>>>()?;
        let targets =
            outputs.iter_mut().map(|o| Arc::get_mut(o).context("memory in use")?.try_as_plain_ram_mut());
        let mut targets = targets.collect::<TractResult<Vec<_>>>()?;
        let mut planes: Vec<Plane> =
            (0..batch * channels).map(|index| Plane { index, images: tvec!(), sums: tvec!() }).collect();
        for (target, output) in targets.iter_mut().zip(self.outputs.iter()) {
            let target = target.as_slice_mut::<f32>()?;
            match output {
                Output::Image(_) => planes
                    .iter_mut()
                    .zip(target.chunks_exact_mut(height * width))
                    .for_each(|(plane, target)| plane.images.push(target)),
                Output::Sum(_) | Output::MeanOfSquares(_) => {
                    planes.iter_mut().zip(target).for_each(|(plane, target)| plane.sums.push(target));
                }
            }
        }
        par_chunks_mut(&mut planes, 1, batch * channels * height * width, |_, planes| {
            BUFFERS.with_borrow_mut(|buffers| {
                planes
                    .iter_mut()
                    .try_for_each(|plane| Arch::new().dispatch(OnPlane { run: &run, buffers, plane }))
            })
        })?;
        drop(planes);
        drop(targets);
        Ok(outputs.into_iter().map(|output| self.pool.give(output)).collect())
    }
}

impl TypedOp for Pointwise {
    fn output_facts(&self, _: &[&TypedFact]) -> TractResult<TVec<TypedFact>> {
        let [batch, channels, ..] = self.shape;
        Ok(self
            .outputs
            .iter()
            .map(|output| match output {
                Output::Image(_) => f32::fact(self.shape),
                Output::Sum(_) | Output::MeanOfSquares(_) => f32::fact([batch, channels, 1, 1]),
            })
            .collect())
    }

    as_op!();
}
