//! Plots and contact sheets as PNG files.
//!
//! Text is set in Hack (MIT and Bitstream Vera licences), which comes as a crate: nothing depends on the fonts of
//! the machine.

use super::report::number;
use anyhow::{Context, Result, anyhow};
use gradresnet_models::staged;
use image::ImageEncoder;
use image::codecs::png::PngEncoder;
use plotters::coord::ranged1d::{DefaultFormatting, KeyPointHint, ValueFormatter};
use plotters::coord::{Shift, ranged1d::Ranged};
use plotters::prelude::*;
use plotters::style::{FontStyle, register_font};
use std::path::Path;
use std::sync::OnceLock;
use tch::{Device, Kind, Tensor};

/// Size of one panel of a plot, in pixels.
const PANEL: (u32, u32) = (520, 400);
const FONT: &str = "sans-serif";

/// Colours that any kind of colour vision can tell apart (Okabe & Ito 2008).
const COLOURS: [RGBColor; 7] = [
    RGBColor(0, 114, 178),
    RGBColor(213, 94, 0),
    RGBColor(0, 158, 115),
    RGBColor(204, 121, 167),
    RGBColor(230, 159, 0),
    RGBColor(86, 180, 233),
    RGBColor(0, 0, 0),
];

/// One pair of axes with what is drawn between them.
#[derive(Clone, Debug)]
pub struct Panel {
    /// Above the axes.
    pub title: String,
    /// Horizontal axis.
    pub x: Axis,
    /// Vertical axis.
    pub y: Axis,
    /// Where the legend hides nothing.
    pub legend: Legend,
    /// What is drawn, first to last.
    pub series: Vec<Series>,
}

/// A range of values with its label.
#[derive(Clone, Debug)]
pub struct Axis {
    label: String,
    low: f64,
    high: f64,
    logarithmic: bool,
}

impl Axis {
    /// A linear axis.
    pub fn linear(label: &str, low: f64, high: f64) -> Axis {
        Axis { label: label.into(), low, high, logarithmic: false }
    }

    /// A logarithmic axis; both ends are positive.
    pub fn log(label: &str, low: f64, high: f64) -> Axis {
        Axis { label: label.into(), low, high, logarithmic: true }
    }

    /// A linear vertical axis with room for the series.
    pub fn around(label: &str, series: &[Series]) -> Axis {
        let (low, high) = extent(series);
        if low > high {
            // There is no finite value.
            return Axis::linear(label, 0.0, 1.0);
        }
        let margin = 0.08 * (high - low).max(1e-9);
        Axis::linear(label, low - margin, high + margin)
    }

    /// A logarithmic vertical axis with room for the series, whose values are positive; a linear one if they
    /// span too little for more than one tick.
    pub fn log_around(label: &str, series: &[Series]) -> Axis {
        let (low, high) = extent(series);
        if low > high || high < 4.0 * low {
            return Axis::around(label, series);
        }
        Axis::log(label, low / 1.3, high * 1.3)
    }
}

fn extent(series: &[Series]) -> (f64, f64) {
    let values = series.iter().flat_map(|s| {
        s.points.iter().enumerate().flat_map(|(i, &(_, y))| {
            let bar = s.bars.get(i).copied().unwrap_or(0.0);
            [y - bar, y + bar]
        })
    });
    values
        .filter(|v| v.is_finite())
        .fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), v| (low.min(v), high.max(v)))
}

/// Places for a legend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Legend {
    /// In the upper right corner.
    UpperRight,
    /// At the right, half way up.
    MiddleRight,
}

/// How points are drawn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mark {
    /// Discs.
    Points,
    /// A line through them.
    Line,
    /// A dashed line through them.
    Dashes,
    /// A line with discs.
    LinePoints,
}

/// Points that belong together.
#[derive(Clone, Debug)]
pub struct Series {
    label: String,
    mark: Mark,
    colour: usize,
    points: Vec<(f64, f64)>,
    bars: Vec<f64>,
}

impl Series {
    /// Points in the colour of that number; without a label they are not in the legend.
    pub fn new(label: &str, mark: Mark, colour: usize, points: Vec<(f64, f64)>) -> Series {
        Series { label: label.into(), mark, colour, points, bars: Vec::new() }
    }

