//! Runs of a few steps, of networks and images small enough for a test.

use gradresnet_train::run::{Place, Run, Step};
use std::path::Path;
use tch::Device;

/// A GradResNet; `NORM` stands for its norm.
pub const ARCHITECTURE: &str = r#"
[architecture.gradresnet]
stem = "cifar"
width = 8
blocks = [1, 1]
block = "residual"
norm = "NORM"
side_connections = "stem"
activation = "gelu"
biases = false
centre = 0.5
scale = 4.0
"#;

/// JEM's: log p(y) is the LogSumExp of the logits.
const RESNET: &str = r#"
[architecture.resnet]
stem = "cifar"
width = 8
blocks = [1, 1]
norm = "NORM"
activation = "silu"
energy = "logsumexp"
centre = 0.5
scale = 2.0
"#;

/// The config's table for one or the other.
pub fn architecture(norm: &str, jem: bool) -> String {
    let text = if jem { RESNET } else { ARCHITECTURE };
    text.replace("NORM", norm)
}

/// Two classes of four images.
pub fn images(dir: &Path) {
    for (class, name) in ["cat", "dog"].iter().enumerate() {
        std::fs::create_dir_all(dir.join(name)).unwrap();
        for i in 0..4u32 {
            image::RgbImage::from_fn(12, 10, |x, y| {
                let v = (x * (3 + class as u32) + y * (i + 1) * 5) % 256;
                image::Rgb([v as u8, (x * 20) as u8, (255 - v) as u8])
            })
            .save(dir.join(name).join(format!("{i}.png")))
            .unwrap();
        }
    }
}

/// On the CPU, with images in `data`.
pub fn place(data: &Path) -> Place {
    Place { data: data.to_path_buf(), device: Device::Cpu, threads: None, loader_threads: 2 }
}

/// Steps of `run`.
pub fn steps(run: &mut Run, count: u64) -> Vec<Step> {
    (0..count).map(|_| run.step().unwrap()).collect()
}
