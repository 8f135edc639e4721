//! What charts are drawn on: plotters' SVG backend, in pixels, with inks instead of colours.

use plotters::coord::Shift;
use plotters::element::{Circle, Drawable, PathElement, PointCollection, Polygon, Rectangle, Text};
use plotters::prelude::{DrawingArea, IntoDrawingArea, IntoFont, SVGBackend, ShapeStyle};
use plotters::style::text_anchor::{HPos, Pos, VPos};
use plotters::style::{Color, FontStyle, TextStyle};

use super::Ink;

/// plotters draws on whole numbers. A tenth of a pixel as its unit keeps steep curves smooth and thin segments apart.
pub(crate) const FINE: f64 = 10.0;

/// A place on a chart, in pixels from its upper left corner.
pub(crate) type Point = (f64, f64);

/// Draws, and returns what plotters wrote.
pub(crate) fn draw(size: Point, paint: impl FnOnce(&Canvas<'_>)) -> String {
    let mut svg = String::new();
    {
        let area = SVGBackend::with_string(&mut svg, (fine(size.0) as u32, fine(size.1) as u32)).into_drawing_area();
        let canvas = Canvas { area };
        canvas.rectangle((0.0, 0.0), size, Ink::Paper);
        paint(&canvas);
        // The backend's only error is that of a file, and this one writes to a string.
        drop(canvas.area.present());
    }
    svg
}

fn fine(pixels: f64) -> i32 {
    (pixels * FINE).round() as i32
}

fn fine_point((x, y): Point) -> (i32, i32) {
    (fine(x), fine(y))
}

/// The shape of a point, by its subject's place: what tells subjects apart without colours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mark {
    /// A disc.
    Disc,
    /// A square on its side.
    Square,
    /// A square on its corner.
    Diamond,
    /// A triangle on its side.
    Triangle,
    /// A triangle on its corner.
    Wedge,
    /// Two crossing lines.
    Cross,
    /// An upright cross.
    Plus,
    /// A circle.
    Ring,
    /// A square's outline.
    Box,
    /// A diamond's outline.
    Lozenge,
    /// A triangle's outline.
    Tent,
    /// A wedge's outline.
    Funnel,
    /// Six rays.
    Star,
    /// Two triangles, corner to corner.
    Bow,
    /// The same upright.
    Glass,
    /// A circle around a disc.
    Target,
}

impl Mark {
    /// The shape of the subject in a place.
    pub(crate) fn of(place: usize) -> Self {
        let first = [Self::Disc, Self::Square, Self::Ring, Self::Diamond];
        let second = [Self::Triangle, Self::Cross, Self::Wedge, Self::Plus];
        let third = [Self::Box, Self::Lozenge, Self::Star, Self::Tent];
        let fourth = [Self::Bow, Self::Target, Self::Funnel, Self::Glass];
        let all = [first, second, third, fourth].concat();
        all.get(place % all.len()).copied().unwrap_or(Self::Disc)
    }
}

/// Corners of marks, as shares of their radius.
const SQUARE: [Point; 4] = [(-0.85, -0.85), (0.85, -0.85), (0.85, 0.85), (-0.85, 0.85)];
const DIAMOND: [Point; 4] = [(0.0, -1.2), (1.2, 0.0), (0.0, 1.2), (-1.2, 0.0)];
const TRIANGLE: [Point; 3] = [(0.0, -1.1), (1.1, 0.9), (-1.1, 0.9)];
const WEDGE: [Point; 3] = [(0.0, 1.1), (1.1, -0.9), (-1.1, -0.9)];
const BOW: [Point; 4] = [(-1.1, -0.9), (1.1, 0.9), (1.1, -0.9), (-1.1, 0.9)];

/// How a text is written.
#[derive(Clone, Copy)]
pub(crate) struct Hand {
    /// Its colour.
    pub(crate) ink: Ink,
    /// Its size in pixels.
    pub(crate) size: f64,
    /// Where its place lies along it.
    pub(crate) anchor: HPos,
    /// Whether it is bold.
    pub(crate) bold: bool,
}

impl Hand {
    /// Twelve pixels, beginning at its place.
    pub(crate) fn plain(ink: Ink) -> Self {
        Self { ink, size: 12.0, anchor: HPos::Left, bold: false }
    }

    /// Bold.
    pub(crate) fn bold(self) -> Self {
        Self { bold: true, ..self }
    }

    /// In another size.
    pub(crate) fn sized(self, size: f64) -> Self {
        Self { size, ..self }
    }

    /// Centred on its place.
    pub(crate) fn centred(self) -> Self {
        Self { anchor: HPos::Center, ..self }
    }

    /// Ending at its place.
    pub(crate) fn ending(self) -> Self {
        Self { anchor: HPos::Right, ..self }
    }

    /// How wide a text is in it, nearly: without a font nobody knows, and the mean glyph of common faces is 0.56 em.
    pub(crate) fn width(self, text: &str) -> f64 {
        text.chars().count() as f64 * self.size * if self.bold { 0.60 } else { 0.56 }
    }
}

/// A drawing surface.
pub(crate) struct Canvas<'s> {
    area: DrawingArea<SVGBackend<'s>, Shift>,
}

impl<'s> Canvas<'s> {
    fn put<E>(&self, element: &E)
    where
        for<'a> &'a E: PointCollection<'a, (i32, i32)>,
        E: Drawable<SVGBackend<'s>>,
    {
        // As above: writing to a string has no error.
        drop(self.area.draw(element));
    }

