//! `gradresnet denoise`: its arguments become a plan, which is carried out image by image and told in a report.

mod args;
mod plan;
mod report;

pub use args::Args;

use super::console::{Outcome, images as in_words, note};
use super::inputs::{Failure, Job, Placed, Target, is_image, place, resolved};
use super::workers;
use anyhow::{Result, ensure};
use gradresnet::Format;
use plan::{Plan, find_reference};
use report::{Record, Report};
use std::collections::HashSet;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

pub fn run(args: &Args) -> Result<Outcome> {
    let found = args.inputs.find(args.output.as_deref());
    let console = found.console(args.quiet);
    let format = args.format.format();
    let target = match &args.output {
        Some(folder) => Target::Folder(folder, format.map(Format::extension)),
        None => Target::InPlace,
    };
    let mut placed = place(found.inputs, &target, args.existing)?;
    let jobs = std::mem::take(&mut placed.jobs);
    let mut plan = Plan::new(args, jobs.len())?;
    report_is_no_image(args, &jobs, &placed.skipped)?;
    references_are_kept(args, &jobs)?;
    if args.dry_run {
        Report::may_be_created(args)?;
        placed.say(&console);
        for job in &jobs {
            console.line(format_args!("{} -> {}", job.input.path.display(), job.output.display()));
        }
        if jobs.is_empty() {
            note("nothing would be done");
        }
        return Ok(console.finish());
    }
    Placed::check(&jobs)?;
    let report = Report::create(args)?;
    placed.say(&console);
    if let Some(report) = &report {
        let failures: Vec<&Failure> = found.failures.iter().chain(&placed.failures).collect();
        report.add_placed(&failures, &placed.skipped)?;
    }
    workers::finish_files_when_interrupted()?;
    Placed::clean(&jobs);
    // With those of an earlier run, so that this one goes on at its level.
    let images: Vec<&Job> = jobs.iter().chain(&placed.skipped).collect();
    plan.settle_sigma(if jobs.is_empty() { &[] } else { &images }, &console);

    let (psnr, written, beyond) = (Mutex::new(Vec::new()), AtomicUsize::new(0), AtomicUsize::new(0));
    let taken = workers::for_each(&jobs, &console, |job| {
        let start = Instant::now();
        let mut record = Record::of(job);
        match plan.denoise(job) {
            Ok(Some(done)) => {
                let seconds = start.elapsed().as_secs_f64();
                let decibels = done.psnr.map(|p| format!(", {p:.2} dB")).unwrap_or_default();
                let (output, sigma) = (job.output.display(), done.sigma);
                let text = format!("{output}: σ = {sigma:.1}{decibels}, {seconds:.2} s");
                // What was asked for is told beside a bar, too.
                if done.psnr.is_some() {
                    console.say(text)
                } else {
                    console.log(text)
                }
                written.fetch_add(1, Ordering::Relaxed);
                beyond.fetch_add(usize::from(done.beyond), Ordering::Relaxed);
                psnr.lock().unwrap_or_else(PoisonError::into_inner).extend(done.psnr);
                (record.done, record.seconds) = (Some(done), Some(seconds));
            }
            Ok(None) => record.skipped = true,
            Err(error) => {
                console.fail(&error);
                record.error = Some(format!("{error:#}"));
            }
        }
        if let Some(report) = &report
            && let Err(error) = report.add(&record)
        {
            console.fail_beside(&error);
        }
    });

    let psnr = psnr.into_inner().unwrap_or_else(PoisonError::into_inner);
    if !psnr.is_empty() {
        let mean = psnr.iter().sum::<f64>() / psnr.len() as f64;
        console.say(format!("mean PSNR of {}: {mean:.2} dB", in_words(psnr.len())));
    }
    if let images @ 1.. = beyond.into_inner() {
        plan.say_beyond(images, &console);
    }
    let place = args.output.as_deref().map_or("in place".into(), |folder| format!("to {}", folder.display()));
    console.say(format!("{} written {place}", in_words(written.into_inner())));
    Ok(match jobs.get(taken) {
        // Files done already must not be denoised twice.
        Some(next) if args.in_place => console
            .finish_or(format_args!("{} and the files after it are unchanged", next.input.path.display())),
        None if args.in_place => console.finish_or("nothing was left to do"),
        _ => console.finish(),
    })
}

fn report_is_no_image(args: &Args, jobs: &[Job], skipped: &[Job]) -> Result<()> {
    let Some(report) = args.report.as_deref().map(resolved) else { return Ok(()) };
    let mut paths = jobs.iter().chain(skipped).flat_map(|job| [&*job.input.path, &*job.output]);
    ensure!(
        !is_image(&report) && paths.all(|path| resolved(path) != report),
        "{}: --report names an image; name another file, such as report.jsonl",
        report.display()
    );
    Ok(())
}

fn references_are_kept(args: &Args, jobs: &[Job]) -> Result<()> {
    let Some(references) = &args.reference else { return Ok(()) };
    let outputs: HashSet<PathBuf> = jobs.iter().map(|job| resolved(&job.output)).collect();
    // One that is not there is named when its image is denoised.
    for reference in jobs.iter().filter_map(|job| find_reference(references, &job.input.relative).ok()) {
        ensure!(
            !outputs.contains(&resolved(&reference)),
            "{} is one of the references, and would be replaced",
            reference.display()
        );
    }
    Ok(())
}
