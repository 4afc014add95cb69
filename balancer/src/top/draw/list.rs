//! A list under its columns, as many as there is room for.

use ratatui::style::Style;

use super::{Canvas, columns};
use crate::top::ask::MOST_FLOWS;
use crate::top::model::Answer;
use crate::top::sheet::{Column, Row, Sheet, Sorting, tone_of_state};
use crate::top::state::{State, View};

/// Between two columns.
const GAP: u16 = 2;

/// A symbol before a row, and a space.
const MARK: u16 = 2;

/// What a column has at most unless it is the last one: names and addresses may be long.
const WIDEST: u16 = 30;

pub(super) fn draw(canvas: &mut Canvas<'_>, state: &mut State) {
    let Some((sheet, chosen)) = state.sheet() else { return };
    let (caption, empty) = (caption(state, &sheet), reason(state, &sheet));
    canvas.put(1, 0, u16::MAX, &caption, canvas.look.faint());
    let list = state.list();
    let (sorting, offset) = (list.sorting, list.offset);
    let room = usize::from(canvas.area.height.saturating_sub(2)).max(1);
    let offset = in_view(offset, chosen, room, sheet.rows.len());
    state.page = room;
    state.list_mut().offset = offset;
    let layout = Layout::new(sheet.columns, &sheet.rows, canvas.area.width - 2, sorting);
    layout.head(canvas, 1, sheet.columns, sorting);
    for (y, (place, row)) in (2..).zip(sheet.rows.iter().enumerate().skip(offset).take(room)) {
        if place == chosen {
            canvas.fill(y, canvas.look.chosen());
        }
        layout.row(canvas, y, sheet.columns, row, place == chosen);
    }
    if let Some(empty) = empty {
        canvas.put(1, 3, u16::MAX, &empty, Style::new());
    }
}

/// Rows above the first one seen, moved as little as will show the chosen one and no empty end.
fn in_view(offset: usize, chosen: usize, room: usize, rows: usize) -> usize {
    let offset = offset.min(chosen).max((chosen + 1).saturating_sub(room));
    offset.min(rows.saturating_sub(room))
}

/// How many there are, and how many of them are seen.
fn caption(state: &State, sheet: &Sheet) -> String {
    let (shown, total) = (sheet.rows.len(), sheet.total);
    let (filter, _) = state.filter();
    let of = |n: usize| if filter.is_empty() { n.to_string() } else { format!("{shown} of {n}") };
    let with = if filter.is_empty() { String::new() } else { format!(" with \"{filter}\"") };
    let answer = state.shown();
    match state.view() {
        View::Overview => String::new(),
        View::Servers => format!("{} servers{with}", of(total)),
        View::Tables => format!("{} learned tables{with}, kept in: {}", of(total), answer.status.info.tables),
        View::Flows => {
            let all = answer.status.fast_path.map_or(0, |fast| fast.connections);
            let is_part = total >= MOST_FLOWS && all > total as u64;
            let more = if is_part {
                format!("; there are {all}, of which these were met first")
            } else {
                String::new()
            };
            format!("{} fast connections{with}{more}", of(total))
        }
        View::Decisions => format!("the last {} requests{with}", of(total)),
    }
}

/// Why there is nothing to see, if so.
fn reason(state: &State, sheet: &Sheet) -> Option<String> {
    if !sheet.rows.is_empty() {
        return None;
    }
    if sheet.total > 0 {
        return Some("Nothing has this text in it. Esc shows all.".to_owned());
    }
    let answer = state.shown();
    Some(match state.view() {
        View::Tables => "No --persist method of this service learns, so there are no tables.".to_owned(),
        View::Flows => reason_for_no_flows(&answer),
        View::Decisions => "No request has been answered yet.".to_owned(),
        View::Servers | View::Overview => "There is none.".to_owned(),
    })
}

fn reason_for_no_flows(answer: &Answer) -> String {
    match (&answer.flows, answer.status.fast_path) {
        (Some(Err(why)), _) => format!("They cannot be shown: {why}"),
        (_, None) => "This service has no fast path: it was started without --xdp.".to_owned(),
        (None, _) => "They were not asked for yet.".to_owned(),
        (Some(Ok(_)), _) => "There is none now.".to_owned(),
    }
}

/// Which columns are shown, where, and how wide.
pub(super) struct Layout {
    /// Rows have a symbol before them.
    has_marks: bool,
    /// Index of the column, where it begins, how wide it is.
    places: Vec<(usize, u16, u16)>,
}

