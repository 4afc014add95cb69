//! A frame: two lines of head, a rule that becomes the notice when there is one, the page, the keys.

mod charts;
mod list;
pub mod look;
mod overview;
mod text;

use ratatui::Frame;
use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::Style;

use super::clean::{fit, width};
use super::model::{Answer, Status};
use super::sheet::Tone;
use super::state::{Detail, State, View};
use super::{units, words};
use look::Look;

/// With less than this there would be more headings than figures.
pub const SMALLEST: (u16, u16) = (60, 14);

/// Lines above the page.
const HEAD: u16 = 3;

/// Draws what there is to see. Of the state only changes how far it is scrolled, which depends on the room there is.
pub fn draw(frame: &mut Frame<'_>, state: &mut State, look: Look) {
    let mut canvas = Canvas { area: frame.area(), buffer: frame.buffer_mut(), look };
    let area = canvas.area;
    if area.width < SMALLEST.0 || area.height < SMALLEST.1 {
        return too_small(&mut canvas);
    }
    let answer = state.shown();
    head(&mut canvas, &answer);
    tabs(&mut canvas, state.view());
    rule(&mut canvas, &state.notices());
    let body = Rect { y: area.y + HEAD, height: area.height - HEAD - 1, ..area };
    let mut page = Canvas { area: body, buffer: canvas.buffer, look };
    if state.is_helping() {
        text::draw(&mut page, state, "What the keys do, and what words mean", &words::help());
    } else if let Some(detail) = state.detail().cloned() {
        let (title, facts) = match &detail {
            Detail::Server(name) => (format!("Server {name}"), words::of_server(&answer, name)),
            Detail::Decision(decision) => ("A request".to_owned(), words::of_decision(decision)),
        };
        text::draw(&mut page, state, &title, &facts);
    } else if state.view() == View::Overview {
        overview::draw(&mut page, &answer.status);
    } else {
        list::draw(&mut page, state);
    }
    keys(&mut Canvas { area, buffer: page.buffer, look }, state);
}

/// A part of the screen to write on; what does not fit is cut.
pub(super) struct Canvas<'a> {
    /// Which part.
    area: Rect,
    buffer: &'a mut Buffer,
    look: Look,
}

impl Canvas<'_> {
    /// Writes into a line of the area, from a column on, over so many columns at most. Returns the column behind it.
    fn put(&mut self, x: u16, y: u16, most: u16, text: &str, style: Style) -> u16 {
        let room = most.min(self.area.width.saturating_sub(x));
        if y >= self.area.height || room == 0 {
            return x;
        }
        let text = fit(&self.look.text(text), room.into(), self.look.cut());
        let (end, _) = self.buffer.set_stringn(self.area.x + x, self.area.y + y, text, room.into(), style);
        end - self.area.x
    }

    /// The same, ending before a column.
    fn put_right(&mut self, end: u16, y: u16, text: &str, style: Style) {
        let columns = columns(text).min(end);
        self.put(end - columns, y, columns, text, style);
    }

    fn fill(&mut self, y: u16, style: Style) {
        self.buffer.set_style(Rect { y: self.area.y + y, height: 1, ..self.area }, style);
    }
}

fn columns(text: &str) -> u16 {
    width(text).try_into().unwrap_or(u16::MAX)
}

fn too_small(canvas: &mut Canvas<'_>) {
    let (area, (columns, rows)) = (canvas.area, SMALLEST);
    let lines = [
        format!("too small: {}x{}", area.width, area.height),
        format!("needed: {columns}x{rows}"),
        "q quits".to_owned(),
    ];
    for (y, line) in lines.iter().enumerate() {
        canvas.put(0, y as u16, u16::MAX, line, Style::new());
    }
}

fn head(canvas: &mut Canvas<'_>, answer: &Answer) {
    let status = &answer.status;
    let info = &status.info;
    let end = canvas.put(1, 0, 34, info.name.as_str(), canvas.look.title());
    let (standing, tone) = standing(status);
    let end = canvas.put(end + 2, 0, u16::MAX, &standing, canvas.look.tone(tone));
    // When it was last heard of, then who it is, as far as there is room.
    let mut right = canvas.area.width - 1;
    let age = units::span(info.uptime_seconds);
    for part in [
        format!("{} UTC", units::clock(answer.at)),
        format!("balancer {}, pid {}, for {age}", info.version, info.pid),
    ] {
        if end + 2 + columns(&part) > right {
            return;
        }
        canvas.put_right(right, 0, &part, canvas.look.faint());
        right -= columns(&part) + 2;
    }
}

/// The service in few words.
pub(super) fn standing(status: &Status) -> (String, Tone) {
    let servers = status.servers.len();
    let up = status.servers.iter().filter(|server| server.state.as_str() == "up").count();
    let text = format!("{up} of {servers} servers up");
    match (status.info.draining, status.ready) {
        (true, _) => (format!("{text}, stopping"), Tone::Notable),
        (false, false) => (format!("{text}, not ready"), Tone::Bad),
        (false, true) if up == 0 => (text, Tone::Bad),
        (false, true) if up < servers => (text, Tone::Notable),
        (false, true) => (text, Tone::Good),
    }
}

fn tabs(canvas: &mut Canvas<'_>, here: View) {
    let mut x = 0;
    for (number, view) in View::ALL.into_iter().enumerate() {
        let style = if view == here { canvas.look.chosen() } else { Style::new() };
        x = canvas.put(x, 1, u16::MAX, &format!(" {} {} ", number + 1, view.title()), style) + 1;
    }
}

fn rule(canvas: &mut Canvas<'_>, notices: &[String]) {
    if notices.is_empty() {
        let line = canvas.look.rule().to_string().repeat(canvas.area.width.into());
        canvas.put(0, 2, u16::MAX, &line, canvas.look.faint());
    } else {
        let style = canvas.look.notice();
        canvas.fill(2, style);
        canvas.put(1, 2, u16::MAX, &notices.join("; "), style);
    }
}

fn keys(canvas: &mut Canvas<'_>, state: &State) {
    let y = canvas.area.height - 1;
    let (filter, is_typing) = state.filter();
    if is_typing {
        let x = canvas.put(1, y, u16::MAX, "show only: ", canvas.look.title());
        let x = canvas.put(x, y, u16::MAX, filter, Style::new());
        let x = canvas.put(x, y, 1, " ", canvas.look.chosen());
        canvas.put(x + 2, y, u16::MAX, "Enter keeps it, Esc shows all", canvas.look.faint());
        return;
    }
    let is_list = state.view() != View::Overview;
    let keys = match (state.is_helping(), state.detail().is_some()) {
        (true, _) => "Esc back   Up, Down scroll   q quit",
        (false, true) => "Esc back   Up, Down scroll   f freeze   ? help   q quit",
        (false, false) if is_list => {
            "? help   / filter   s sort   S turn round   f freeze   Enter details   q quit"
        }
        (false, false) => "? help   1-5, Tab pages   f freeze   q quit",
    };
    canvas.put(1, y, u16::MAX, keys, canvas.look.faint());
}
