//! Every variant of the network, on every engine, against libtorch's autograd in float64.

use gradresnet_tests::cases::{self, Model};
use gradresnet_tests::engines;
use gradresnet_tests::report::{self, OUTPUTS, TOLERANCE, Table};
use std::io::Write;

#[test]
fn every_engine_computes_what_the_trainer_computes() {
    // More threads would fight with those of the other tests.
    tch::set_num_threads(1);
    let engines = engines::all().unwrap();
    let mut table = Table::default();
    let mut failures = Vec::new();
    for variant in cases::variants() {
        let name = variant.name.clone();
        let inputs = cases::inputs(&variant);
        let model = Model::new(variant, &Default::default()).unwrap_or_else(|e| panic!("{name}: {e:#}"));
        for (weights, inputs) in inputs {
            let [n, h, w] = inputs.size;
            let case = format!("{name}, {n}×{h}×{w}, {weights:?}");
            let reference = engines::reference(&model, &inputs).unwrap();
            for engine in engines.iter().filter(|e| e.runs(&name)) {
                let errors = match engine.run(&model, &inputs) {
                    Ok(values) => report::errors(&values, &reference),
                    Err(error) => {
                        failures.push(format!("{case} on {}: {error:#}", engine.name()));
                        continue;
                    }
                };
                let known = engine.known_failures().iter().any(|(variant, _)| *variant == name);
                let wrong: Vec<_> = OUTPUTS
                    .iter()
                    .zip(errors)
                    .filter_map(|(output, error)| Some((output, error?)))
                    .filter(|(_, error)| *error > TOLERANCE)
                    .collect();
                match (known, wrong.is_empty()) {
                    (false, true) => table.add(&engine.name(), &case, errors),
                    (false, false) => failures.push(format!("{case} on {}: {wrong:?}", engine.name())),
                    (true, false) => {}
                    (true, true) => {
                        failures.push(format!("{case} on {}: no longer fails; unlist it", engine.name()));
                    }
                }
            }
        }
    }
    let text = table.to_markdown();
    // Past the capture of passing tests' output: the figures are what the suite is for.
    let _ = writeln!(std::io::stderr(), "\nworst ‖out − ref‖/‖ref‖ against libtorch float64:\n\n{text}");
    std::fs::write(concat!(env!("CARGO_TARGET_TMPDIR"), "/equivalence.md"), &text).unwrap();
    assert!(failures.is_empty(), "{} failures:\n{}", failures.len(), failures.join("\n"));
}