    /// With error bars of these half lengths.
    pub fn with_bars(mut self, bars: Vec<f64>) -> Series {
        self.bars = bars;
        self
    }
}

/// Draws panels beside one another.
///
/// # Errors
/// If the file cannot be written.
pub fn plot(path: &Path, panels: &[Panel]) -> Result<()> {
    let size = (PANEL.0 * panels.len() as u32, PANEL.1);
    draw(path, size, |area| {
        for (part, panel) in area.split_evenly((1, panels.len())).iter().zip(panels) {
            let mut builder = ChartBuilder::on(part);
            builder
                .caption(&panel.title, (FONT, 17))
                .margin(12)
                .margin_right(24)
                .x_label_area_size(44)
                .y_label_area_size(66);
            let (x, y) = (panel.x.low..panel.x.high, panel.y.low..panel.y.high);
            match (panel.x.logarithmic, panel.y.logarithmic) {
                (false, false) => fill(builder.build_cartesian_2d(x, y).map_err(plain)?, panel)?,
                (true, false) => fill(builder.build_cartesian_2d(Log::new(x), y).map_err(plain)?, panel)?,
                (false, true) => fill(builder.build_cartesian_2d(x, Log::new(y)).map_err(plain)?, panel)?,
                (true, true) => {
                    fill(builder.build_cartesian_2d(Log::new(x), Log::new(y)).map_err(plain)?, panel)?;
                }
            }
        }
        Ok(())
    })
}

/// Pictures on a contact sheet are enlarged this many times.
const ZOOM: u32 = 4;
const CAPTION: u32 = 20;
const GAP: u32 = 6;

/// Draws pictures `[3,H,W]`, all of one size, in rows, each below its caption. Values beyond [0, 1] are clipped.
///
/// # Errors
/// If the file cannot be written.
pub fn sheet(path: &Path, rows: &[Vec<(String, Tensor)>]) -> Result<()> {
    let Some((_, first)) = rows.iter().flatten().next() else { return Ok(()) };
    let (height, width) = (first.size()[1] as u32 * ZOOM, first.size()[2] as u32 * ZOOM);
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0) as u32;
    let captions = rows.iter().flatten().any(|(caption, _)| !caption.is_empty());
    let caption = if captions { CAPTION } else { 0 };
    let size = (GAP + columns * (width + GAP), GAP + rows.len() as u32 * (height + caption + GAP));
    draw(path, size, |area| {
        for (r, row) in rows.iter().enumerate() {
            for (c, (text, picture)) in row.iter().enumerate() {
                let left = GAP + c as u32 * (width + GAP);
                let top = GAP + r as u32 * (height + caption + GAP);
                let text = Text::new(text.as_str(), (left as i32, top as i32 + 2), (FONT, 12));
                area.draw(&text).map_err(plain)?;
                let bytes = (picture.clamp(0.0, 1.0) * 255.0).round().to_kind(Kind::Uint8).permute([1, 2, 0]);
                let bytes = Vec::<u8>::try_from(bytes.to_device(Device::Cpu).contiguous().flatten(0, -1))?;
                let side = (width / ZOOM) as usize;
                for (at, rgb) in bytes.chunks_exact(3).enumerate() {
                    let x = (left + (at % side) as u32 * ZOOM) as i32;
                    let y = (top + caption + (at / side) as u32 * ZOOM) as i32;
                    // plotters leaves out the far edges of a filled rectangle.
                    let corners = [(x, y), (x + ZOOM as i32, y + ZOOM as i32)];
                    let colour = RGBColor(rgb[0], rgb[1], rgb[2]).filled();
                    area.draw(&Rectangle::new(corners, colour)).map_err(plain)?;
                }
            }
        }
        Ok(())
    })
}

type Area<'a> = DrawingArea<BitMapBackend<'a>, Shift>;

