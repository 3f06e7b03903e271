//! ONNX Runtime: a shared library that is looked for when it is first asked for.
//!
//! The binding panics when the library is absent or wrong, so everything that touches it first happens
//! in [`load`], where a panic becomes an error. One library and one environment serve the process.

use super::contract::{self, Signature};
use super::tract::threads;
use super::{Device, Engine, EngineKind, Graph, Inputs, Outputs, Plan, Shape, engine_error, one_line};
use crate::error::{ErrorKind, Result, catch_panic};
use gradresnet_models::Bundle;
use ort::environment::Environment;
use ort::ep::CUDA;
use ort::logging::LogLevel;
use ort::session::Session;
use ort::session::builder::{GraphOptimizationLevel, SessionBuilder};
use ort::value::TensorRef;
use prost::Message;
use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex, OnceLock, PoisonError};
use tract_onnx::pb::{
    GraphProto, ModelProto, NodeProto, OperatorSetIdProto, TensorShapeProto, TypeProto, ValueInfoProto,
    tensor_proto::DataType,
    tensor_shape_proto::{Dimension, dimension},
    type_proto,
};

/// Names the library for users who keep it in a place of their own.
const PATH_VARIABLE: &str = "ORT_DYLIB_PATH";
const CURE: &str = "set ORT_DYLIB_PATH to libonnxruntime.so, version 1.24 or later (it is part of the Python \
                    package `onnxruntime` and of the archives of the onnxruntime project), or use --engine \
                    tract";

struct Runtime {
    environment: Environment,
    version: String,
}

/// The library, or why there is none; determined once per process.
static RUNTIME: OnceLock<std::result::Result<Runtime, String>> = OnceLock::new();

#[derive(Clone, Copy)]
struct Ort {
    runtime: &'static Runtime,
    device: Device,
    threads: usize,
}

struct OrtPlan {
    signature: Signature,
    engine: Ort,
    model: ModelProto,
    sessions: Mutex<Sessions>,
    returned: Condvar,
}

/// The binding runs a session through a unique reference, so each thread that runs the plan at the same
/// time has its own.
struct Sessions {
    idle: Vec<Session>,
    made: usize,
}

pub(super) fn open(device: Device, threads: usize) -> Result<Arc<dyn Engine>> {
    let runtime = RUNTIME
        .get_or_init(load)
        .as_ref()
        .map_err(|reason| ErrorKind::EngineAbsent { engine: EngineKind::Ort, reason: reason.clone() })?;
    let engine = Ort { runtime, device, threads };
    if device != Device::Cpu {
        // A build with CUDA on a machine without a GPU says so only when a session starts.
        engine.session(&probe()).map_err(|reason| ErrorKind::Device {
            device: device.to_string(),
            reason: format!(
                "{}; it needs an NVIDIA GPU, its driver, CUDA, cuDNN and the GPU build of ONNX Runtime \
                 (the Python package `onnxruntime-gpu`)",
                one_line(&reason)
            ),
        })?;
    }
    Ok(Arc::new(engine))
}

/// The library that the user names.
pub(super) fn named() -> Option<OsString> {
    std::env::var_os(PATH_VARIABLE).filter(|path| !path.is_empty())
}

/// Places to look in, in order. A place that the user names is the only one.
fn candidates() -> Vec<PathBuf> {
    if let Some(path) = named() {
        // Relative to where the user is, as for every program; the loader would search elsewhere.
        return vec![std::path::absolute(&path).unwrap_or_else(|_| path.into())];
    }
    let name = format!("{}onnxruntime{}", std::env::consts::DLL_PREFIX, std::env::consts::DLL_SUFFIX);
    let beside = std::env::current_exe().ok().and_then(|exe| Some(exe.parent()?.to_path_buf()));
    let mut found: Vec<PathBuf> = beside
        .iter()
        .flat_map(|dir| [dir.join(&name), dir.join("lib").join(&name), dir.join("../lib").join(&name)])
        .filter(|path| path.is_file())
        .collect();
    // Last, by name alone: wherever the system keeps its libraries. The second name is that of Linux
    // packages without development files.
    found.push(PathBuf::from(&name));
    found.push(PathBuf::from(format!("{name}.1")));
    found
}

fn load() -> std::result::Result<Runtime, String> {
    let mut first = None;
    for path in candidates() {
        match load_from(&path) {
            Ok(runtime) => return Ok(runtime),
            Err(reason) => _ = first.get_or_insert(reason),
        }
    }
    Err(format!("{}; {CURE}", first.unwrap_or_default()))
}

fn load_from(path: &std::path::Path) -> std::result::Result<Runtime, String> {
    if path.is_absolute() && !path.is_file() {
        return Err(format!("{} is not a file", path.display()));
    }
    // This panics if `OrtGetApiBase`, which the library exports, returns nothing, or not this version of
    // the interface.
    catch_panic(|| {
        let environment = ort::init_from(path)
            .map_err(|e| one_line(&e.to_string()))?
            .with_telemetry(false)
            .build()
            .map_err(|e| one_line(&e.to_string()))?;
        // What it would print is in the errors it returns.
        environment.set_log_level(LogLevel::Fatal);
        // The binding tells only the version's minor number.
        let version = ort::util::probe(path).map_or("1".into(), |minor| format!("1.{minor}"));
        Ok(Runtime { environment, version })
    })
    .unwrap_or_else(|reason| Err(format!("{} is not a usable ONNX Runtime ({reason})", path.display())))
}

