//! Figures: the same drawing as SVG, for the report, and as PNG.

use std::io::Cursor;
use std::ops::Range;
use std::sync::Once;

use plotters::coord::Shift;
use plotters::prelude::*;
use plotters::style::register_font;
use plotters::style::text_anchor::{HPos, Pos, VPos};

/// Width and height in pixels, as SVG; a PNG has [`PNG_SCALE`] times as many.
const SIZE: (u32, u32) = (560, 330);
const PNG_SCALE: u32 = 2;

/// Okabe and Ito's colours, which colour-blind readers can tell apart, in an order of contrast.
const PALETTE: [RGBColor; 7] = [
    RGBColor(0x00, 0x72, 0xb2),
    RGBColor(0xd5, 0x5e, 0x00),
    RGBColor(0x00, 0x9e, 0x73),
    RGBColor(0xcc, 0x79, 0xa7),
    RGBColor(0xe6, 0x9f, 0x00),
    RGBColor(0x56, 0xb4, 0xe9),
    RGBColor(0x80, 0x80, 0x80),
];
/// Readable on light and on dark; the report gives text its own colour.
const GREY: RGBColor = RGBColor(0x80, 0x80, 0x80);
const INK: RGBColor = RGBColor(0x40, 0x40, 0x40);
const FONT: &str = "sans-serif";
/// Characters of a label that are shown.
const LONGEST_LABEL: usize = 40;

/// A figure.
#[derive(Clone, Debug)]
pub struct Figure {
    /// Names its file.
    pub name: String,
    /// What it shows.
    pub title: String,
    /// What is along the horizontal axis, with its unit.
    pub x: String,
    /// What is along the vertical axis, with its unit.
    pub y: String,
    /// The data.
    pub content: Content,
}

/// What a figure shows.
#[derive(Clone, Debug)]
pub enum Content {
    /// Curves.
    Lines(Vec<Line>),
    /// Values with intervals, a row each.
    Intervals {
        /// The values.
        rows: Vec<Row>,
        /// Whether 0 is shown.
        around_zero: bool,
    },
    /// Numbers by row and column.
    Grid(Vec<Vec<f64>>),
}

/// A curve.
#[derive(Clone, Debug, Default)]
pub struct Line {
    /// What it is of.
    pub label: String,
    /// Its place in the palette.
    pub colour: usize,
    /// `(x, y)`, by x; what is not finite is left out.
    pub points: Vec<(f64, f64)>,
    /// `(x, low, high)`, shaded.
    pub band: Vec<(f64, f64, f64)>,
    /// Whether the area under it is shaded.
    pub area: bool,
}

/// A value with its interval.
#[derive(Clone, Debug)]
pub struct Row {
    /// What it is of.
    pub label: String,
    /// Its place in the palette.
    pub colour: usize,
    /// The value.
    pub value: f64,
    /// The interval.
    pub interval: (f64, f64),
}

/// A figure that could not be drawn.
#[derive(Debug, thiserror::Error)]
#[error("the figure '{name}' cannot be drawn: {reason}")]
pub struct FigureError {
    name: String,
    reason: String,
}

type Drawn<DB> = Result<(), DrawingAreaErrorKind<<DB as DrawingBackend>::ErrorType>>;

impl Figure {
    /// As SVG on a transparent ground, sized by its surroundings. Text has no style of its own but a colour attribute.
    ///
    /// # Errors
    /// Where the drawing fails.
    pub fn svg(&self) -> Result<String, FigureError> {
        use_font();
        let mut text = String::new();
        let root = SVGBackend::with_string(&mut text, SIZE).into_drawing_area();
        self.draw(&root, 1.0).and_then(|()| root.present()).map_err(|error| self.error(error))?;
        drop(root);
        let open = format!("<svg width=\"{}\" height=\"{}\" ", SIZE.0, SIZE.1);
        Ok(text.replacen(&open, "<svg role=\"img\" ", 1))
    }

    /// As PNG on white.
    ///
    /// # Errors
    /// Where the drawing fails.
    pub fn png(&self) -> Result<Vec<u8>, FigureError> {
        use_font();
        let size = (SIZE.0 * PNG_SCALE, SIZE.1 * PNG_SCALE);
        let mut pixels = vec![0; (size.0 * size.1 * 3) as usize];
        let root = BitMapBackend::with_buffer(&mut pixels, size).into_drawing_area();
        let drawn = root.fill(&WHITE).and_then(|()| self.draw(&root, f64::from(PNG_SCALE)));
        drawn.and_then(|()| root.present()).map_err(|error| self.error(error))?;
        drop(root);
        let mut file = Cursor::new(Vec::new());
        let mut encoder = png::Encoder::new(&mut file, size.0, size.1);
        encoder.set_color(png::ColorType::Rgb);
        let written = encoder.write_header().and_then(|mut writer| writer.write_image_data(&pixels));
        written.map_err(|error| self.error(error))?;
        Ok(file.into_inner())
    }

