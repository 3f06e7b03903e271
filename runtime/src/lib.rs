//! Runs GradResNet bundles: denoises, classifies and scores images.
//!
//! A [`Session`] is a [`Bundle`] on an [`engine`]. Pixels are RGB, float32, `[N,3,H,W]`, in image units:
//! [0, 1], and not clipped where noise has been added (a picture's may be: [`Session::denoise_picture`]). σ is
//! in the same unit.
//!
//! ```no_run
//! use gradresnet::engine::{self, Device, EngineKind};
//! use gradresnet::{Encoding, Picture, Session, Tiling, zoo};
//!
//! # fn main() -> gradresnet::Result<()> {
//! let session = Session::new(zoo::find("photo")?, engine::open(EngineKind::Tract, Device::Cpu, 1)?);
//! let mut picture = Picture::read("noisy.png".as_ref())?;
//! let noise = session.estimate_noise(&picture);
//! session.denoise_picture(&mut picture, noise, None, &Tiling::default())?;
//! picture.write("clean.png".as_ref(), &Encoding::default())?;
//! # Ok(())
//! # }
//! ```
//!
//! What is read, models and images alike, is untrusted: sizes are bounded before memory is taken, and
//! no graph reaches a file outside its bundle. What a model may still do is compute slowly or wrongly.

pub mod bench;
mod canvas;
pub mod engine;
mod error;
pub mod noise;
mod padding;
mod picture;
mod plans;
pub mod psnr;
mod session;
mod tiling;
pub mod verify;
pub mod zoo;

pub use error::{Error, ErrorKind, Result, silence_caught_panics};
pub use gradresnet_models::{Bundle, Spec};
pub use picture::{Encoding, Format, Header, MAX_PIXELS, Picture, extensions, names};
pub use session::Session;
pub use tiling::Tiling;
