//! x
pub mod convert;
pub mod data;
pub mod golden;
pub mod nets;
pub mod noise;
