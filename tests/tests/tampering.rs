//! Tampering with a bundle is detected: what `gradresnet verify` rests on.

use gradresnet::ErrorKind;
use gradresnet::engine::{self, Device, EngineKind, Shape};
use gradresnet_export::{Options, Weights};
use gradresnet_models::{Bundle, Spec, Task};
use gradresnet_tests::cases::variants;
use prost::Message;
use std::path::Path;
use tract_onnx::pb::tensor_proto::DataType;
use tract_onnx::pb::tensor_shape_proto::dimension::Value;
use tract_onnx::pb::{
    FunctionProto, GraphProto, ModelProto, SparseTensorProto, StringStringEntryProto, TensorAnnotation,
    TensorProto, TensorShapeProto, TrainingInfoProto, ValueInfoProto, type_proto,
};

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
        // In the spec, a digit of a digest: only comparing the digests can find its change.
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

/// If the spec has the changed file's digest, only golden values can tell.
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

/// Updates a bundle's digests to those of its files.
fn reseal(dir: &Path) {
    let spec: Spec = Bundle::open(dir).unwrap().spec().clone();
    let staged = gradresnet_models::staged::StagedDir::new(dir).unwrap();
    for file in spec.files.keys() {
        staged.write(file, &std::fs::read(dir.join(file)).unwrap()).unwrap();
    }
    Bundle::seal(&staged, &spec).unwrap();
    staged.commit(true).unwrap();
}

