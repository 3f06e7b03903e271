//! Ranks images of one size by −log p(y), the least likely first: an anomaly score.
//!
//! ```text
//! cargo run --release --example anomaly -- examples/clean/*.png
//! ```
//!
//! Energies are comparable only between images of equal size and noise.

use anyhow::Result;
use gradresnet::engine::{self, Device, EngineKind};
use gradresnet::{Picture, Session, zoo};

fn main() -> Result<()> {
    let session = Session::new(zoo::find("photo")?, engine::open(EngineKind::Tract, Device::Cpu, 1)?);
    let (mut scores, mut size) = (Vec::new(), None);
    for path in std::env::args_os().skip(1) {
        let picture = Picture::read(path.as_ref())?;
        anyhow::ensure!(
            *size.get_or_insert(picture.size()) == picture.size(),
            "{}: of another size than the images before",
            path.display()
        );
        scores.push((session.energy_picture(&picture)?, path));
    }
    scores.sort_by(|a, b| b.0.total_cmp(&a.0));
    for (energy, path) in scores {
        println!("{energy:12.1} nats  {}", path.display());
    }
    Ok(())
}
