//! `jacobian`: what the denoiser keeps and what it removes (section 4.2, Figures 3 and 5).

use super::figure::sheet;
use super::lanczos::{Eigenpair, Lanczos, symmetry_defect};
use super::report::{number, progress};
use super::subject::{Batch, Inputs, Model, Need, Subject, bounded, noise_like, norms};
use crate::console::line;
use crate::convert::sum;
use crate::quality::psnr;
use anyhow::Result;
use serde::{Deserialize, Serialize};
use tch::{Kind, Tensor};

/// Magnification of D_c − D_u in the pictures, as in Figure 3.
const MAGNIFICATION: f64 = 500.0;
/// Eigenvectors in the pictures, as in Figure 3.
const LARGEST: usize = 3;
const SMALLEST: usize = 2;
/// Eigenvectors in the last row of the pictures.
const GREATEST: usize = 5;

/// Find eigenvectors of the denoiser's Jacobian (eq. 14), with the pictures of Figures 3 and 5
///
/// For each image: the three eigenvalues of largest magnitude, the two of smallest, and the five greatest with
/// their sign, by Lanczos' method on products of the Jacobian with vectors, in float64. A residual ‖Jv − λv‖
/// beside each says how well it is found; with --steps 3072 (3·32·32) the whole spectrum of a CIFAR-10 image is.
/// Writes jacobian.json, .md and a picture for each image: the clean and the noisy image, D_u, D_c,
/// 500·(D_c − D_u), and below them the eigenvectors.
#[derive(clap::Args, Debug)]
pub struct Args {
    #[command(flatten)]
    inputs: Inputs,
    /// Noise level in 8-bit units
    #[arg(long, default_value = "50", value_parser = bounded)]
    sigma: f64,
    /// Images, spread evenly over the data
    #[arg(long, default_value = "4", value_parser = clap::value_parser!(u32).range(1..))]
    images: u32,
    /// Products of the Jacobian with a vector, for each image
    #[arg(long, default_value = "400", value_parser = clap::value_parser!(u32).range(5..))]
    steps: u32,
}

#[derive(Debug, Serialize, Deserialize)]
struct Row {
    model: String,
    image: u32,
    class: Option<String>,
    /// PSNR in dB of the noisy image, D_u and D_c, all clipped to [0, 1].
    noisy: f64,
    unconditional: f64,
    conditional: Option<f64>,
    /// ‖D_c − D_u‖ / ‖D_u − y‖.
    class_share: Option<f64>,
    /// Eigenvalues of largest magnitude, with their residuals.
    largest: Vec<f64>,
    largest_residuals: Vec<f64>,
    /// Greatest eigenvalues with their sign, and their residuals.
    greatest: Vec<f64>,
    greatest_residuals: Vec<f64>,
    /// Eigenvalues of smallest magnitude, with their residuals.
    smallest: Vec<f64>,
    smallest_residuals: Vec<f64>,
    /// |⟨u, Jv⟩ − ⟨v, Ju⟩| / (‖Ju‖‖v‖) for random u, v.
    symmetry_defect: f64,
}

/// The Jacobian of D_u at some images, as a map on perturbations of them: Id + σ²∇² log p (eq. 14).
pub struct Jacobian {
    at: Tensor,
    score: Tensor,
    sigma: f64,
}

impl Jacobian {
    /// At `noisy` `[N,3,H,W]`; `sigma` in image units.
    ///
    /// # Errors
    /// Without an energy.
    pub fn new(net: &dyn Model, noisy: &Tensor, sigma: f64) -> Result<Jacobian> {
        let at = noisy.detach().set_requires_grad(true);
        let score = net.score(&at, None, true)?;
        Ok(Jacobian { at, score, sigma })
    }

    /// D_u(y), `[N,3,H,W]`.
    pub fn denoised(&self) -> Tensor {
        (&self.at + &self.score * self.sigma.powi(2)).detach()
    }

    /// J v for each image, `[N,3,H,W]`: a product with the Hessian is the gradient of ⟨∇ log p, v⟩.
    pub fn product(&self, v: &Tensor) -> Tensor {
        let along = (&self.score * v).sum(None::<Kind>);
        let hessian = Tensor::run_backward(&[along], &[&self.at], true, false).remove(0);
        v + hessian * self.sigma.powi(2)
    }
}

