//! Figures of several rounds: their median and their spread, and bars for figures over time.
//!
//! The spread is from the lowest to the highest. Quartiles of three rounds would say nothing.

use serde::Serialize;

use crate::text::numbers::grouped;

/// One figure, over all rounds.
#[derive(Clone, Copy, PartialEq, Debug, Serialize)]
pub(super) struct Figure {
    pub(super) median: f64,
    pub(super) low: f64,
    pub(super) high: f64,
}

impl Figure {
    /// The figure over the values of all rounds, or `None` if there are none.
    pub(super) fn of(values: impl IntoIterator<Item = f64>) -> Option<Self> {
        let mut values: Vec<f64> = values.into_iter().collect();
        values.sort_by(f64::total_cmp);
        let count = values.len();
        Some(Figure {
            median: (values.get(count.checked_sub(1)? / 2)? + values[count / 2]) / 2.0,
            low: values[0],
            high: values[count - 1],
        })
    }

    pub(super) fn spreads(&self) -> bool {
        self.low < self.high
    }
}

/// A bar for each value; the highest has full height. A value of zero has no bar.
pub(super) fn bars(values: &[f64]) -> String {
    const BARS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
    let highest = values.iter().copied().fold(0.0, f64::max);
    let bar = |value: &f64| {
        let eighths = (value / highest * 8.0).ceil() as usize;
        match eighths.min(8).checked_sub(1) {
            Some(place) => BARS[place],
            None => ' ',
        }
    };
    values.iter().map(bar).collect()
}

/// A non-negative number, with about three significant digits.
pub(super) fn rounded(number: f64) -> String {
    match number {
        size if size >= 100.0 => grouped(number.round() as u64),
        size if size >= 10.0 => format!("{number:.1}"),
        _ => format!("{number:.2}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_figure_is_the_one_in_the_middle_and_the_ends() {
        let of = |values: &[f64]| {
            let it = Figure::of(values.iter().copied());
            it.map(|it| (it.low, it.median, it.high))
        };
        assert_eq!(of(&[3.0, 1.0, 2.0]), Some((1.0, 2.0, 3.0)));
        assert_eq!(of(&[4.0, 1.0, 2.0, 3.0]), Some((1.0, 2.5, 4.0)));
        assert_eq!(of(&[5.0]), Some((5.0, 5.0, 5.0)));
        assert_eq!(of(&[]), None);
    }

    #[test]
    fn bars_are_as_high_as_their_values() {
        assert_eq!(bars(&[0.0, 1.0, 4.0, 8.0, 0.001]), " ▁▄█▁");
        assert_eq!(bars(&[]), "");
        assert_eq!(bars(&[0.0, 0.0]), "  ");
    }

    #[test]
    fn numbers_are_rounded_to_what_matters() {
        let cases = [(4.846, "4.85"), (31.449, "31.4"), (31_449.6, "31,450")];
        for (number, text) in cases {
            assert_eq!(rounded(number), text);
        }
    }
}
