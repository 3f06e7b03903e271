//! Classifies images, all of them in one batch.
//!
//! ```text
//! cargo run --release --example classify -- a.png b.jpg
//! ```

use anyhow::{Context, Result};
use gradresnet::engine::{self, Device, EngineKind};
use gradresnet::{Picture, Session, zoo};
use ndarray::{Axis, stack};

fn main() -> Result<()> {
    let session = Session::new(zoo::find("cifar10")?, engine::open(EngineKind::Tract, Device::Cpu, 1)?);
    let side = session.spec().image_size.context("the model takes images of any size")?;
    let paths: Vec<_> = std::env::args_os().skip(1).collect();
    let scaled = |path: &std::ffi::OsString| Ok(Picture::read(path.as_ref())?.resized(side));
    let images = paths.iter().map(scaled).collect::<Result<Vec<_>>>()?;
    let views: Vec<_> = images.iter().map(|image| image.view()).collect();
    let probabilities = session.classify(stack(Axis(0), &views)?.view())?;
    for (path, row) in paths.iter().zip(probabilities.outer_iter()) {
        let best = (0..row.len()).max_by(|&a, &b| row[a].total_cmp(&row[b])).context("no classes")?;
        println!("{}: {} ({:.0} %)", path.display(), session.spec().classes[best], 100.0 * row[best]);
    }
    Ok(())
}
