//! Functions of one element, and of two.

use crate::error::Result;
use crate::ir::shape::broadcast;
use crate::ir::{Backward, Dim, Graph, NodeId, Operator, Shape, Tensor};
use crate::onnx::{Attribute, Emitter};
use std::f64::consts::{FRAC_1_SQRT_2, FRAC_2_SQRT_PI, PI};

/// Lower bound of ln φ(x): φ(x) stays at 4e-18 for |x| > 8.8, so that neither it nor its products with gradients above
/// 1e-20 are subnormal in float32, as the exact φ is from 13.2 on. Some processors are many times slower at subnormal
/// numbers; on one of Intel's they took two thirds of `photo`'s time. Φ(x) + xφ(x), the derivative of GELU, is off by
/// 4e-18·|x|; the 1 + erf in it is rounded to 6e-8 anyway.
const LEAST_LOG_DENSITY: f64 = -40.0;

/// A function of two tensors that broadcast.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Binary {
    /// a + b
    Add,
    /// a − b
    Sub,
    /// a · b
    Mul,
    /// The larger of the two. Lowering makes it; where they are equal, its gradient is 0.
    Max,
}

/// The larger of the two, or NaN if either is, as in NumPy, by which ONNX defines its operators.
pub fn larger(a: f64, b: f64) -> f64 {
    if a > b || a.is_nan() { a } else { b }
}

impl Binary {
    /// All of them.
    pub const ALL: [Binary; 4] = [Binary::Add, Binary::Sub, Binary::Mul, Binary::Max];
}

impl Operator for Binary {
    fn name(&self) -> &'static str {
        match self {
            Binary::Add => "Add",
            Binary::Sub => "Sub",
            Binary::Mul => "Mul",
            Binary::Max => "Max",
        }
    }

    fn shape(&self, inputs: &[&[Dim]]) -> std::result::Result<Shape, String> {
        match inputs {
            [a, b] => broadcast(a, b),
            _ => Err(format!("{} inputs, and it takes 2", inputs.len())),
        }
    }

    fn evaluate(&self, inputs: &[&Tensor]) -> Tensor {
        let f: fn(f64, f64) -> f64 = match self {
            Binary::Add => |a, b| a + b,
            Binary::Sub => |a, b| a - b,
            Binary::Mul => |a, b| a * b,
            Binary::Max => larger,
        };
        inputs[0].zip(inputs[1], f)
    }

    fn vjp(&self, b: &mut Backward) -> Result<Vec<Option<NodeId>>> {
        let (x, y, g) = (b.inputs[0], b.inputs[1], b.gradient);
        let mut gradients = vec![None, None];
        for i in (0..2).filter(|&i| b.wanted[i]).collect::<Vec<_>>() {
            let gradient = match (self, i) {
                (Binary::Add, _) | (Binary::Sub, 0) => g,
                (Binary::Sub, _) => b.graph.scaled(g, -1.0)?,
                (Binary::Mul, 0) => b.graph.mul(g, y)?,
                (Binary::Mul, _) => b.graph.mul(g, x)?,
                (Binary::Max, _) => {
                    let (this, other) = if i == 0 { (x, y) } else { (y, x) };
                    let lead = b.graph.sub(this, other)?;
                    let larger = b.graph.add(Unary::Step, &[lead])?;
                    b.graph.mul(g, larger)?
                }
            };
            gradients[i] = Some(b.unstretched(gradient, i)?);
        }
        Ok(gradients)
    }

    fn emit(&self, emitter: &mut Emitter, inputs: &[String], output: &str) {
        emitter.node(self.name(), inputs, output, &[]);
    }
}

/// A function of one tensor, element by element.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unary {
    /// eˣ
    Exp,
    /// √x
    Sqrt,
    /// 1/x
    Reciprocal,
    /// x²
    Square,
    /// The error function 2/√π ∫₀ˣ e^{−t²} dt.
    Erf,
    /// 1/(1 + e^{−x})
    Sigmoid,
    /// max(x, 0)
    Relu,
    /// 1 where x > 0, else 0: the derivative of [`Unary::Relu`].
    Step,
    /// Φ(x), the normal distribution function.
    NormalCdf,
    /// φ(x), the normal density.
    NormalPdf,
    /// x·Φ(x) (Hendrycks & Gimpel 2016).
    Gelu,
    /// x·sigmoid(x).
    Silu,
}

impl Unary {
    /// All of them.
    pub const ALL: [Unary; 12] = [
        Unary::Exp,
        Unary::Sqrt,
        Unary::Reciprocal,
        Unary::Square,
        Unary::Erf,
        Unary::Sigmoid,
        Unary::Relu,
        Unary::Step,
        Unary::NormalCdf,
        Unary::NormalPdf,
        Unary::Gelu,
        Unary::Silu,
    ];

    fn value(self, x: f64) -> f64 {
        match self {
            Unary::Exp => x.exp(),
            Unary::Sqrt => x.sqrt(),
            Unary::Reciprocal => 1.0 / x,
            Unary::Square => x * x,
            Unary::Erf => libm::erf(x),
            Unary::Sigmoid => 1.0 / (1.0 + (-x).exp()),
            Unary::Relu => larger(x, 0.0),
            Unary::Step => f64::from(u8::from(x > 0.0)),
            Unary::NormalCdf => 0.5 * libm::erfc(-x * FRAC_1_SQRT_2),
            Unary::NormalPdf => (-0.5 * x * x).exp() / (2.0 * PI).sqrt(),
            Unary::Gelu => x * Unary::NormalCdf.value(x),
            Unary::Silu => x * Unary::Sigmoid.value(x),
        }
    }