    fn error(&self, reason: impl ToString) -> FigureError {
        FigureError { name: self.name.clone(), reason: reason.to_string() }
    }

    fn draw<DB: DrawingBackend>(&self, root: &DrawingArea<DB, Shift>, scale: f64) -> Drawn<DB> {
        let pen = Pen { scale };
        let (head, body) = root.split_vertically(pen.pixels(34));
        head.draw_text(&shown(&self.title), &pen.text(15, INK), (pen.pixels(12), pen.pixels(12)))?;
        match &self.content {
            Content::Lines(lines) => self.lines(&body, &pen, lines),
            Content::Intervals { rows, around_zero } => self.intervals(&body, &pen, rows, *around_zero),
            Content::Grid(values) => self.grid(&body, &pen, values),
        }
    }

    fn lines<DB: DrawingBackend>(&self, body: &DrawingArea<DB, Shift>, pen: &Pen, lines: &[Line]) -> Drawn<DB> {
        let body = if lines.len() > 1 { pen.legend(body, lines)? } else { body.clone() };
        let finite = |&(x, y): &(f64, f64)| x.is_finite() && y.is_finite();
        let of_line = |line: &Line| {
            let band = line.band.iter().flat_map(|&(x, low, high)| [(x, low), (x, high)]);
            let ground = line.points.first().filter(|_| line.area).map(|&(x, _)| (x, 0.0));
            line.points.iter().copied().chain(band).chain(ground).collect::<Vec<_>>()
        };
        let all: Vec<(f64, f64)> = lines.iter().flat_map(of_line).filter(finite).collect();
        let (xs, ys) = (range(all.iter().map(|p| p.0), 0.0), range(all.iter().map(|p| p.1), 0.04));
        let mut chart = pen.chart(&body, 58).build_cartesian_2d(xs, ys)?;
        pen.mesh(&mut chart.configure_mesh(), &self.x, &self.y).draw()?;
        for line in lines {
            let colour = PALETTE[line.colour % PALETTE.len()];
            let band = line.band.iter().filter(|(_, low, high)| low.is_finite() && high.is_finite());
            let (above, below): (Vec<_>, Vec<_>) = band.map(|&(x, low, high)| ((x, high), (x, low))).unzip();
            let outline: Vec<(f64, f64)> = above.into_iter().chain(below.into_iter().rev()).collect();
            chart.draw_series([Polygon::new(outline, colour.mix(0.18))])?;
            let points: Vec<(f64, f64)> = line.points.iter().copied().filter(finite).collect();
            if line.area {
                chart.draw_series(AreaSeries::new(points.iter().copied(), 0.0, colour.mix(0.18)))?;
            }
            if let [point] = points[..] {
                chart.draw_series([Circle::new(point, pen.pixels(3), colour.filled())])?;
            }
            // Dashes let a line be seen that lies under another.
            match line.colour {
                0 => chart.draw_series(LineSeries::new(points, pen.stroke(colour, 2))).map(drop)?,
                _ => {
                    let [dash, gap] = [7, 4].map(|length| pen.pixels(length));
                    chart.draw_series(DashedLineSeries::new(points, dash, gap, pen.stroke(colour, 2))).map(drop)?;
                }
            }
        }
        Ok(())
    }

    fn intervals<DB: DrawingBackend>(
        &self,
        body: &DrawingArea<DB, Shift>,
        pen: &Pen,
        rows: &[Row],
        around_zero: bool,
    ) -> Drawn<DB> {
        let values = rows.iter().flat_map(|row| [row.value, row.interval.0, row.interval.1]);
        let values = values.chain(around_zero.then_some(0.0));
        let xs = range(values.filter(|value| value.is_finite()), 0.06);
        let count = rows.len() as f64;
        let left = pen.text(12, INK).pos(Pos::new(HPos::Right, VPos::Center));
        let wide = |row: &Row| body.estimate_text_size(&shown(&row.label), &left).map_or(0, |(width, _)| width as i32);
        let labels = rows.iter().map(wide).max().unwrap_or(0) + pen.pixels(20);
        let mut chart = pen.chart(body, 0).y_label_area_size(labels).build_cartesian_2d(xs, -0.5..count - 0.5)?;
        let mut mesh = chart.configure_mesh();
        pen.mesh(&mut mesh, &self.x, &self.y).disable_y_mesh().y_labels(0).draw()?;
        if around_zero {
            chart.draw_series([PathElement::new(vec![(0.0, -0.5), (0.0, count - 0.5)], pen.stroke(GREY, 1))])?;
        }
        for (place, row) in rows.iter().enumerate() {
            let (colour, y) = (PALETTE[row.colour % PALETTE.len()], count - 1.0 - place as f64);
            let whisker = vec![(row.interval.0, y), (row.interval.1, y)];
            chart.draw_series([PathElement::new(whisker, pen.stroke(colour, 2))])?;
            chart.draw_series([Circle::new((row.value, y), pen.pixels(4), colour.filled())])?;
            let (_, at) = chart.backend_coord(&(row.value, y));
            let (_, top) = body.get_base_pixel();
            body.draw_text(&shown(&row.label), &left, (labels - pen.pixels(8), at - top))?;
        }
        Ok(())
    }

