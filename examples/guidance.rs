//! Denoises a 32×32 image once for each class: y + σ² ∇ [log p(y) + G log p(c|y)] (eq. 7).
//!
//! ```text
//! cargo run --release --example guidance -- noisy.png 50 out
//! ```

use anyhow::{Context, Result};
use gradresnet::engine::{self, Device, EngineKind};
use gradresnet::noise::Noise;
use gradresnet::{Encoding, Format, Picture, Session, Tiling, zoo};
use ndarray::Array2;

/// G, the weight of the class.
const GUIDANCE: f32 = 4.0;

fn main() -> Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [input, sigma, output] = args.as_slice() else {
        anyhow::bail!("an input, its noise level in 8-bit units, and a folder for the outputs are needed")
    };
    let sigma = sigma.parse::<f32>().context("the noise level is a number")? / 255.0;
    let noisy = Picture::read(input.as_ref())?;
    let session = Session::new(zoo::find("cifar10")?, engine::open(EngineKind::Tract, Device::Cpu, 1)?);
    // How the channels share the noise is estimated from the image.
    let noise = Noise { sigma, ..session.estimate_noise(&noisy) };
    let classes = &session.spec().classes;
    std::fs::create_dir_all(output)?;
    for (c, name) in classes.iter().enumerate() {
        let mut weights = Array2::zeros((1, classes.len()));
        weights[[0, c]] = GUIDANCE;
        let mut clean = noisy.clone();
        session.denoise_picture(&mut clean, noise, Some(weights.view()), &Tiling::default())?;
        let path = std::path::Path::new(output).join(format!("{name}.png"));
        clean.write(&path, &Encoding { format: Some(Format::Png), ..Encoding::default() })?;
    }
    Ok(())
}
