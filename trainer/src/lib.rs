//! Trains and evaluates GradResNet on libtorch, from a TOML config to a checkpoint that the exporter
//! reads.
//!
//! The modules follow the paper: [`nets`] is section 3.2, [`objective`] eq. 13 and [`jem`] its rival, [`noise`] the
//! noise levels of section 3.3, [`optim`] and [`config`] the settings of appendix A. [`run`] puts them together
//! into steps and checkpoints, [`fit`](mod@fit) into a run that a person watches; [`average`](mod@average) makes one
//! network of several states of a run. [`evaluate`](mod@evaluate) measures accuracy, calibration, PSNR and SSIM
//! ([`quality`]); [`golden`](mod@golden) computes the float64 values that every other engine is checked against;
//! [`study`] has the paper's experiments.

pub mod average;
pub mod config;
pub mod console;
pub mod convert;
pub mod data;
pub mod device;
pub mod evaluate;
pub mod fit;
pub mod golden;
pub mod jem;
pub mod metrics;
pub mod nets;
pub mod noise;
pub mod objective;
pub mod optim;
pub mod parallel;
pub mod quality;
mod refusal;
pub mod run;
pub mod study;