fn fill<'a, 'b: 'a, X, Y>(
    mut chart: ChartContext<'a, BitMapBackend<'b>, Cartesian2d<X, Y>>,
    panel: &Panel,
) -> Result<()>
where
    X: Ranged<ValueType = f64> + ValueFormatter<f64>,
    Y: Ranged<ValueType = f64> + ValueFormatter<f64>,
{
    // Ticks of logarithmic axes have one digit.
    let tick = |value: &f64| match value.abs() {
        magnitude if magnitude > 0.0 && !(1e-3..1e5).contains(&magnitude) => format!("{value:.0e}"),
        _ => number(*value),
    };
    chart
        .configure_mesh()
        .light_line_style(TRANSPARENT)
        .bold_line_style(BLACK.mix(0.12))
        .label_style((FONT, 13))
        .axis_desc_style((FONT, 14))
        .x_desc(&panel.x.label)
        .y_desc(&panel.y.label)
        .x_label_formatter(&tick)
        .y_label_formatter(&tick)
        .draw()
        .map_err(plain)?;
    for series in &panel.series {
        let colour = COLOURS[series.colour % COLOURS.len()];
        let stroke = colour.stroke_width(2);
        let points = || series.points.iter().copied().filter(|p| p.0.is_finite() && p.1.is_finite());
        for (&(x, y), bar) in series.points.iter().zip(&series.bars) {
            let ends = vec![(x, y - bar), (x, y + bar)];
            chart.draw_series(LineSeries::new(ends, colour)).map_err(plain)?;
        }
        if series.mark == Mark::Dashes {
            let line = DashedLineSeries::new(points(), 6, 5, stroke);
            label(chart.draw_series(line).map_err(plain)?, series, colour);
        }
        if matches!(series.mark, Mark::Line | Mark::LinePoints) {
            let line = chart.draw_series(LineSeries::new(points(), stroke)).map_err(plain)?;
            if series.mark == Mark::Line {
                label(line, series, colour);
            }
        }
        if matches!(series.mark, Mark::Points | Mark::LinePoints) {
            let discs = points().map(|p| Circle::new(p, 4, colour.filled()));
            label(chart.draw_series(discs).map_err(plain)?, series, colour);
        }
    }
    if panel.series.iter().any(|s| !s.label.is_empty()) {
        chart
            .configure_series_labels()
            .position(match panel.legend {
                Legend::UpperRight => SeriesLabelPosition::UpperRight,
                Legend::MiddleRight => SeriesLabelPosition::MiddleRight,
            })
            .background_style(WHITE.mix(0.85))
            .border_style(BLACK.mix(0.2))
            .label_font((FONT, 13))
            .draw()
            .map_err(plain)?;
    }
    Ok(())
}

fn label<'a, 'b: 'a>(
    annotation: &mut plotters::chart::SeriesAnno<'a, BitMapBackend<'b>>,
    series: &Series,
    colour: RGBColor,
) {
    if !series.label.is_empty() {
        let disc = series.mark != Mark::Line && series.mark != Mark::Dashes;
        let width = if series.mark == Mark::Dashes { 1 } else { 2 };
        annotation.label(&series.label).legend(move |(x, y)| {
            let radius = if disc { 4 } else { 0 };
            let line = if disc { vec![] } else { vec![(x, y), (x + 16, y)] };
            EmptyElement::at((0, 0))
                + PathElement::new(line, colour.stroke_width(width))
                + Circle::new((x + 8, y), radius, colour.filled())
        });
    }
}

/// A logarithmic axis with ticks at 1, 2 and 5 times the powers of ten.
struct Log {
    low: f64,
    high: f64,
}

impl Log {
    fn new(range: std::ops::Range<f64>) -> Log {
        Log { low: range.start, high: range.end }
    }
}

impl Ranged for Log {
    type FormatOption = DefaultFormatting;
    type ValueType = f64;

    fn map(&self, value: &f64, limit: (i32, i32)) -> i32 {
        let fraction = (value.max(1e-300) / self.low).ln() / (self.high / self.low).ln();
        limit.0 + (fraction * f64::from(limit.1 - limit.0)).round() as i32
    }

    fn key_points<Hint: KeyPointHint>(&self, _: Hint) -> Vec<f64> {
        let decades = (self.high / self.low).log10();
        // Few decades have room for ticks between them.
        let digits: &[f64] = if decades < 2.5 { &[1.0, 2.0, 5.0] } else { &[1.0] };
        let exponents = self.low.log10().floor() as i32..=self.high.log10().ceil() as i32;
        let ticks = exponents.flat_map(|e| digits.iter().map(move |d| d * 10f64.powi(e)));
        ticks.filter(|t| (self.low..=self.high).contains(t)).collect()
    }

