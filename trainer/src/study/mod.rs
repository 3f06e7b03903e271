//! The paper's experiments, one file per command; each leaves JSON, a Markdown table and plots in a folder.
//!
//! - [`theory`]: the generalisation errors of section 2.1 and appendix D, by simulation
//!   ([`gaussian`] is the family of models, [`asymptotics`] its constants).
//! - [`jacobian`]: eigenvectors of the denoiser's Jacobian (Figures 3 and 5), by [`lanczos`].
//! - [`attack`]: accuracy under attack (Figure 4), by [`pgd`].
//! - [`adversarial`]: the classifier's gradient as a difference of denoisers (eq. 9).
//! - [`linearity`]: whether D(y) = ∇D(y) y (section 4.2); accuracy under noise.
//! - [`sample`]: images drawn from the model (section 5.2).
//! - [`ood`]: −log p(y) as a score of foreign images.
//! - [`generalize`]: PSNR outside the training range of noise levels.
//! - [`table`]: runs in the shape of Tables 1, 2 and 3.
//!
//! What they share: [`subject`] is a network behind a narrow interface, and images for it; [`report`] keeps
//! rows and skips those that are there already; [`figure`] draws.

pub mod adversarial;
pub mod asymptotics;
pub mod attack;
pub mod figure;
pub mod gaussian;
pub mod generalize;
pub mod jacobian;
pub mod lanczos;
pub mod linearity;
pub mod ood;
pub mod pgd;
pub mod report;
pub mod sample;
pub mod subject;
pub mod table;
pub mod theory;