/// Runs the study.
///
/// # Errors
/// If inputs cannot be read or results cannot be written.
pub fn run(args: &Args) -> Result<()> {
    let (subjects, images) = args.inputs.open(Kind::Double, &[Need::Energy])?;
    let settings = serde_json::json!({
        "data": args.inputs.data_settings(&images), "sigma": args.sigma, "images": args.images, "steps": args.steps,
    });
    let mut report = args.inputs.report::<Row>("jacobian", &settings, &subjects)?;
    let bar = progress(subjects.len() * (args.images * args.steps) as usize, "products with the Jacobian")?;
    for subject in &subjects {
        let batch = Batch::spread(&images, args.images as usize, subject)?;
        for index in 0..batch.images.size()[0] {
            report.row(&format!("{}/{index}", subject.key()), || {
                let (row, picture) = study(subject, &batch, index, args, || bar.inc(1))?;
                sheet(&args.inputs.output.join(format!("{}-{index}.png", subject.spec.name)), &picture)?;
                Ok(row)
            })?;
        }
    }
    bar.finish_and_clear();
    line(report.markdown()?);
    Ok(())
}

type Picture = Vec<Vec<(String, Tensor)>>;

fn study(
    subject: &Subject,
    batch: &Batch,
    index: i64,
    args: &Args,
    progress: impl FnMut(),
) -> Result<(Row, Picture)> {
    let sigma = args.sigma / 255.0;
    let clean = batch.images.narrow(0, index, 1);
    let noisy = &clean + noise_like(&clean, 0, index as u64) * sigma;
    let net = subject.net.as_ref();
    let jacobian = Jacobian::new(net, &noisy, sigma)?;
    let unconditional = jacobian.denoised();
    let class = batch.classes.as_ref().map(|c| c.narrow(0, index, 1));
    let conditional = class
        .as_ref()
        .map(|c| net.denoise(&noisy, sigma, Some(&subject.class_weights(c, 1.0))))
        .transpose()?;

    let start = noise_like(&clean, 1, index as u64);
    let krylov = Lanczos::run(|v| jacobian.product(v), &start, args.steps as usize, progress);
    let (largest, smallest) = (krylov.leading(LARGEST), krylov.smallest(SMALLEST));
    let greatest = krylov.greatest(GREATEST);
    let defect = symmetry_defect(|v| jacobian.product(v), &start, &noise_like(&clean, 2, index as u64));

    let decibels = |output: &Tensor| sum(&psnr(output, &clean));
    let difference = conditional.as_ref().map(|c| c - &unconditional);
    let row = Row {
        model: subject.spec.name.clone(),
        image: index as u32,
        class: class.map(|c| subject.spec.classes[c.int64_value(&[0]) as usize].clone()),
        noisy: decibels(&noisy),
        unconditional: decibels(&unconditional),
        conditional: conditional.as_ref().map(decibels),
        class_share: difference.as_ref().map(|d| sum(&norms(d)) / sum(&norms(&(&unconditional - &noisy)))),
        largest: largest.iter().map(|p| p.value).collect(),
        largest_residuals: largest.iter().map(|p| p.residual).collect(),
        greatest: greatest.iter().map(|p| p.value).collect(),
        greatest_residuals: greatest.iter().map(|p| p.residual).collect(),
        smallest: smallest.iter().map(|p| p.value).collect(),
        smallest_residuals: smallest.iter().map(|p| p.residual).collect(),
        symmetry_defect: defect,
    };

    let mut top = vec![("clean".to_string(), clean.squeeze_dim(0))];
    top.push((format!("noisy {:.1} dB", row.noisy), noisy.squeeze_dim(0)));
    top.push((format!("D_u {:.1} dB", row.unconditional), unconditional.squeeze_dim(0)));
    if let (Some(conditional), Some(difference), Some(decibels)) = (conditional, difference, row.conditional)
    {
        top.push((format!("D_c {decibels:.1} dB"), conditional.squeeze_dim(0)));
        top.push((format!("{MAGNIFICATION} (D_c-D_u)"), difference.squeeze_dim(0) * MAGNIFICATION + 0.5));
    }
    let shape = top[0].1.size();
    let vector = |pair: &Eigenpair| {
        let v = pair.vector.view(shape.as_slice());
        // Grey is 0; the largest component reaches black or white.
        (number(pair.value), &v / v.abs().max() * 0.5 + 0.5)
    };
    let middle = largest.iter().chain(smallest.iter().rev()).map(vector).collect();
    let bottom = greatest.iter().map(vector).collect();
    Ok((row, vec![top, middle, bottom]))
}