    fn range(&self) -> std::ops::Range<f64> {
        self.low..self.high
    }
}

/// Largest picture that is drawn.
const MAX_BYTES: usize = 1 << 30;

fn plain(error: impl std::fmt::Display) -> anyhow::Error {
    anyhow!("a plot cannot be drawn: {error}")
}

fn draw(path: &Path, size: (u32, u32), paint: impl FnOnce(&Area) -> Result<()>) -> Result<()> {
    static FONTS: OnceLock<bool> = OnceLock::new();
    let registered = *FONTS
        .get_or_init(|| register_font(FONT, FontStyle::Normal, epaint_default_fonts::HACK_REGULAR).is_ok());
    anyhow::ensure!(registered, "the font cannot be read");
    let bytes = 3 * size.0 as usize * size.1 as usize;
    anyhow::ensure!(bytes <= MAX_BYTES, "{}: {}×{} pixels are too many", path.display(), size.0, size.1);
    let mut pixels = vec![255; bytes];
    {
        let area = BitMapBackend::with_buffer(&mut pixels, size).into_drawing_area();
        paint(&area)?;
        area.present().map_err(plain)?;
    }
    let mut png = Vec::new();
    PngEncoder::new(&mut png)
        .write_image(&pixels, size.0, size.1, image::ExtendedColorType::Rgb8)
        .with_context(|| path.display().to_string())?;
    staged::write_file(path, &png)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plot_has_its_size_its_colours_and_text() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("plot.png");
        let series =
            vec![Series::new("a", Mark::LinePoints, 1, vec![(1.0, 0.1), (10.0, 1.0), (100.0, 10.0)])];
        let panel = |title: &str| Panel {
            title: title.into(),
            x: Axis::log("x", 1.0, 100.0),
            y: Axis::log_around("y", &series),
            legend: Legend::UpperRight,
            series: series.clone(),
        };
        plot(&path, &[panel("title"), panel("")]).unwrap();
        let image = image::open(&path).unwrap().into_rgb8();
        assert_eq!(image.dimensions(), (2 * PANEL.0, PANEL.1));
        assert!(image.pixels().any(|p| p.0 == [213, 94, 0]));
        // The title is the only ink above the axes, and only the left panel has one.
        let ink =
            |from: u32| (from..from + PANEL.0).any(|x| (13..30).any(|y| image.get_pixel(x, y).0[0] < 100));
        assert!(ink(0) && !ink(PANEL.0));
    }

    /// plotters looks for ever for the ticks of an axis without end.
    #[test]
    fn a_plot_of_no_value_has_axes() {
        let dir = tempfile::tempdir().unwrap();
        for points in [vec![], vec![(1.0, f64::NAN)]] {
            let series = vec![Series::new("a", Mark::LinePoints, 1, points)];
            for y in [Axis::around("y", &series), Axis::log_around("y", &series)] {
                let (title, legend) = ("title".into(), Legend::UpperRight);
                let panel =
                    Panel { title, x: Axis::linear("x", 0.0, 1.0), y, legend, series: series.clone() };
                plot(&dir.path().join("plot.png"), &[panel]).unwrap();
            }
        }
    }

    #[test]
    fn a_sheet_enlarges_its_pictures() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("sheet.png");
        let picture = Tensor::from_slice(&[1.0f32, 0.0, 0.5, 0.0, 2.0, -1.0]).view([3, 1, 2]);
        sheet(&path, &[vec![(String::new(), picture)]]).unwrap();
        let image = image::open(&path).unwrap().into_rgb8();
        assert_eq!(image.dimensions(), (2 * GAP + 2 * ZOOM, 2 * GAP + ZOOM));
        let pixel = |x: u32| image.get_pixel(GAP + x, GAP + ZOOM - 1).0;
        assert_eq!([pixel(0), pixel(ZOOM - 1), pixel(ZOOM)], [[255, 128, 255], [255, 128, 255], [0, 0, 0]]);
    }
}