impl Layout {
    /// As many of the columns as go into `room`, the least important left out first, but never the one it is sorted by.
    pub(super) fn new(all: &[Column], rows: &[Row], room: u16, sorting: Sorting) -> Self {
        let widths: Vec<u16> = all
            .iter()
            .enumerate()
            .map(|(index, column)| {
                let mark = if sorting.column == index { 2 } else { 0 };
                let cells = rows.iter().map(|row| columns(&row.cells[index].text));
                let widest = if index + 1 == all.len() { u16::MAX } else { WIDEST };
                cells.max().unwrap_or(0).min(widest).max(columns(column.title) + mark)
            })
            .collect();
        let has_marks = rows.iter().any(|row| row.state.is_some());
        let marks = if has_marks { MARK } else { 0 };
        let mut kept: Vec<usize> = (0..all.len()).collect();
        let is_kept_for_sorting = |index: usize| sorting.column == index;
        let flexible = all.len() - 1;
        // The last column may be cut, down to this.
        let needed = |index: usize| {
            let is_flexible = index == flexible && !all[index].is_number && all[index].luxury == 0;
            if is_flexible { widths[index].min(WIDEST) } else { widths[index] }
        };
        while kept.iter().map(|index| needed(*index).saturating_add(GAP)).sum::<u16>() > room - marks + GAP {
            let candidates = kept.iter().enumerate().filter(|(_, index)| !is_kept_for_sorting(**index));
            let least = candidates.max_by_key(|(place, index)| (all[**index].luxury, *place));
            match least {
                Some((place, index)) if all[*index].luxury > 0 => drop(kept.remove(place)),
                _ => break,
            }
        }
        // What nobody needs is for those that would be cut.
        let used = kept.iter().map(|index| widths[*index].saturating_add(GAP)).fold(0, u16::saturating_add);
        let mut spare = (room - marks + GAP).saturating_sub(used);
        let mut places = Vec::new();
        let mut x = 1 + marks;
        for index in kept {
            let whole = rows.iter().map(|row| columns(&row.cells[index].text)).max().unwrap_or(0);
            let more = whole.saturating_sub(widths[index]).min(spare);
            spare -= more;
            let width = (widths[index] + more).min((room + 1).saturating_sub(x));
            places.push((index, x, width));
            x = x.saturating_add(width + GAP);
        }
        Self { has_marks, places }
    }

    pub(super) fn head(&self, canvas: &mut Canvas<'_>, y: u16, all: &[Column], sorting: Sorting) {
        for &(index, x, width) in &self.places {
            let column = &all[index];
            let mut title = column.title.to_owned();
            if sorting.column == index {
                title = format!("{title} {}", canvas.look.sorted(sorting.is_descending));
            }
            place(canvas, (x, y, width), &title, column.is_number, canvas.look.title());
        }
    }

    pub(super) fn row(&self, canvas: &mut Canvas<'_>, y: u16, all: &[Column], row: &Row, is_chosen: bool) {
        if let (true, Some(state)) = (self.has_marks, &row.state) {
            let style = if is_chosen { canvas.look.chosen() } else { canvas.look.tone(tone_of_state(state)) };
            canvas.put(1, y, 1, &canvas.look.state(state).to_string(), style);
        }
        for &(index, x, width) in &self.places {
            let cell = &row.cells[index];
            let style = if is_chosen { canvas.look.chosen() } else { canvas.look.tone(cell.tone) };
            place(canvas, (x, y, width), &cell.text, all[index].is_number, style);
        }
    }
}

fn place(canvas: &mut Canvas<'_>, (x, y, width): (u16, u16, u16), text: &str, is_right: bool, style: Style) {
    let used = columns(text).min(width);
    let start = if is_right { x + width - used } else { x };
    canvas.put(start, y, width, text, style);
}

#[cfg(test)]
mod tests {
    use super::in_view;

    #[test]
    fn the_chosen_row_is_always_seen() {
        for (offset, chosen, room, rows, expected) in [
            (0, 0, 5, 40, 0),
            (0, 5, 5, 40, 1),
            (10, 3, 5, 40, 3),
            (10, 12, 5, 40, 10),
            (38, 39, 5, 40, 35),
            (9, 0, 5, 0, 0),
            (7, 2, 5, 3, 0),
        ] {
            assert_eq!(in_view(offset, chosen, room, rows), expected);
        }
    }
}
