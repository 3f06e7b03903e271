//! The paper's experiments, one file a command; each leaves JSON, a Markdown table and plots in a folder.
//!
//! - [`theory`]: the generalisation errors of section 2.1 and appendix D, by simulation
//!   ([`gaussian`] is the family of models, [`asymptotics`] its constants).
//!
//! What they share: [`report`] keeps rows and skips those that are there already, [`figure`] draws.

pub mod asymptotics;
pub mod figure;
pub mod gaussian;
pub mod report;
pub mod theory;