    fn grid<DB: DrawingBackend>(&self, body: &DrawingArea<DB, Shift>, pen: &Pen, values: &[Vec<f64>]) -> Drawn<DB> {
        let rows = values.len() as f64;
        let columns = values.iter().map(Vec::len).max().unwrap_or(0) as f64;
        let most = values.iter().flatten().copied().filter(|value| value.is_finite()).fold(f64::MIN_POSITIVE, f64::max);
        let mut chart = pen.chart(body, 58).build_cartesian_2d(-0.5..columns - 0.5, -0.5..rows - 0.5)?;
        let mut mesh = chart.configure_mesh();
        let whole = |value: &f64| if value.fract() == 0.0 { format!("{}", value + 1.0) } else { String::new() };
        pen.mesh(&mut mesh, &self.x, &self.y)
            .disable_mesh()
            .x_label_formatter(&whole)
            .y_label_formatter(&whole)
            .draw()?;
        let centred = Pos::new(HPos::Center, VPos::Center);
        for (row, values) in values.iter().enumerate() {
            for (column, &value) in values.iter().enumerate() {
                let (x, y) = (column as f64, row as f64);
                let share = if value.is_finite() { (value / most).clamp(0.0, 1.0) } else { 0.0 };
                let cell = [(x - 0.5, y - 0.5), (x + 0.5, y + 0.5)];
                chart.draw_series([Rectangle::new(cell, PALETTE[0].mix(0.05 + 0.7 * share).filled())])?;
                let size = if columns > 12.0 { 8 } else { 11 };
                chart.draw_series([Text::new(tick(value), (x, y), pen.text(size, INK).pos(centred))])?;
            }
        }
        Ok(())
    }
}

/// Sizes at a scale.
struct Pen {
    scale: f64,
}

impl Pen {
    fn pixels(&self, size: i32) -> i32 {
        (f64::from(size) * self.scale).round() as i32
    }

    fn text(&self, size: i32, colour: RGBColor) -> TextStyle<'static> {
        (FONT, self.pixels(size)).into_font().color(&colour)
    }

    fn stroke(&self, colour: RGBColor, width: i32) -> ShapeStyle {
        colour.stroke_width(self.pixels(width) as u32)
    }

    fn chart<'a, 'b, DB: DrawingBackend>(
        &self,
        body: &'a DrawingArea<DB, Shift>,
        left: i32,
    ) -> ChartBuilder<'a, 'b, DB> {
        let mut chart = ChartBuilder::on(body);
        chart.margin_right(self.pixels(20)).margin_bottom(self.pixels(6));
        chart.x_label_area_size(self.pixels(40)).y_label_area_size(self.pixels(left));
        chart
    }

    fn mesh<'m, 'a, 'b, DB: DrawingBackend>(
        &self,
        mesh: &'m mut plotters::chart::MeshStyle<'a, 'b, Axis, Axis, DB>,
        x: &str,
        y: &str,
    ) -> &'m mut plotters::chart::MeshStyle<'a, 'b, Axis, Axis, DB> {
        mesh.x_desc(shown(x)).y_desc(shown(y)).x_labels(8).y_labels(6).max_light_lines(0);
        mesh.axis_style(GREY).bold_line_style(GREY.mix(0.2)).set_all_tick_mark_size(self.pixels(4));
        mesh.axis_desc_style(self.text(13, INK)).label_style(self.text(12, INK));
        mesh.x_label_formatter(&|value| tick(*value)).y_label_formatter(&|value| tick(*value))
    }

    /// Below the curves, in as many rows as it needs; what is left is for the curves.
    fn legend<DB: DrawingBackend>(
        &self,
        body: &DrawingArea<DB, Shift>,
        lines: &[Line],
    ) -> Result<DrawingArea<DB, Shift>, DrawingAreaErrorKind<DB::ErrorType>> {
        let (style, row_height, sample) = (self.text(12, INK), self.pixels(20), self.pixels(22));
        let (width, height) = body.dim_in_pixel();
        let (mut x, mut row, mut places) = (self.pixels(58), 0, Vec::new());
        for line in lines {
            let wide = sample + self.pixels(24) + body.estimate_text_size(&shown(&line.label), &style)?.0 as i32;
            if x + wide > width as i32 && !places.is_empty() {
                (x, row) = (self.pixels(58), row + 1);
            }
            places.push((x, row));
            x += wide;
        }
        let (chart, legend) = body.split_vertically(height as i32 - (row + 1) * row_height - self.pixels(4));
        for (line, (x, row)) in lines.iter().zip(places) {
            let (y, colour) = (row * row_height + self.pixels(9), PALETTE[line.colour % PALETTE.len()]);
            legend.draw(&PathElement::new(vec![(x, y), (x + sample, y)], self.stroke(colour, 3)))?;
            let style = style.clone().pos(Pos::new(HPos::Left, VPos::Center));
            legend.draw_text(&shown(&line.label), &style, (x + sample + self.pixels(6), y))?;
        }
        Ok(chart)
    }
}