impl Ort {
    fn session(&self, model: &ModelProto) -> std::result::Result<Session, String> {
        let build = || -> ort::Result<Session> {
            let mut builder = self.builder()?;
            builder.commit_from_memory(&model.encode_to_vec())
        };
        catch_panic(|| build().map_err(|e| e.to_string())).and_then(|session| session)
    }

    fn builder(&self) -> ort::Result<SessionBuilder> {
        let builder = Session::builder(&self.runtime.environment)?
            .with_optimization_level(GraphOptimizationLevel::All)?
            .with_log_level(LogLevel::Fatal)?
            .with_inter_threads(1)?
            .with_intra_threads(self.threads)?
            // Threads that wait for the next image must not burn a core meanwhile.
            .with_intra_op_spinning(false)?;
        let Device::Cuda(number) = self.device else {
            return Ok(builder);
        };
        // TF32 rounds to 10 bits, which is further from the golden values than is accepted. Without
        // `error_on_failure` a missing provider would silently mean the processor.
        let number = i32::try_from(number).unwrap_or(i32::MAX);
        let cuda = CUDA::default().with_device_id(number).with_tf32(false).build().error_on_failure();
        Ok(builder.with_execution_providers([cuda])?)
    }
}

impl Engine for Ort {
    fn kind(&self) -> EngineKind {
        EngineKind::Ort
    }

    fn description(&self) -> String {
        format!("ONNX Runtime {}, {}, {}", self.runtime.version, self.device, threads(self.threads))
    }

    fn compile(&self, bundle: &Bundle, graph: Graph, shape: Shape) -> Result<Box<dyn Plan>> {
        let checked = contract::load(bundle, graph, shape)?;
        let session = self
            .session(&checked.model)
            .map_err(|reason| engine_error(EngineKind::Ort, "load", graph, reason))?;
        Ok(Box::new(OrtPlan {
            signature: checked.signature,
            engine: *self,
            model: checked.model,
            sessions: Mutex::new(Sessions { idle: vec![session], made: 1 }),
            returned: Condvar::new(),
        }))
    }
}

impl OrtPlan {
    /// A session that no other thread uses: an idle one, or a new one. On a GPU there is only one: several
    /// would share its cores, but not memory.
    fn take(&self) -> std::result::Result<Session, String> {
        let most = if self.engine.device == Device::Cpu { usize::MAX } else { 1 };
        let mut sessions = self.lock();
        loop {
            if let Some(session) = sessions.idle.pop() {
                return Ok(session);
            }
            if sessions.made < most {
                sessions.made += 1;
                // Others may take and return theirs while this one is made.
                drop(sessions);
                return self.engine.session(&self.model).inspect_err(|_| self.lock().made -= 1);
            }
            sessions = self.returned.wait(sessions).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Does `work` with an exclusive session.
    fn with_session<T>(
        &self,
        work: impl FnOnce(&mut Session) -> std::result::Result<T, String>,
    ) -> std::result::Result<T, String> {
        let mut session = self.take()?;
        // A run that failed or panicked has left the session as it was.
        let result = catch_panic(|| work(&mut session)).and_then(|result| result);
        self.lock().idle.push(session);
        self.returned.notify_one();
        result
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Sessions> {
        self.sessions.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Plan for OrtPlan {
    fn run(&self, inputs: &Inputs) -> Result<Outputs> {
        let values = self.signature.values(inputs)?;
        let run = |session: &mut Session| -> ort::Result<Vec<(Vec<usize>, Vec<f32>)>> {
            let inputs = values
                .iter()
                .map(|v| Ok((v.name, TensorRef::from_array_view((v.extents.clone(), v.values.as_ref()))?)))
                .collect::<ort::Result<Vec<_>>>()?;
            let outputs = session.run(inputs)?;
            self.signature
                .output_names()
                .map(|name| {
                    let (shape, values) = outputs[name].try_extract_tensor::<f32>()?;
                    let extents = shape.iter().map(|&n| usize::try_from(n).unwrap_or(0)).collect();
                    Ok((extents, values.to_vec()))
                })
                .collect()
        };
        self.with_session(|session| run(session).map_err(|e| e.to_string()))
            .and_then(|outputs| self.signature.outputs(outputs))
            .map_err(|reason| engine_error(EngineKind::Ort, "run", self.signature.graph, reason))
    }
}

/// The smallest graph there is: one number, negated.
fn probe() -> ModelProto {
    let value = |name: &str| ValueInfoProto {
        name: name.into(),
        r#type: Some(TypeProto {
            value: Some(type_proto::Value::TensorType(type_proto::Tensor {
                elem_type: DataType::Float as i32,
                shape: Some(TensorShapeProto {
                    dim: vec![Dimension { value: Some(dimension::Value::DimValue(1)), ..Default::default() }],
                }),
            })),
            ..Default::default()
        }),
        ..Default::default()
    };
    ModelProto {
        ir_version: 8,
        opset_import: vec![OperatorSetIdProto { version: 17, ..Default::default() }],
        graph: Some(GraphProto {
            name: "probe".into(),
            node: vec![NodeProto {
                op_type: "Neg".into(),
                input: vec!["x".into()],
                output: vec!["y".into()],
                ..Default::default()
            }],
            input: vec![value("x")],
            output: vec![value("y")],
            ..Default::default()
        }),
        ..Default::default()
    }
}
