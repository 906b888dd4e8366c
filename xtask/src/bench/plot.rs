//! Latency against load, as SVG: one line a server, one point a queue depth.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Result, anyhow, ensure};
use plotters::prelude::*;

use super::report::Row;

/// Depth, IOPS, p50 and p99.
type Point = (usize, f64, f64, f64);

/// Draws what the lean client saw of the workloads `PATTERN-dDEPTH`, a row of two charts for each pattern.
pub(crate) fn draw(rows: &[Row], path: &Path) -> Result<()> {
    let mut patterns: BTreeMap<&str, BTreeMap<&str, Vec<Point>>> = BTreeMap::new();
    for row in rows.iter().filter(|row| row.client == "lean") {
        let Some((pattern, depth)) = row.workload.rsplit_once("-d") else { continue };
        let Ok(depth) = depth.parse() else { continue };
        let points = patterns.entry(pattern).or_default().entry(&row.server).or_default();
        points.push((depth, row.iops, row.p50_us, row.p99_us));
    }
    // One depth is no line.
    patterns.retain(|_, servers| servers.values().any(|points| points.len() > 1));
    ensure!(!patterns.is_empty(), "no workload was measured at several depths");
    let area = SVGBackend::new(path, (1200, 420 * patterns.len() as u32)).into_drawing_area();
    area.fill(&WHITE).map_err(failed)?;
    let lines = area.split_evenly((patterns.len(), 1));
    for ((pattern, servers), row) in patterns.iter_mut().zip(lines) {
        servers.values_mut().for_each(|points| points.sort_by_key(|point| point.0));
        let halves = row.split_evenly((1, 2));
        for (half, percentile) in halves.iter().zip(["p50", "p99"]) {
            chart(half, pattern, percentile, servers)?;
        }
    }
    area.present().map_err(failed)
}

type Area<'a> = DrawingArea<SVGBackend<'a>, plotters::coord::Shift>;

fn chart(
    area: &Area<'_>,
    pattern: &str,
    percentile: &str,
    servers: &BTreeMap<&str, Vec<Point>>,
) -> Result<()> {
    let latency = |point: &Point| if percentile == "p50" { point.2 } else { point.3 };
    let all = || servers.values().flatten();
    let most = all().map(|p| p.1).fold(1.0, f64::max) * 1.05;
    let low = all().map(latency).fold(f64::MAX, f64::min).max(0.1) / 1.5;
    let high = all().map(latency).fold(1.0, f64::max) * 1.5;
    let mut chart = ChartBuilder::on(area)
        .caption(format!("{pattern}: {percentile} by load"), ("sans-serif", 18))
        .margin(12)
        .x_label_area_size(36)
        .y_label_area_size(64)
        .build_cartesian_2d(0.0..most, (low..high).log_scale())
        .map_err(failed)?;
    let thousands = |n: &f64| format!("{:.0}k", n / 1e3);
    let mut mesh = chart.configure_mesh();
    mesh.x_desc("IOPS")
        .y_desc("µs")
        .x_label_formatter(&thousands)
        .light_line_style(WHITE)
        .draw()
        .map_err(failed)?;
    for (index, (server, points)) in servers.iter().enumerate() {
        let color = Palette99::pick(index).to_rgba();
        let line = points.iter().map(|p| (p.1, latency(p)));
        chart
            .draw_series(LineSeries::new(line.clone(), color.stroke_width(2)).point_size(3))
            .map_err(failed)?
            .label(*server)
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 16, y)], color.stroke_width(2)));
        let depths =
            points.iter().map(|p| Text::new(format!("{}", p.0), (p.1, latency(p)), ("sans-serif", 11)));
        chart.draw_series(depths).map_err(failed)?;
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::UpperLeft)
        .background_style(WHITE.mix(0.8))
        .border_style(BLACK)
        .draw()
        .map_err(failed)
}

fn failed(error: impl std::fmt::Display) -> anyhow::Error {
    anyhow!("the chart cannot be drawn: {error}")
}
