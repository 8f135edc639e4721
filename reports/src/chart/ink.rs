//! The colours of a chart, by what they mean.
//!
//! plotters writes fixed colours. Each ink therefore has a hex value that no other ink has: in a file of its own a chart keeps it, on
//! the page it is replaced by a CSS custom property, which light, dark and print then give the colour that suits them.

use plotters::style::RGBColor;

/// Colour blind eyes tell the first eight apart (Okabe and Ito, "Color Universal Design", 2008, with grey and brown for their
/// black and yellow); nobody tells sixteen colours apart, so the other eight, for a run with many peers, have hollow marks as
/// well. First the light page's colour, then the dark page's.
const SERIES: [(u32, u32); 16] = [
    (0x4d_5561, 0xb3_bbc6),
    (0x00_72b2, 0x4a_a8e0),
    (0x3c_9fd6, 0x8f_d3f8),
    (0xd5_5e00, 0xf5_8a3c),
    (0xd1_8f00, 0xf2_bd3d),
    (0x00_9e73, 0x2f_c79b),
    (0xb8_5f90, 0xe2_9bc4),
    (0x7a_4b1f, 0xc4_9468),
    (0x6b_4fbb, 0xb3_9df5),
    (0xb8_2e62, 0xff_8fb5),
    (0x6b_7a12, 0xbd_c95a),
    (0x1f_6f78, 0x6c_c5cf),
    (0x23_407f, 0x8f_a8ee),
    (0x7d_2a6b, 0xd9_8ac8),
    (0x3c_6e2f, 0x93_cf82),
    (0x8a_6d4b, 0xd9_bd98),
];

/// Light fills on which dark text reads well (Paul Tol's "light" scheme, made for colour blind eyes, and four more of its kind).
const AREA: [u32; 12] = [
    0x77_aadd, 0xee_8866, 0xee_dd88, 0x44_bb99, 0xff_aabb, 0x99_ddff, 0xbb_cc33, 0xcc_bbdd, 0xd9_b38c, 0x9c_d6c9,
    0xaa_aa66, 0xe0_c8e8,
];

/// What a line, a fill or a text is drawn with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ink {
    /// Text and axes.
    Text,
    /// Text of less weight.
    Muted,
    /// Grid lines.
    Grid,
    /// What lies behind everything.
    Paper,
    /// A region to notice: noisy rounds, the noise floor.
    Band,
    /// A region to leave out: the warm-up.
    Shade,
    /// Failures.
    Alarm,
    /// A subject, by its place among the subjects.
    Series(usize),
    /// A mechanism in a phase bar, by its place among them.
    Area(usize),
    /// Time in no phase.
    Rest,
    /// Text on a mechanism's fill, which is light on every page.
    OnArea,
}

impl Ink {
    /// How many fills there are for mechanisms.
    pub(crate) const AREAS: usize = AREA.len();

    /// Every ink with a colour of its own.
    fn all() -> impl Iterator<Item = Self> {
        let plain = [Self::Text, Self::Muted, Self::Grid, Self::Paper, Self::Band, Self::Shade, Self::Alarm];
        let plain = plain.into_iter().chain([Self::Rest, Self::OnArea]);
        plain.chain((0..SERIES.len()).map(Self::Series)).chain((0..AREA.len()).map(Self::Area))
    }

    /// Its colour on a light and on a dark page.
    fn colours(self) -> (u32, u32) {
        let area = |place: usize| AREA.get(place % AREA.len()).copied().unwrap_or_default();
        match self {
            Self::Text => (0x1b_1f24, 0xe8_eaed),
            Self::Muted => (0x5b_636d, 0xa3_abb5),
            Self::Grid => (0xe3_e6ea, 0x33_3a43),
            Self::Paper => (0xff_ffff, 0x16_1a1f),
            Self::Band => (0xf6_ead2, 0x3d_3420),
            Self::Shade => (0xee_f0f2, 0x22_272e),
            Self::Alarm => (0xb3_261e, 0xff_897d),
            Self::Rest => (0xd9_dce0, 0x9a_a1aa),
            Self::OnArea => (0x10_1418, 0x10_1419),
            Self::Series(place) => SERIES.get(place % SERIES.len()).copied().unwrap_or_default(),
            Self::Area(place) => (area(place), area(place)),
        }
    }

