//! How figures grow from small worlds to large ones, as a picture.

use std::fmt::Write;

use super::report::YearReport;

/// Width and height of one curve's field, and the room for what stands beside it.
const FIELD: (f64, f64) = (300.0, 180.0);
const MARGIN: (f64, f64) = (70.0, 50.0);

type Curve = (&'static str, fn(&YearReport) -> f64);

/// What is drawn, each over the number of peers.
const CURVES: [Curve; 6] = [
    ("peers asked in a lookup", YearReport::asked_per_lookup),
    ("rounds of a lookup", YearReport::rounds_per_lookup),
    ("messages of an owner a day, without greetings", YearReport::messages_per_owner_day),
    ("repair: bytes for each byte stored and year", YearReport::repair_per_byte_year),
    ("repair: by the least there is", YearReport::repair_ratio),
    ("readable in the worst hour, per cent", |report| report.worst_hour() * 100.0),
];

/// An SVG of how some figures grow with the number of peers, which is drawn by its logarithm.
pub fn plot(reports: &[YearReport]) -> String {
    let (width, height) = (2.0 * (FIELD.0 + MARGIN.0) + 40.0, 3.0 * (FIELD.1 + MARGIN.1) + 20.0);
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" font-family=\"sans-serif\" font-size=\"11\">\n\
         <rect width=\"{width}\" height=\"{height}\" fill=\"white\"/>\n"
    );
    for (at, curve) in CURVES.iter().enumerate() {
        let left = MARGIN.0 + (at % 2) as f64 * (FIELD.0 + MARGIN.0);
        let top = 30.0 + (at / 2) as f64 * (FIELD.1 + MARGIN.1);
        draw(&mut svg, reports, curve, (left, top));
    }
    svg.push_str("</svg>\n");
    svg
}

fn draw(svg: &mut String, reports: &[YearReport], (name, of): &Curve, (left, top): (f64, f64)) {
    let (wide, high) = FIELD;
    let peers = |report: &YearReport| (report.size.0.max(1) as f64).log10();
    let first = reports.iter().map(peers).fold(f64::INFINITY, f64::min);
    let last = reports.iter().map(peers).fold(first + 0.1, f64::max);
    let most = reports.iter().map(of).fold(1e-9, f64::max) * 1.1;
    let x = |report: &YearReport| left + (peers(report) - first) / (last - first) * wide;
    let y = |value: f64| top + high - value / most * high;
    // Writing into a string does not fail.
    let _ = writeln!(svg, "<text x=\"{left}\" y=\"{}\" font-weight=\"bold\">{name}</text>", top - 8.0);
    let _ = writeln!(
        svg,
        "<rect x=\"{left}\" y=\"{top}\" width=\"{wide}\" height=\"{high}\" fill=\"none\" stroke=\"#888\"/>"
    );
    let mut points = String::new();
    for report in reports {
        let (x, value) = (x(report), of(report));
        let y = y(value);
        let _ = write!(points, "{x:.1},{y:.1} ");
        let _ = writeln!(svg, "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"3\" fill=\"#25c\"/>");
        let _ = writeln!(svg, "<text x=\"{x:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{value:.3}</text>", y - 6.0);
        let (size, below) = (report.size.0, top + high + 14.0);
        let _ = writeln!(svg, "<text x=\"{x:.1}\" y=\"{below}\" text-anchor=\"middle\">{size}</text>");
    }
    let _ = writeln!(svg, "<polyline points=\"{}\" fill=\"none\" stroke=\"#25c\"/>", points.trim_end());
    let _ = writeln!(svg, "<text x=\"{:.1}\" y=\"{}\" text-anchor=\"end\">0</text>", left - 6.0, top + high);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_size_has_a_point_in_every_field() {
        let report = |peers| YearReport { size: (peers, 1, 365), lookups: [10, 30, 200, 5], ..YearReport::default() };
        let svg = plot(&[report(100), report(1_000), report(10_000)]);
        assert_eq!(svg.matches("<circle").count(), 3 * CURVES.len());
        assert!(svg.contains(">10000<") && svg.contains(">20.000<") && svg.starts_with("<svg") && !svg.contains("NaN"));
    }
}
