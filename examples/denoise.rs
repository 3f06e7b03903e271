//! Denoises one image, whose noise level is estimated.
//!
//! ```text
//! cargo run --release --example denoise -- examples/noisy/lake.png clean.png
//! ```

use anyhow::{Context, Result};
use gradresnet::engine::{self, Device, EngineKind};
use gradresnet::{Encoding, Picture, Session, Tiling, zoo};

fn main() -> Result<()> {
    let mut args = std::env::args_os().skip(1);
    let (input, output) = args.next().zip(args.next()).context("an input and an output are needed")?;
    let session = Session::new(zoo::find("photo")?, engine::open(EngineKind::Tract, Device::Cpu, 1)?);
    let mut picture = Picture::read(input.as_ref())?;
    let noise = session.estimate_noise(&picture);
    println!("σ = {:.1}", 255.0 * noise.sigma);
    session.denoise_picture(&mut picture, noise, None, &Tiling::default())?;
    picture.write(output.as_ref(), &Encoding::default())?;
    Ok(())
}
