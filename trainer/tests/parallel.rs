//! A batch that is cut into parts for several threads trains as the whole does.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that panics has failed")]

mod common;

use common::{architecture, images, place, steps};
use gradresnet_train::config::Config;
use gradresnet_train::run::{Run, Step};

const JOINT: &str = r#"
[denoising]
batch = 4
size = 8
sigma = [1, 70]
weight = 3.0
weight_power = 1.0

[classification]
batch = 8
size = 8
sigma = [0, 20]

[optimizer]
muon = { learning_rate = 0.02 }
adamw = { learning_rate = 4e-3 }
"#;

const MIXED: &str = r#"
[denoising]
batch = 4
size = 8
sigma = [1, 70]
target = "both"
schedule = [{ from_step = 1, batch = 2, size = 4 }]

[classification]
batch = 8
size = 8
sigma = [0, 20]
mix = 1.0

[optimizer]
adamw = { learning_rate = 4e-3 }
"#;

const JEM: &str = r#"
[classification]
batch = 6
size = 8
sigma = [3.825, 3.825]

[jem]
batch = 4
size = 8
sigma = [3.825, 3.825]
weight = 0.5
buffer = 8
steps = 3

[optimizer]
adamw = { learning_rate = 1e-4 }
"#;

#[test]
fn parts_of_a_batch_have_the_loss_and_the_gradient_of_the_whole() {
    let dir = tempfile::tempdir().unwrap();
    images(dir.path());
    // Four parts; two of two threads each; none, since with batch norm every image depends on all of its batch; two.
    for (norm, objectives) in [("group", JOINT), ("homogeneous", MIXED), ("batch", JOINT), ("group", JEM)] {
        let architecture = architecture(norm, objectives == JEM);
        let text =
            format!("name = \"t\"\ndata = \"none\"\nsteps = 2\nheld_out = 0.0\n{architecture}{objectives}");
        let config = Config::parse(&text).unwrap();
        let trained = |threads| -> Vec<Step> {
            tch::set_num_threads(threads);
            let run = Run::start(config.clone(), place(dir.path()), "test".into(), None);
            steps(&mut run.unwrap(), 2)
        };
        for (whole, parts) in trained(1).into_iter().zip(trained(4)) {
            assert_eq!(whole.images, parts.images);
            // Sums in float32 in another order, after a step taken with their gradient.
            let near =
                |a: f64, b: f64| assert!((a - b).abs() < 1e-4 * a.abs(), "{norm}: {whole:?}, {parts:?}");
            near(whole.loss, parts.loss);
            near(whole.gradient_norm, parts.gradient_norm);
            for ((_, whole), (_, parts)) in whole.terms.iter().zip(&parts.terms) {
                near(*whole, *parts);
            }
        }
    }
}