    /// A line through points.
    pub(crate) fn line(&self, points: impl IntoIterator<Item = Point>, ink: Ink, width: f64) {
        let style = ShapeStyle { color: ink.colour().to_rgba(), filled: false, stroke_width: fine(width) as u32 };
        self.put(&PathElement::new(points.into_iter().map(fine_point).collect::<Vec<_>>(), style));
    }

    /// A filled rectangle between two corners.
    pub(crate) fn rectangle(&self, corner: Point, opposite: Point, ink: Ink) {
        self.put(&Rectangle::new([fine_point(corner), fine_point(opposite)], ink.colour().filled()));
    }

    /// A filled polygon.
    pub(crate) fn polygon(&self, corners: &[Point], ink: Ink) {
        let corners: Vec<_> = corners.iter().map(|corner| fine_point(*corner)).collect();
        self.put(&Polygon::new(corners, ink.colour().filled()));
    }

    /// A text whose middle is as high as its place.
    pub(crate) fn text(&self, text: &str, place: Point, hand: Hand) {
        let style = if hand.bold { FontStyle::Bold } else { FontStyle::Normal };
        // plotters divides the size by 1.24 when it writes it, to please the fonts of its other backends.
        let font = ("sans-serif", hand.size * FINE * 1.24, style).into_font();
        let colour = hand.ink.colour();
        let style = TextStyle::from(font).color(&colour).pos(Pos::new(hand.anchor, VPos::Center));
        self.put(&Text::new(text.to_owned(), fine_point(place), style));
    }

    /// A subject's shape.
    pub(crate) fn mark(&self, mark: Mark, place: Point, radius: f64, ink: Ink) {
        let at = |dx: f64, dy: f64| (place.0 + dx * radius, place.1 + dy * radius);
        let corners = |corners: &[Point]| corners.iter().map(|(dx, dy)| at(*dx, *dy)).collect::<Vec<_>>();
        let solid = |shape: &[Point]| self.polygon(&corners(shape), ink);
        // As one polygon that goes around twice, and back on the inner side: a line of this ink gets its dashes, and a mark has none.
        let hollow = |shape: &[Point]| {
            let number = shape.len().max(1) as f64;
            let middle = shape.iter().fold((0.0, 0.0), |(x, y), (dx, dy)| (x + dx / number, y + dy / number));
            let share = (1.0 - 1.4 / radius).max(0.45);
            let inner = |(x, y): &Point| (middle.0 + (x - middle.0) * share, middle.1 + (y - middle.1) * share);
            let outer: Vec<Point> = shape.iter().chain(shape.first()).copied().collect();
            let around: Vec<Point> = outer.iter().copied().chain(outer.iter().rev().map(inner)).collect();
            self.polygon(&corners(&around), ink);
        };
        let circle = |share: f64| {
            let style = ShapeStyle { color: ink.colour().to_rgba(), filled: false, stroke_width: fine(1.5) as u32 };
            self.put(&Circle::new(fine_point(place), fine(radius * share), style));
        };
        let disc = |share: f64| self.put(&Circle::new(fine_point(place), fine(radius * share), ink.colour().filled()));
        let across = |(dx, dy): Point| self.stroke([at(-dx, -dy), at(dx, dy)], ink);
        match mark {
            Mark::Disc => disc(1.0),
            Mark::Ring => circle(0.85),
            Mark::Target => {
                circle(1.05);
                disc(0.45);
            }
            Mark::Square => self.rectangle(at(-0.85, -0.85), at(0.85, 0.85), ink),
            Mark::Box => hollow(&SQUARE),
            Mark::Diamond => solid(&DIAMOND),
            Mark::Lozenge => hollow(&DIAMOND),
            Mark::Triangle => solid(&TRIANGLE),
            Mark::Tent => hollow(&TRIANGLE),
            Mark::Wedge => solid(&WEDGE),
            Mark::Funnel => hollow(&WEDGE),
            Mark::Bow => solid(&BOW),
            Mark::Glass => solid(&BOW.map(|(dx, dy)| (dy, dx))),
            Mark::Cross => [(0.9, 0.9), (0.9, -0.9)].into_iter().for_each(across),
            Mark::Plus => [(0.0, 1.1), (1.1, 0.0)].into_iter().for_each(across),
            Mark::Star => {
                let turn = |corner: u32| f64::from(corner) * std::f64::consts::PI / 6.0;
                let ray = |corner: u32| if corner.is_multiple_of(2) { 1.35 } else { 0.4 };
                let rays: Vec<Point> = (0..12).map(|n| (ray(n) * turn(n).sin(), -ray(n) * turn(n).cos())).collect();
                solid(&rays);
            }
        }
    }

    /// One stroke of a shape. A polygon without breadth, because a subject's *lines* are dashed, and its shapes are not.
    fn stroke(&self, [from, to]: [Point; 2], ink: Ink) {
        let (dx, dy) = (to.0 - from.0, to.1 - from.1);
        let length = dx.hypot(dy).max(f64::MIN_POSITIVE);
        let (side_x, side_y) = (-dy / length * 0.8, dx / length * 0.8);
        let corners = [
            (from.0 + side_x, from.1 + side_y),
            (to.0 + side_x, to.1 + side_y),
            (to.0 - side_x, to.1 - side_y),
            (from.0 - side_x, from.1 - side_y),
        ];
        self.put(&Polygon::new(corners.map(fine_point).to_vec(), ink.colour().filled()));
    }
}