    /// The name of its custom property, without the dashes.
    fn name(self) -> String {
        match self {
            Self::Series(place) => format!("s{}", place % SERIES.len()),
            Self::Area(place) => format!("a{}", place % AREA.len()),
            Self::Text => "text".into(),
            Self::Muted => "muted".into(),
            Self::Grid => "grid".into(),
            Self::Paper => "paper".into(),
            Self::Band => "band".into(),
            Self::Shade => "shade".into(),
            Self::Alarm => "alarm".into(),
            Self::Rest => "rest".into(),
            Self::OnArea => "on-area".into(),
        }
    }

    /// As CSS: `var(--s1)`.
    pub(crate) fn css(self) -> String {
        format!("var(--{})", self.name())
    }

    /// As plotters wants it.
    pub(crate) fn colour(self) -> RGBColor {
        let [_, red, green, blue] = self.colours().0.to_be_bytes();
        RGBColor(red, green, blue)
    }

    /// As plotters writes it.
    fn hex(self) -> String {
        format!("#{:06X}", self.colours().0)
    }
}

/// The custom properties of the light page or of the dark one, for the body of a CSS rule.
pub(crate) fn properties(dark: bool) -> String {
    let property = |ink: Ink| {
        let (light_colour, dark_colour) = ink.colours();
        format!("--{}:#{:06x};", ink.name(), if dark { dark_colour } else { light_colour })
    };
    Ink::all().map(property).collect()
}

/// An SVG with its fixed colours replaced by custom properties.
pub(crate) fn with_properties(svg: &str) -> String {
    Ink::all()
        .fold(svg.to_owned(), |svg, ink| svg.replace(&format!("\"{}\"", ink.hex()), &format!("\"{}\"", ink.css())))
}

/// Gives each subject's lines their dashes, so that no line is told from another by its colour alone.
pub(crate) fn with_dashes(svg: &str, unit: f64) -> String {
    const DASHES: [&[f64]; 4] = [&[], &[7.0, 3.0], &[2.0, 2.5], &[9.0, 3.0, 2.0, 3.0]];
    let mut svg = svg.to_owned();
    for place in 0..SERIES.len() {
        let dash = DASHES.get(place % DASHES.len()).copied().unwrap_or_default();
        if !dash.is_empty() {
            let dash: Vec<String> = dash.iter().map(|length| format!("{}", length * unit)).collect();
            let line = format!("<polyline fill=\"none\" stroke=\"{}\"", Ink::Series(place).hex());
            svg = svg.replace(&line, &format!("{line} stroke-dasharray=\"{}\"", dash.join(" ")));
        }
    }
    svg
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn each_ink_is_written_in_a_colour_that_no_other_has() {
        let colours: BTreeSet<String> = Ink::all().map(Ink::hex).collect();
        assert_eq!(colours.len(), Ink::all().count());
    }

    #[test]
    fn text_reads_on_its_paper_on_both_pages() {
        for (ink, paper) in [(Ink::Text, Ink::Paper), (Ink::Muted, Ink::Paper), (Ink::Alarm, Ink::Paper)] {
            let (ink, paper) = (ink.colours(), paper.colours());
            for (ink, paper) in [(ink.0, paper.0), (ink.1, paper.1)] {
                // WCAG 2.2, 1.4.3: 4.5 to 1 for text.
                assert!(contrast(ink, paper) >= 4.5, "{ink:06x} on {paper:06x}: {}", contrast(ink, paper));
            }
        }
    }

    #[test]
    fn lines_and_marks_stand_out_from_their_paper_on_both_pages() {
        for place in 0..SERIES.len() {
            let (ink, paper) = (Ink::Series(place).colours(), Ink::Paper.colours());
            // WCAG 2.2, 1.4.11: 3 to 1 for graphics; the light page's orange and sky lie a little below and have a shape.
            assert!(contrast(ink.0, paper.0) >= 2.7 && contrast(ink.1, paper.1) >= 3.0, "{place}");
        }
    }

    /// WCAG 2.2's contrast ratio.
    fn contrast(a: u32, b: u32) -> f64 {
        let luminance = |colour: u32| {
            let [_, channels @ ..] = colour.to_be_bytes();
            let linear = channels.map(|channel| {
                let share = f64::from(channel) / 255.0;
                if share <= 0.04045 { share / 12.92 } else { ((share + 0.055) / 1.055).powf(2.4) }
            });
            0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
        };
        let (a, b) = (luminance(a), luminance(b));
        (a.max(b) + 0.05) / (a.min(b) + 0.05)
    }
}
