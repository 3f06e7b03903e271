//! Every variant of the network, on every engine, against libtorch's autograd in float64.

use gradresnet_tests::cases::{self, Model};
use gradresnet_tests::engines;
use gradresnet_tests::report::{self, OUTPUTS, TOLERANCE, Table};
use std::io::Write;

#[test]
fn every_engine_computes_what_the_trainer_computes() {
    // More threads would compete with those of other tests.
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
                let known = engine.known_failures().iter().any(|(variant, _)| *variant == name);
                let run = engine.run(&model, &inputs).map_err(|error| format!("{error:#}"));
                let checked = run.and_then(|values| {
                    let errors = report::errors(&values, &reference);
                    let wrong: Vec<_> = OUTPUTS
                        .iter()
                        .zip(errors)
                        .filter_map(|(output, error)| Some((output, error?)))
                        .filter(|(_, error)| *error > TOLERANCE)
                        .collect();
                    if wrong.is_empty() { Ok(errors) } else { Err(format!("{wrong:?}")) }
                });
                match checked {
                    Ok(errors) if !known => table.add(&engine.name(), &case, errors),
                    Err(_) if known => {}
                    Ok(_) => {
                        failures.push(format!("{case} on {}: no longer fails; unlist it", engine.name()))
                    }
                    Err(fault) => failures.push(format!("{case} on {}: {fault}", engine.name())),
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
