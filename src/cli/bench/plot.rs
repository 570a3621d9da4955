//! Plots of a report.

use std::path::Path;

use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use super::Report;

/// A plot could not be drawn.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(super) struct PlotError(String);

impl PlotError {
    fn new(error: impl std::fmt::Display) -> Self {
        Self(error.to_string())
    }
}

const WIDTH: u32 = 900;
const ROW: u32 = 34;
const MARGINS: u32 = 90;
const NAMES: u32 = 250;
const COLOURS: [RGBColor; 3] = [RGBColor(46, 98, 153), RGBColor(226, 149, 48), RGBColor(168, 50, 50)];

/// Megabytes a second of each point, and the link's.
pub(super) fn throughput(path: &Path, report: &Report) -> Result<(), PlotError> {
    let most = report.link.bytes_per_second.map(|bytes| bytes / 1e6);
    let bars: Vec<[f64; 1]> = report
        .points
        .iter()
        .map(|line| [line.measured.bytes_per_second / 1e6])
        .collect();
    let title = match most {
        Some(most) => format!("{}: MB/s; the line is the link, {most:.0} MB/s", report.device),
        None => format!("{}: MB/s", report.device),
    };
    draw(path, report, &title, &bars, most)
}

/// Latency of each point: 50, 99 and 99.9 percent.
pub(super) fn latency(path: &Path, report: &Report) -> Result<(), PlotError> {
    let bars: Vec<[f64; 3]> = report
        .points
        .iter()
        .map(|line| &line.measured.latency_us)
        .map(|latency| [latency.half, latency.most, latency.nearly_all])
        .collect();
    let title = format!("{}: microseconds, 50 / 99 / 99.9 % of requests", report.device);
    draw(path, report, &title, &bars, None)
}

/// A row for each point, in which a bar for each figure.
fn draw<const N: usize>(
    path: &Path,
    report: &Report,
    title: &str,
    bars: &[[f64; N]],
    mark: Option<f64>,
) -> Result<(), PlotError> {
    let rows = u32::try_from(bars.len()).unwrap_or(u32::MAX);
    let area = SVGBackend::new(path, (WIDTH, rows * ROW + MARGINS)).into_drawing_area();
    area.fill(&WHITE).map_err(PlotError::new)?;
    let most = bars.iter().flatten().copied().chain(mark).fold(1.0, f64::max) * 1.05;
    let mut chart = ChartBuilder::on(&area)
        .caption(title, ("sans-serif", 18))
        .margin(10)
        .x_label_area_size(35)
        .y_label_area_size(NAMES)
        .build_cartesian_2d(0.0..most, 0.0..f64::from(rows))
        .map_err(PlotError::new)?;
    chart
        .configure_mesh()
        .disable_y_mesh()
        .disable_y_axis()
        .y_labels(0)
        .max_light_lines(0)
        .x_label_formatter(&|value| format!("{value:.0}"))
        .label_style(("sans-serif", 14))
        .draw()
        .map_err(PlotError::new)?;
    let (left, top) = chart.plotting_area().get_base_pixel();
    let (width, height) = chart.plotting_area().dim_in_pixel();
    let per_row = f64::from(height) / f64::from(rows.max(1));
    let thickness = per_row * 0.8 / N as f64;
    let x = |value: f64| left + (f64::from(width) * value / most) as i32;
    let names = ("sans-serif", 14)
        .into_text_style(&area)
        .pos(Pos::new(HPos::Right, VPos::Center));
    for (row, (figures, line)) in bars.iter().zip(&report.points).enumerate() {
        let middle = f64::from(top) + per_row * (row as f64 + 0.5);
        let name = Text::new(line.point, (left - 8, middle as i32), names.clone());
        area.draw(&name).map_err(PlotError::new)?;
        for (number, figure) in figures.iter().enumerate() {
            let y = f64::from(top) + per_row * (row as f64 + 0.1) + thickness * number as f64;
            let corners = [(left, y as i32), (x(*figure), (y + thickness) as i32)];
            let colour = COLOURS[number % COLOURS.len()].filled();
            area.draw(&Rectangle::new(corners, colour)).map_err(PlotError::new)?;
        }
    }
    if let Some(mark) = mark {
        let bottom = top + i32::try_from(height).unwrap_or(i32::MAX - top);
        let line = PathElement::new([(x(mark), top), (x(mark), bottom)], BLACK.stroke_width(2));
        area.draw(&line).map_err(PlotError::new)?;
    }
    area.present().map_err(PlotError::new)
}