#[cfg(test)]
mod tests {
    use super::super::subject::tests::Quadratic;
    use super::*;
    use crate::nets::Network;
    use gradresnet_models::architecture::{BlockForm, GradResNet, SideConnections};
    use gradresnet_models::{Activation, Norm, Stem};
    use tch::Device;

    fn images(n: i64) -> Tensor {
        noise_like(&Tensor::zeros([n, 3, 2, 2], (Kind::Double, Device::Cpu)), 3, 0)
    }

    #[test]
    fn of_a_quadratic_density_the_jacobian_is_constant() {
        let net = Quadratic::random(12, 2);
        let (noisy, v) = (images(2), images(2).flip([0i64]));
        let expected = v.flatten(1, -1) - v.flatten(1, -1).matmul(&net.a.tr()).matmul(&net.a) * 0.25;
        let product = Jacobian::new(&net, &noisy, 0.5).unwrap().product(&v).flatten(1, -1);
        assert!((product - expected).abs().max().double_value(&[]) < 1e-12);
    }

    /// Lanczos on the products against the dense Jacobian, built column by column by central differences.
    #[test]
    fn eigenpairs_of_a_tiny_network_are_those_of_its_dense_jacobian() {
        let architecture = GradResNet {
            stem: Stem::Cifar,
            width: 8,
            blocks: vec![1],
            block: BlockForm::Residual,
            norm: Norm::Group,
            group_size: 4,
            side_connections: SideConnections::Stem,
            activation: Activation::Gelu,
            biases: false,
            centre: 0.5,
            scale: 4.0,
        };
        let net = Network::random(&architecture.into(), 2, 1, Kind::Double, Device::Cpu);
        let sigma = 0.3;
        let noisy = noise_like(&Tensor::zeros([1, 3, 4, 4], (Kind::Double, Device::Cpu)), 4, 0) * 0.3 + 0.5;
        let step = 1e-5;
        let columns: Vec<Tensor> = (0..48)
            .map(|i| {
                let e =
                    Tensor::from_slice(&[i as i64]).one_hot(48).to_kind(Kind::Double).view_as(&noisy) * step;
                let ends = [&noisy + &e, &noisy - &e].map(|y| net.denoise(&y, sigma, None).unwrap());
                ((&ends[0] - &ends[1]) / (2.0 * step)).flatten(0, -1)
            })
            .collect();
        let dense = Tensor::stack(&columns, 1);
        assert!(
            (&dense - dense.tr()).abs().max().double_value(&[]) < 1e-6 * dense.abs().max().double_value(&[])
        );
        let (values, _) = ((&dense + dense.tr()) * 0.5).linalg_eigh("L");
        let mut expected: Vec<f64> = (0..48).map(|i| values.double_value(&[i])).collect();
        expected.sort_by(|a, b| b.abs().total_cmp(&a.abs()));

        let jacobian = Jacobian::new(&net, &noisy, sigma).unwrap();
        let krylov = Lanczos::run(|v| jacobian.product(v), &noisy, 48, || ());
        let tolerance = 1e-6 * expected[0].abs();
        for (pair, value) in krylov.leading(3).iter().zip(&expected) {
            assert!((pair.value - value).abs() < tolerance, "{} {value}", pair.value);
        }
        let smallest = krylov.smallest(1)[0].value;
        assert!((smallest.abs() - expected[47].abs()).abs() < tolerance, "{smallest} {}", expected[47]);
    }
}
