//! The hit ratios as a picture: a group of dots for each trace and size, a colour for each contender.

use std::fmt::Write;

use super::HitRatios;

const ROW: usize = 18;
const LEFT: usize = 190;
const WIDE: usize = 700;
const COLOURS: [&str; 12] = [
    "#d62728", "#1f77b4", "#2ca02c", "#9467bd", "#8c564b", "#e377c2", "#7f7f7f", "#bcbd22", "#17becf",
    "#ff7f0e", "#393b79", "#637939",
];

/// A drawing that any browser shows.
pub(super) fn svg(ratios: &HitRatios) -> String {
    let (top, width) = (20 + ROW * ratios.contenders.len().div_ceil(4), LEFT + WIDE + 30);
    let height = top + ROW * ratios.rows.len() + 30;
    let mut out = String::new();
    let mut line = |text: std::fmt::Arguments<'_>| {
        // Writing to a string cannot fail.
        let _ = out.write_fmt(text).and_then(|()| out.write_char('\n'));
    };
    line(format_args!(
        r##"<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" font-family="sans-serif" font-size="12">"##
    ));
    line(format_args!(r##"<rect width="{width}" height="{height}" fill="#fff"/>"##));
    for (index, name) in ratios.contenders.iter().enumerate() {
        let (x, y) = (20 + index % 4 * 220, 16 + index / 4 * ROW);
        line(format_args!(r##"<circle cx="{x}" cy="{}" r="4" fill="{}"/>"##, y - 4, colour(index)));
        line(format_args!(r##"<text x="{}" y="{y}">{name}</text>"##, x + 10));
    }
    for percent in (0..=100).step_by(10) {
        let x = place(f64::from(percent) / 100.0);
        line(format_args!(
            r##"<line x1="{x}" x2="{x}" y1="{top}" y2="{}" stroke="#ddd"/><text x="{x}" y="{}" text-anchor="middle">{percent} %</text>"##,
            height - 30,
            height - 12
        ));
    }
    for (index, row) in ratios.rows.iter().enumerate() {
        let y = top + ROW * index + ROW / 2;
        line(format_args!(
            r##"<text x="{}" y="{}" text-anchor="end">{}</text>"##,
            LEFT - 10,
            y + 4,
            row.cell
        ));
        line(format_args!(r##"<line x1="{LEFT}" x2="{}" y1="{y}" y2="{y}" stroke="#eee"/>"##, LEFT + WIDE));
        // The first are drawn last, so that they are on top.
        for (column, ratio) in row.ratios.iter().enumerate().rev() {
            line(format_args!(
                r##"<circle cx="{:.1}" cy="{y}" r="4" fill="{}" fill-opacity="0.8"/>"##,
                place(*ratio),
                colour(column)
            ));
        }
    }
    line(format_args!("</svg>"));
    out
}

fn place(ratio: f64) -> f64 {
    LEFT as f64 + WIDE as f64 * ratio
}

fn colour(index: usize) -> &'static str {
    COLOURS[index % COLOURS.len()]
}