    /// The derivative at `x`, where the function is `y`; `None` where it is zero almost everywhere.
    fn derivative(self, g: &mut Graph, x: NodeId, y: NodeId) -> Result<Option<NodeId>> {
        Ok(Some(match self {
            Unary::Exp => y,
            Unary::Sqrt => {
                let inverse = g.add(Unary::Reciprocal, &[y])?;
                g.scaled(inverse, 0.5)?
            }
            Unary::Reciprocal => {
                let square = g.add(Unary::Square, &[y])?;
                g.scaled(square, -1.0)?
            }
            Unary::Square => g.scaled(x, 2.0)?,
            Unary::Erf => {
                let square = g.add(Unary::Square, &[x])?;
                let negative = g.scaled(square, -1.0)?;
                let bell = g.add(Unary::Exp, &[negative])?;
                g.scaled(bell, FRAC_2_SQRT_PI)?
            }
            Unary::Sigmoid => {
                let square = g.add(Unary::Square, &[y])?;
                g.sub(y, square)?
            }
            Unary::Relu => g.add(Unary::Step, &[x])?,
            Unary::Step => return Ok(None),
            Unary::NormalCdf => g.add(Unary::NormalPdf, &[x])?,
            Unary::NormalPdf => {
                let product = g.mul(x, y)?;
                g.scaled(product, -1.0)?
            }
            Unary::Gelu => {
                // Φ + xφ
                let cdf = g.add(Unary::NormalCdf, &[x])?;
                let pdf = g.add(Unary::NormalPdf, &[x])?;
                let product = g.mul(x, pdf)?;
                g.sum(cdf, product)?
            }
            Unary::Silu => {
                // s + xs(1 − s) = s + y − ys
                let s = g.add(Unary::Sigmoid, &[x])?;
                let sum = g.sum(s, y)?;
                let product = g.mul(y, s)?;
                g.sub(sum, product)?
            }
        }))
    }
}

impl Operator for Unary {
    fn name(&self) -> &'static str {
        match self {
            Unary::Exp => "Exp",
            Unary::Sqrt => "Sqrt",
            Unary::Reciprocal => "Reciprocal",
            Unary::Square => "Square",
            Unary::Erf => "Erf",
            Unary::Sigmoid => "Sigmoid",
            Unary::Relu => "Relu",
            Unary::Step => "Step",
            Unary::NormalCdf => "NormalCdf",
            Unary::NormalPdf => "NormalPdf",
            Unary::Gelu => "Gelu",
            Unary::Silu => "Silu",
        }
    }

    fn shape(&self, inputs: &[&[Dim]]) -> std::result::Result<Shape, String> {
        match inputs {
            [x] => Ok(x.to_vec()),
            _ => Err(format!("{} inputs, and it takes 1", inputs.len())),
        }
    }

    fn evaluate(&self, inputs: &[&Tensor]) -> Tensor {
        inputs[0].map(|x| self.value(x))
    }

    fn vjp(&self, b: &mut Backward) -> Result<Vec<Option<NodeId>>> {
        let Some(derivative) = self.derivative(b.graph, b.inputs[0], b.output)? else {
            return Ok(vec![None]);
        };
        Ok(vec![Some(b.graph.mul(b.gradient, derivative)?)])
    }

    fn is_differentiable(&self) -> bool {
        *self != Unary::Step
    }

    fn emit(&self, emitter: &mut Emitter, inputs: &[String], output: &str) {
        match self {
            Unary::Square => emitter.node("Mul", &[inputs[0].clone(), inputs[0].clone()], output, &[]),
            Unary::Step => {
                let zero = emitter.scalar(0.0);
                let positive = emitter.temporary(output, "positive");
                emitter.node("Greater", &[inputs[0].clone(), zero], &positive, &[]);
                emitter.node("Cast", &[positive], output, &[("to", Attribute::FLOAT)]);
            }
            // The rest are ONNX operators, or gone after lowering.
            _ => emitter.node(self.name(), inputs, output, &[]),
        }
    }

    fn expand(&self, g: &mut Graph, inputs: &[NodeId]) -> Result<Option<NodeId>> {
        let x = inputs[0];
        Ok(Some(match self {
            Unary::NormalCdf => {
                let root = g.scaled(x, FRAC_1_SQRT_2)?;
                let erf = g.add(Unary::Erf, &[root])?;
                let half = g.scaled(erf, 0.5)?;
                g.shifted(half, 0.5)?
            }
            Unary::NormalPdf => {
                // e^(−x²/2 − ln √2π): the factor costs no pass of its own.
                let root = g.scaled(x, FRAC_1_SQRT_2)?;
                let square = g.add(Unary::Square, &[root])?;
                let logarithm = g.scalar(-0.5 * (2.0 * PI).ln())?;
                let exponent = g.sub(logarithm, square)?;
                let least = g.scalar(LEAST_LOG_DENSITY)?;
                let bounded = g.add(Binary::Max, &[exponent, least])?;
                g.add(Unary::Exp, &[bounded])?
            }
            Unary::Gelu => {
                let cdf = Unary::NormalCdf.expand(g, inputs)?;
                match cdf {
                    Some(cdf) => g.mul(x, cdf)?,
                    None => return Ok(None),
                }
            }
            Unary::Silu => {
                let sigmoid = g.add(Unary::Sigmoid, inputs)?;
                g.mul(x, sigmoid)?
            }
            _ => return Ok(None),
        }))
    }
}