type Axis = plotters::coord::types::RangedCoordf64;

/// Registered once: the drawing needs no font of the system.
fn use_font() {
    static REGISTERED: Once = Once::new();
    REGISTERED.call_once(|| {
        // A font that is part of the program is sound, which the tests see.
        let _ = register_font(FONT, FontStyle::Normal, include_bytes!("font/inter.ttf"));
    });
}

/// From least to most with a margin as a share; of equal values something around them.
fn range(values: impl Iterator<Item = f64>, margin: f64) -> Range<f64> {
    let (low, high) = values.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), x| (low.min(x), high.max(x)));
    let extent = high - low;
    if !extent.is_finite() {
        0.0..1.0
    } else if extent > 0.0 {
        low - margin * extent..high + margin * extent
    } else {
        low - 0.5 * low.abs().max(1e-9)..high + 0.5 * high.abs().max(1e-9)
    }
}

/// A number on an axis: `10k`, `0.25`, `2e-5`.
fn tick(value: f64) -> String {
    let size = value.abs();
    if size == 0.0 || size < 1e-12 {
        return "0".into();
    }
    if size < 1e-3 {
        return format!("{value:.1e}").replace(".0e", "e");
    }
    let (value, suffix) = if size >= 1e4 { (value / 1e3, "k") } else { (value, "") };
    let decimals = if value.abs() >= 100.0 { 0 } else { 4 };
    let text = format!("{value:.decimals$}");
    let text = if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.') } else { &text };
    format!("{text}{suffix}")
}

/// A text that fits.
fn shown(text: &str) -> String {
    match text.char_indices().nth(2 * LONGEST_LABEL) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.into(),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn number() -> impl Strategy<Value = f64> {
        prop_oneof![4 => -1e3..1e3, 1 => -1e30..1e30, 1 => Just(0.0), 1 => Just(f64::NAN), 1 => Just(f64::INFINITY)]
    }

    fn content() -> impl Strategy<Value = Content> {
        let line = (
            prop::collection::vec((number(), number()), 0..20),
            prop::collection::vec((number(), number(), number()), 0..5),
            any::<bool>(),
        );
        let line =
            line.prop_map(|(points, band, area)| Line { label: "a <b> & \"c\"".into(), colour: 1, points, band, area });
        let row = (number(), number(), number()).prop_map(|(value, low, high)| Row {
            label: "<script>alert(1)</script> 🧬 مرحبا".into(),
            colour: 9,
            value,
            interval: (low, high),
        });
        prop_oneof![
            prop::collection::vec(line, 0..7).prop_map(Content::Lines),
            (prop::collection::vec(row, 0..7), any::<bool>())
                .prop_map(|(rows, around_zero)| Content::Intervals { rows, around_zero }),
            prop::collection::vec(prop::collection::vec(number(), 0..5), 0..5).prop_map(Content::Grid),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn any_numbers_are_drawn_and_no_text_is_markup(content in content()) {
            let figure = Figure {
                name: "f".into(), title: "<script>x</script>".into(), x: "steps & <i>".into(), y: "y".into(), content,
            };
            let svg = figure.svg().unwrap();
            prop_assert!(svg.starts_with("<svg role=\"img\" viewBox=") && !svg.contains("<script"), "{}", svg);
            prop_assert_eq!(&svg, &figure.svg().unwrap());
            let png = figure.png().unwrap();
            let reader = png::Decoder::new(Cursor::new(png)).read_info().unwrap();
            prop_assert_eq!(reader.info().size(), (SIZE.0 * PNG_SCALE, SIZE.1 * PNG_SCALE));
        }
    }

    #[test]
    fn numbers_on_an_axis_are_short() {
        let shown = [0.0, 2e-5, 0.25, -0.006, 1500.0, 20_000.0, 123_456.0].map(tick);
        assert_eq!(shown, ["0", "2e-5", "0.25", "-0.006", "1500", "20k", "123k"]);
    }
}
