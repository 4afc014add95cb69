//! The last minutes in bars, a line for each figure.

use ratatui::style::Style;

use super::Canvas;
use crate::top::model::{Sample, Status};
use crate::top::sheet::Tone;
use crate::top::units;

/// A line.
struct Chart {
    label: &'static str,
    value: fn(&Sample) -> Option<f64>,
    /// With its unit.
    shown: fn(f64) -> String,
    which: Which,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Which {
    /// It tells whether all is well.
    First,
    /// More than none is bad.
    Failures,
    /// It is left out where there is little room.
    More,
    /// So is this, and where there is no fast path.
    Fast,
}

const CHARTS: [Chart; 6] = [
    Chart {
        label: "requests/s",
        value: |sample| Some(sample.requests_per_second),
        shown: units::rate,
        which: Which::First,
    },
    Chart {
        label: "failures/s",
        value: |sample| Some(sample.failures_per_second),
        shown: units::rate,
        which: Which::Failures,
    },
    Chart {
        label: "connections/s, proxy",
        value: |sample| Some(sample.connections_per_second),
        shown: units::rate,
        which: Which::More,
    },
    Chart {
        label: "connections/s, fast",
        value: |sample| Some(sample.fast_per_second),
        shown: units::rate,
        which: Which::Fast,
    },
    Chart { label: "p50", value: |sample| sample.p50_millis, shown: units::millis, which: Which::More },
    Chart { label: "p99", value: |sample| sample.p99_millis, shown: units::millis, which: Which::First },
];

/// A page with fewer lines than this has only the most important ones.
const LINES_FOR_ALL: u16 = 18;

/// Where the figures end, and where their bars begin.
const FIGURES_END: u16 = 27;
const BARS: u16 = FIGURES_END + 2;

/// Room for the largest value behind the bars.
const LARGEST: u16 = 14;

/// Draws them from the line `y` on; returns the line behind them.
pub(super) fn draw(canvas: &mut Canvas<'_>, status: &Status, mut y: u16) -> u16 {
    let is_tall = canvas.area.height >= LINES_FOR_ALL;
    for chart in &CHARTS {
        let is_shown = match chart.which {
            Which::First | Which::Failures => true,
            Which::More => is_tall,
            Which::Fast => is_tall && status.fast_path.is_some(),
        };
        if is_shown {
            chart.draw(canvas, &status.history.samples, y);
            y += 1;
        }
    }
    let history = &status.history;
    let caption = match history.samples.len() as u64 * history.seconds {
        0 => "No figures yet: the first come after some seconds.".to_owned(),
        seconds => format!("means of {}s, the last {}", history.seconds, units::span(seconds)),
    };
    canvas.put(BARS, y, u16::MAX, &caption, canvas.look.faint());
    y + 1
}

impl Chart {
    fn draw(&self, canvas: &mut Canvas<'_>, samples: &[Sample], y: u16) {
        let room = canvas.area.width.saturating_sub(BARS + LARGEST + 1);
        let values: Vec<Option<f64>> = samples.iter().map(self.value).collect();
        let now = values.last().copied().flatten();
        let largest = values.iter().flatten().copied().fold(0.0, f64::max);
        let is_bad = self.which == Which::Failures && now.is_some_and(|now| now > 0.0);
        let style = if is_bad { canvas.look.tone(Tone::Bad) } else { canvas.look.title() };
        canvas.put(1, y, u16::MAX, self.label, Style::new());
        canvas.put_right(FIGURES_END, y, &now.map_or_else(|| "-".to_owned(), self.shown), style);
        let bars = bars(&grouped(&values, room.into()), largest, canvas.look.bars());
        canvas.put(BARS, y, room, &bars, canvas.look.bar());
        if largest > 0.0 {
            let most = format!("most {}", (self.shown)(largest));
            canvas.put_right(canvas.area.width - 1, y, &most, canvas.look.faint());
        }
    }
}

/// Neighbours taken together where there are more values than room; of each group the largest, so that no peak is lost.
fn grouped(values: &[Option<f64>], room: usize) -> Vec<Option<f64>> {
    let groups = values.len().min(room);
    let start = |group: usize| values.len() * group / groups;
    let largest = |group: &[Option<f64>]| group.iter().flatten().copied().reduce(f64::max);
    (0..groups).map(|group| largest(&values[start(group)..start(group + 1)])).collect()
}

/// A bar for each value; nothing at all where there is none.
fn bars(values: &[Option<f64>], largest: f64, bars: [char; 8]) -> String {
    let bar = |value: &Option<f64>| match value {
        None => ' ',
        Some(value) if *value <= 0.0 || largest <= 0.0 => bars[0],
        // What is more than nothing is seen to be.
        Some(value) => bars[((value / largest * 7.0).round() as usize).clamp(1, 7)],
    };
    values.iter().map(bar).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_peak_is_lost_and_nothing_is_not_zero() {
        let values = [None, Some(0.0), Some(1.0), Some(8.0), Some(0.1)];
        assert_eq!(grouped(&values, 9), values);
        assert_eq!(grouped(&values, 2), [Some(0.0), Some(8.0)]);
        assert_eq!(grouped(&values, 3), [None, Some(1.0), Some(8.0)]);
        assert_eq!(grouped(&values, 0), []);
        assert_eq!(grouped(&[], 0), []);
        assert_eq!(bars(&values, 8.0, ['_', '.', ':', '-', '=', '+', '*', '#']), " _.#.");
    }
}
