//! A bundle in which something was changed is found out: what `gradresnet verify` rests on.

use gradresnet::engine::{self, Device, EngineKind};
use gradresnet_export::{Options, Weights};
use gradresnet_models::{Bundle, Spec};
use gradresnet_tests::cases::variants;
use prost::Message;
use std::path::Path;
use tract_onnx::pb::ModelProto;

/// Digests first, then values, as `gradresnet verify` does.
fn verify(dir: &Path) -> Result<(), String> {
    let bundle = Bundle::open(dir).map_err(|e| e.to_string())?;
    bundle.verify_digests().map_err(|e| e.to_string())?;
    let engine = engine::open(EngineKind::Tract, Device::Cpu, 1).unwrap();
    gradresnet::verify::verify(&bundle, &*engine).map_err(|e| e.to_string())?;
    Ok(())
}

fn export(dir: &Path, weights: Weights) {
    let variant = variants().into_iter().find(|v| v.name == "base").unwrap();
    let options = Options { weights, ..Options::default() };
    gradresnet_export::export(&variant.checkpoint(), dir, &options).unwrap();
}

#[test]
fn one_changed_byte_of_any_file_is_found() {
    let dir = tempfile::tempdir().unwrap();
    let bundle = dir.path().join("bundle");
    export(&bundle, Weights::Shared);
    verify(&bundle).unwrap();
    for file in ["forward.onnx", "denoiser.onnx", "golden.safetensors", "model.safetensors", "spec.json"] {
        let path = bundle.join(file);
        let bytes = std::fs::read(&path).unwrap();
        let mut changed = bytes.clone();
        // In the spec, a digit of a digest: a byte whose change nothing but a comparison can find.
        let position = match file {
            "spec.json" => {
                let text = String::from_utf8(bytes.clone()).unwrap();
                text.find("\"forward.onnx\": \"").unwrap() + "\"forward.onnx\": \"".len()
            }
            _ => bytes.len() / 2,
        };
        changed[position] = if changed[position] == b'0' { b'1' } else { b'0' };
        std::fs::write(&path, &changed).unwrap();
        let error = verify(&bundle).expect_err(file);
        let named = if file == "spec.json" { "forward.onnx" } else { file };
        assert!(error.contains(named), "{file}: {error}");
        std::fs::write(&path, &bytes).unwrap();
    }
}

/// With the digests of the changed files in the spec, only the values can tell.
#[test]
fn a_changed_weight_is_found_by_its_graph_and_its_figure() {
    for (file, graph) in [("forward.onnx", "forward"), ("denoiser.onnx", "denoiser")] {
        let dir = tempfile::tempdir().unwrap();
        let bundle = dir.path().join("bundle");
        export(&bundle, Weights::Inline);
        let path = bundle.join(file);
        let mut model = ModelProto::decode(&*std::fs::read(&path).unwrap()).unwrap();
        let weights = &mut model.graph.as_mut().unwrap().initializer;
        let kernel = weights.iter_mut().find(|t| t.name == "stages.0.0.conv1.weight").unwrap();
        let first = f32::from_le_bytes(kernel.raw_data[..4].try_into().unwrap());
        kernel.raw_data[..4].copy_from_slice(&(first + 0.1).to_le_bytes());
        std::fs::write(&path, model.encode_to_vec()).unwrap();
        reseal(&bundle);
        let error = verify(&bundle).expect_err(file);
        assert!(error.contains(&format!("{graph} graph")) && error.contains("of its norm"), "{error}");
    }
}

/// Gives a bundle the digests of the files that it has.
fn reseal(dir: &Path) {
    let spec: Spec = Bundle::open(dir).unwrap().spec().clone();
    let staged = gradresnet_models::staged::StagedDir::new(dir).unwrap();
    for file in ["forward.onnx", "denoiser.onnx", "golden.safetensors"] {
        staged.write(file, &std::fs::read(dir.join(file)).unwrap()).unwrap();
    }
    Bundle::seal(&staged, &spec).unwrap();
    staged.commit(true).unwrap();
}
