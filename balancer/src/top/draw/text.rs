//! A text: facts under a title, broken into lines, scrolled.

use super::{Canvas, columns};
use crate::top::clean::width;
use crate::top::sheet::Tone;
use crate::top::state::State;
use crate::top::words::Fact;

/// What is before the text: the labels' column.
const WIDEST_LABEL: u16 = 24;

struct Line {
    label: String,
    text: String,
    tone: Tone,
}

pub(super) fn draw(canvas: &mut Canvas<'_>, state: &mut State, title: &str, facts: &[Fact]) {
    canvas.put(1, 0, u16::MAX, title, canvas.look.title());
    let labels = facts.iter().map(|fact| columns(&fact.label)).max().unwrap_or(0).min(WIDEST_LABEL);
    let x = if labels > 0 { labels + 3 } else { 1 };
    let lines: Vec<Line> =
        facts.iter().flat_map(|fact| broken(fact, (canvas.area.width - x - 1).into())).collect();
    let room = usize::from(canvas.area.height.saturating_sub(2)).max(1);
    state.page = room;
    state.scrolled = state.scrolled.min(lines.len().saturating_sub(room));
    for (y, line) in (2..).zip(lines.iter().skip(state.scrolled).take(room)) {
        canvas.put(1, y, x - 1, &line.label, canvas.look.faint());
        canvas.put(x, y, u16::MAX, &line.text, canvas.look.tone(line.tone));
    }
    if lines.len() > room {
        let seen = (state.scrolled + room).min(lines.len());
        let place = format!("lines {} to {seen} of {}", state.scrolled + 1, lines.len());
        canvas.put_right(canvas.area.width - 1, 0, &place, canvas.look.faint());
    }
}

/// Behind spaces and commas where there are any, else anywhere.
fn broken(fact: &Fact, room: usize) -> Vec<Line> {
    let mut lines = vec![String::new()];
    for word in fact.text.split_inclusive([' ', ',']) {
        let mut line = lines.last_mut().map(std::mem::take).unwrap_or_default();
        lines.pop();
        if width(&line) + width(word.trim_end()) > room && !line.is_empty() {
            lines.push(std::mem::take(&mut line));
        }
        for c in word.chars() {
            if width(&line) + width(c.encode_utf8(&mut [0; 4])) > room && c != ' ' {
                lines.push(std::mem::take(&mut line));
            }
            line.push(c);
        }
        lines.push(line);
    }
    let mut label = fact.label.clone();
    let lines = lines.into_iter();
    lines
        .map(|text| Line {
            label: std::mem::take(&mut label),
            text: text.trim_end().to_owned(),
            tone: fact.tone,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_broken_where_they_can_be() {
        let table: [(&str, &[&str]); 5] = [
            ("", &[""]),
            ("one two", &["one two"]),
            ("one two three", &["one two", "three"]),
            ("abcdefghijkl", &["abcdefgh", "ijkl"]),
            ("a bcdefghijkl m", &["a", "bcdefghi", "jkl m"]),
        ];
        for (text, expected) in table {
            let fact = Fact { text: text.to_owned(), ..Fact::default() };
            let lines: Vec<_> = broken(&fact, 8).into_iter().map(|line| line.text).collect();
            assert_eq!(lines, expected, "{text:?}");
        }
    }
}
