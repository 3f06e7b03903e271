//! Where tensors live, `cpu` or `cuda:N`, checked before anything starts there, and the precision that suits it.

use crate::config::Precision;
use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use tch::{Cuda, Device};

/// The arguments that say where to compute.
#[derive(Args, Debug)]
pub struct Machine {
    /// Where to compute: cpu, cuda or cuda:N [default: cpu; with `resume`, as before]
    #[arg(long, value_parser = parse_or_why)]
    device: Option<Device>,
    /// Threads of the computation [default: one per core; with `resume`, as before]
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..=1024))]
    threads: Option<u16>,
}

impl Machine {
    /// Sets the number of threads that the computation has. Returns the device, and the threads if they were chosen.
    pub fn prepare(&self) -> (Device, Option<u16>) {
        if let Some(threads) = self.threads {
            tch::set_num_threads(i32::from(threads));
        }
        (self.device.unwrap_or(Device::Cpu), self.threads)
    }

    /// As [`Machine::prepare`], with the device, as by [`name`], and the threads of before where the arguments name none.
    ///
    /// # Errors
    /// If that device is not there, or the number of threads is none that the arguments accept.
    pub fn prepare_as(&self, device: Option<&str>, threads: Option<u16>) -> Result<(Device, Option<u16>)> {
        ensure!(threads.is_none_or(|n| (1..=1024).contains(&n)), "`threads` must be 1 to 1024");
        let before = || {
            let cause =
                || format!("the run computed on {}; --device names another", device.unwrap_or_default());
            device.map(parse).transpose().with_context(cause)
        };
        let device = if self.device.is_some() { self.device } else { before()? };
        Ok(Machine { device, threads: self.threads.or(threads) }.prepare())
    }
}

/// What [`parse`] makes this device of.
pub fn name(device: Device) -> String {
    match device {
        Device::Cuda(index) => format!("cuda:{index}"),
        _ => "cpu".into(),
    }
}

/// What convolutions compute in on `device` where a config asks for `wanted`: float32 in place of bfloat16 on a
/// processor without the instructions that libtorch needs, where bfloat16 takes many times as long (docs/training.md).
pub fn precision_on(device: Device, wanted: Precision) -> Precision {
    match wanted {
        Precision::BFloat16 if device == Device::Cpu && !cpu_has_bfloat16() => Precision::Float32,
        precision => precision,
    }
}

#[cfg(target_arch = "x86_64")]
fn cpu_has_bfloat16() -> bool {
    // AVX-NE-CONVERT is not enough: oneDNN has no gradients of convolutions with it.
    is_x86_feature_detected!("avx512bf16")
}

#[cfg(target_arch = "aarch64")]
fn cpu_has_bfloat16() -> bool {
    std::arch::is_aarch64_feature_detected!("bf16")
}

#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
fn cpu_has_bfloat16() -> bool {
    false
}

/// clap prints one line of an error; the whole chain has to be in it.
fn parse_or_why(text: &str) -> Result<Device, String> {
    parse(text).map_err(|e| format!("{e:#}"))
}

/// Reads `cpu`, `cuda` or `cuda:N`.
///
/// # Errors
/// If it is none of them, or this libtorch or this machine has no such device.
pub fn parse(text: &str) -> Result<Device> {
    let index = match text.split_once(':') {
        None if text == "cpu" => return Ok(Device::Cpu),
        None if text == "cuda" => 0,
        Some(("cuda", number)) if number.parse::<usize>().is_ok() => number.parse()?,
        _ => bail!("device `{text}`: expected `cpu`, `cuda` or `cuda:N`"),
    };
    ensure!(
        Cuda::is_available(),
        "device `{text}`: this libtorch has no CUDA, or the machine has no NVIDIA GPU with a working driver; \
         build against a CUDA libtorch (`pip install torch==2.13.0` and LIBTORCH_USE_PYTORCH=1), or use `--device cpu`"
    );
    let count = Cuda::device_count();
    ensure!((index as i64) < count, "device `{text}`: this machine has {count} CUDA devices, counted from 0");
    Ok(Device::Cuda(index))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_precision_stays_where_the_processor_is_no_hindrance() {
        assert_eq!(precision_on(Device::Cpu, Precision::Float32), Precision::Float32);
        assert_eq!(precision_on(Device::Cuda(0), Precision::BFloat16), Precision::BFloat16);
    }

    #[test]
    fn a_run_goes_on_where_it_was_unless_told_otherwise() {
        let machine = |threads| Machine { device: None, threads };
        assert_eq!(machine(None).prepare_as(Some("cpu"), Some(1)).unwrap(), (Device::Cpu, Some(1)));
        assert_eq!(machine(Some(2)).prepare_as(Some("cpu"), Some(1)).unwrap(), (Device::Cpu, Some(2)));
        assert!(machine(None).prepare_as(None, Some(0)).is_err());
        // Not silently on the processor.
        let error = machine(None).prepare_as(Some("cuda:999"), None).unwrap_err();
        assert!(format!("{error:#}").contains("--device"), "{error:#}");
        let elsewhere = Machine { device: Some(Device::Cpu), threads: None };
        assert_eq!(elsewhere.prepare_as(Some("cuda:999"), None).unwrap(), (Device::Cpu, None));
        assert_eq!([name(Device::Cpu), name(Device::Cuda(1))], ["cpu", "cuda:1"]);
    }

    #[test]
    fn devices_that_cannot_be_had_are_named() {
        assert_eq!(parse("cpu").unwrap(), Device::Cpu);
        for text in ["", "gpu", "cuda:", "cuda:x", "cuda:-1", "cpu:0"] {
            assert!(parse(text).unwrap_err().to_string().contains("expected"), "{text}");
        }
        if !Cuda::is_available() {
            assert!(parse("cuda:0").unwrap_err().to_string().contains("no CUDA"));
        }
        assert!(parse("cuda:999").is_err());
    }
}