/// What a change does to a graph, and a part of the reason for which it is refused.
type Hostile = (&'static str, fn(&mut ModelProto));

/// A graph is untrusted even if its digest is right: what could reach outside of the bundle, or is not what the contract says,
/// is refused before an engine sees it.
#[test]
fn a_graph_that_breaks_the_contract_is_refused_with_the_reason() {
    let rules: [Hostile; 16] = [
        ("functions", |m| m.functions.push(FunctionProto::default())),
        ("training information", |m| m.training_info.push(TrainingInfoProto::default())),
        ("it is empty", |m| m.graph = None),
        ("sparse", |m| graph(m).sparse_initializer.push(SparseTensorProto::default())),
        ("quantised", |m| graph(m).quantization_annotation.push(TensorAnnotation::default())),
        ("not a standard one", |m| graph(m).node[0].domain = "com.example".into()),
        ("input `more` is not", |m| {
            let more = ValueInfoProto { name: "more".into(), ..graph(m).input[0].clone() };
            graph(m).input.push(more);
        }),
        ("is not one of the contract's", |m| {
            let again = graph(m).input[0].clone();
            graph(m).input.push(again);
        }),
        ("output `energy` is missing", |m| graph(m).output.retain(|output| output.name != "energy")),
        ("is not float32", |m| tensor_type(&mut graph(m).input[0]).elem_type = DataType::Double as i32),
        ("axes instead of 4", |m| {
            image(m).dim.pop();
        }),
        ("must have extent 3", |m| image(m).dim[1].value = Some(Value::DimValue(4))),
        ("is fixed at 32", |m| image(m).dim[2].value = Some(Value::DimValue(32))),
        ("ends within an element", |m| kernel(m).raw_data.push(0)),
        ("its extents say", |m| kernel(m).dims[0] += 1),
        ("impossible extents", |m| kernel(m).dims[0] = -1),
    ];
    for (reason, change) in rules {
        refused(Weights::Inline, reason, change);
    }
}

/// spec.json has no digest, and says what the outputs mean: the graphs say it too.
#[test]
fn a_spec_that_says_another_thing_than_the_graphs_is_refused() {
    type Change = (&'static str, fn(&mut Spec));
    let changes: [Change; 5] = [
        ("gradresnet.task", |s| s.task = Task::Denoising),
        ("gradresnet.classes", |s| s.classes.swap(0, 1)),
        ("gradresnet.sigma_min", |s| s.sigma.min = 0.001),
        ("gradresnet.sigma_max", |s| s.sigma.max *= 2.0),
        ("gradresnet.image_size", |s| s.image_size = s.image_size.map_or(Some(64), |_| None)),
    ];
    let dir = tempfile::tempdir().unwrap();
    let bundle = dir.path().join("bundle");
    export(&bundle, Weights::Inline);
    verify(&bundle).unwrap();
    let sound = Bundle::open(&bundle).unwrap().spec().clone();
    for (key, change) in changes {
        let mut spec = sound.clone();
        change(&mut spec);
        spec.validate().unwrap();
        std::fs::write(bundle.join("spec.json"), spec.to_json()).unwrap();
        let error = verify(&bundle).unwrap_err();
        assert!(error.contains(key) && error.contains("spec.json"), "{key}: {error}");
    }
    // What does not change a result may change.
    let spec = Spec { metrics: Vec::new(), provenance: None, ..sound };
    std::fs::write(bundle.join("spec.json"), spec.to_json()).unwrap();
    verify(&bundle).unwrap();
}

#[test]
fn external_data_is_read_from_the_parameters_of_the_bundle_alone() {
    let rules: [Hostile; 9] = [
        ("lies outside", |m| field(m, "location", "../model.safetensors")),
        ("lies outside", |m| field(m, "location", "/etc/passwd")),
        ("lies outside", |m| field(m, "location", "golden.safetensors")),
        ("lies outside", |m| field(m, "offset", "1000000000")),
        ("lies outside", |m| field(m, "offset", "18446744073709551615")),
        ("lies outside", |m| field(m, "offset", "-1")),
        ("another length", |m| field(m, "length", "4")),
        ("unknown external field", |m| field(m, "command", "ls")),
        ("is not float32", |m| kernel(m).data_type = DataType::Double as i32),
    ];
    for (reason, change) in rules {
        refused(Weights::Shared, reason, change);
    }
    // Each may be read, and together they are more than the parameters of the architecture.
    refused(Weights::Shared, "larger than the architecture's parameters allow", |m| {
        for i in 0..6000 {
            let again = TensorProto { name: format!("again{i}"), ..kernel(m).clone() };
            graph(m).initializer.push(again);
        }
    });
}

fn refused(weights: Weights, reason: &str, change: fn(&mut ModelProto)) {
    let dir = tempfile::tempdir().unwrap();
    let bundle = dir.path().join("bundle");
    export(&bundle, weights);
    let path = bundle.join("denoiser.onnx");
    let mut model = ModelProto::decode(&*std::fs::read(&path).unwrap()).unwrap();
    let check = || {
        let shape = Shape { batch: 1, height: 32, width: 32 };
        engine::check(&Bundle::open(&bundle).unwrap(), engine::Graph::Denoiser, shape)
    };
    check().unwrap();
    change(&mut model);
    std::fs::write(&path, model.encode_to_vec()).unwrap();
    reseal(&bundle);
    let error = check().expect_err(reason);
    assert!(matches!(error.kind(), ErrorKind::Graph(_)), "{reason}: {error}");
    assert!(error.to_string().contains(reason), "{reason}: {error}");
}

fn graph(model: &mut ModelProto) -> &mut GraphProto {
    model.graph.as_mut().unwrap()
}

/// The weights of the first convolution.
fn kernel(model: &mut ModelProto) -> &mut TensorProto {
    graph(model).initializer.iter_mut().find(|tensor| tensor.name == "stem.conv.weight").unwrap()
}

/// Sets a field of where the kernel's data is.
fn field(model: &mut ModelProto, key: &str, value: &str) {
    let data = &mut kernel(model).external_data;
    data.retain(|entry| entry.key != key);
    data.push(StringStringEntryProto { key: key.into(), value: value.into() });
}

fn tensor_type(info: &mut ValueInfoProto) -> &mut type_proto::Tensor {
    let type_proto::Value::TensorType(tensor) = info.r#type.as_mut().unwrap().value.as_mut().unwrap();
    tensor
}

/// The extents of the image that goes in.
fn image(model: &mut ModelProto) -> &mut TensorShapeProto {
    let input = graph(model).input.iter_mut().find(|input| input.name == "noisy").unwrap();
    tensor_type(input).shape.as_mut().unwrap()
}
